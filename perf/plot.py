"""Plots as SVG, written by hand: bars of what a case cost each contestant as multiples of ours, lines of growth."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from statistics import median
from typing import Final

from perf import machine
from perf.promises import amount
from perf.results import Case

WIDTH, LEFT, ROW, GAP = 860, 250, 18, 30
OURS, THEIRS, FAINT = "#1f6f8b", "#9aa5ab", "#d7dde0"
STYLE: Final = "font-family='system-ui, sans-serif' font-size='12' fill='#222'"
SPAN: Final = WIDTH - LEFT - 170  # of the bars


def draw(cases: Sequence[Case]) -> str:
    """One image for the cases of a benchmark; "" if there is nothing to see."""
    parts: list[str] = []
    y = 24
    for case in cases:
        drawn, height = lines(case, y) if case.growth else bars(case, y)
        parts += drawn
        y += height
    if not parts:
        return ""
    about = next((case.machine for case in cases if case.machine), {})
    parts.append(text(8, y, machine.line(about), "font-size='9' fill='#667'"))
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {y + 12}' width='{WIDTH}' {STYLE}>"
        f"<rect width='100%' height='100%' fill='white'/>{''.join(parts)}</svg>\n"
    )


def text(x: float, y: float, words: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {more}>{escape(words)}</text>"


def bars(case: Case, y: float) -> tuple[list[str], float]:
    """The first metric of a case: a bar each, with the range of the rounds' ratios."""
    if not case.metrics():
        return [], 0
    metric = case.metrics()[0]
    rows = [(one, case.ratios(one, metric), case.median(one, metric)) for one in case.contestants()]
    found = [(one, each, value) for one, each, value in rows if each and value is not None]
    if len(found) < 2:
        return [], 0
    most = max(median(each) for _, each, _ in found)
    parts = [text(8, y, f"{case.name}: {metric}, as a multiple of {case.subject()}", "font-weight='bold'")]
    for row, (one, each, value) in enumerate(found):
        top = y + 8 + row * ROW
        scale = SPAN / most
        width = max(1.0, median(each) * scale)
        color = OURS if one == case.subject() else THEIRS
        parts.append(text(LEFT - 8, top + 12, one[:38], "text-anchor='end'"))
        parts.append(f"<rect x='{LEFT}' y='{top + 2}' width='{width:.1f}' height='{ROW - 5}' fill='{color}'/>")
        low, high = (min(LEFT + SPAN + 20, LEFT + ratio * scale) for ratio in (each[0], each[-1]))
        if high - low > 1:
            at = top + ROW / 2
            parts.append(f"<line x1='{low:.1f}' x2='{high:.1f}' y1='{at}' y2='{at}' stroke='#222'/>")
        label = f"{median(each):.2f} ×  {amount(value, metric)}"
        parts.append(text(max(LEFT + width, high) + 6, top + 12, label))
    return parts, len(found) * ROW + GAP + 8


def lines(case: Case, y: float) -> tuple[list[str], float]:
    """Growth: each metric a line of points, the abscissa by its logarithm, the ordinate from zero."""
    parts: list[str] = []
    height, top = 90.0, y
    for metric in case.metrics():
        points = [(float(one), value) for one in case.contestants() if (value := case.median(one, metric)) is not None]
        if len(points) < 2:
            continue
        least, most = log10(points[0][0] + 1), log10(points[-1][0] + 1)
        high = max(value for _, value in points)

        def place(x: float, value: float) -> tuple[float, float]:
            return LEFT + (log10(x + 1) - least) / (most - least) * SPAN, top + 12 + height - value / high * height  # noqa: B023

        slope = case.slope(metric)
        words = f"{case.name}: {metric}" + (f", {amount(slope[1], metric)} each" if slope else "")
        parts.append(text(8, top, words, "font-weight='bold'"))
        base = top + 12 + height
        parts.append(f"<line x1='{LEFT}' x2='{LEFT + SPAN}' y1='{base}' y2='{base}' stroke='{FAINT}'/>")
        path = " ".join(f"{x:.1f},{at:.1f}" for x, at in (place(*point) for point in points))
        parts.append(f"<polyline points='{path}' fill='none' stroke='{OURS}' stroke-width='2'/>")
        for x, value in points:
            left, at = place(x, value)
            parts.append(f"<circle cx='{left:.1f}' cy='{at:.1f}' r='3' fill='{OURS}'/>")
            parts.append(text(left, top + 26 + height, f"{x:g}", "text-anchor='middle' font-size='10'"))
        parts.append(text(LEFT + SPAN + 10, place(*points[-1])[1] + 4, amount(points[-1][1], metric)))
        top += height + 50
    return parts, top - y + (8 if parts else 0)
