"""A run as Markdown: the promises, then a table for each case. Ratios stand before figures, the machine beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from perf import machine, plot
from perf.promises import amount, gains, verdicts
from perf.results import NOISY, Case, spread

BEGIN: Final = "<!-- report: made by python -m perf report -->\n"
END: Final = "<!-- end of report -->\n"
HEADS: Final = {"time": "an operation", "cpu": "CPU of one", "memory": "memory (PSS)", "rss": "memory (RSS)"}


def markdown(cases: Sequence[Case], plots: dict[str, str]) -> str:
    """The whole report. `plots`: paths of images, by benchmark."""
    parts = ["### Promises\n", promises(cases)]
    if found := gains(cases):
        rows = [
            f"| {claim.text} | {claim.gain or 'no claim'} | {gain} | {saved} | {claim.case} |"
            for claim, saved, gain in found
        ]
        head = "| optimisation | claimed | found, of a whole request | saved by it | case of switches |\n"
        head += "|---|---|---|---|---|\n"
        about = next((case.machine for case in cases if case.bench == "switches"), {})
        parts += ["### Optimisations\n", head + "\n".join(rows), f"\n<sub>{machine.line(about)}</sub>\n"]
    for bench in dict.fromkeys(case.bench for case in cases):
        parts.append(f"### {bench}\n")
        if bench in plots:
            parts.append(f"![{bench}: costs as multiples of ours]({plots[bench]})\n")
        parts += [table(case) for case in cases if case.bench == bench]
    return "\n".join(parts)


def promises(cases: Sequence[Case]) -> str:
    """Met or not met. The machine is that of the case."""
    rows = ["| promise | wanted | found | best peer | |", "|---|---|---|---|---|"]
    run = {(case.bench, case.name) for case in cases}
    judged = verdicts(cases)
    for promise, met, wanted, found, best in judged:
        if (promise.bench, promise.case) not in run:
            continue
        verdict = "**not measured**" if met is None else "met" if met else "**NOT met**"
        rows.append(f"| {promise.text} | {wanted} | {cell(found)} | {best} | {verdict} |")
    about = next((case.machine for case in cases if case.machine), {})
    note = f"{machine.line(about)}. “Best peer”: the cost of the one that it cost least, as a multiple of ours."
    missing = [one.promise.text for one in judged if (one.promise.bench, one.promise.case) not in run]
    if missing:
        note += f" Promises that this run has not looked at: {'; '.join(missing)}."
    return ("\n".join(rows) if len(rows) > 2 else "None in what was run.") + f"\n\n<sub>{note}</sub>\n"


def table(case: Case) -> str:
    """One case."""
    parts = [f"#### {case.bench}: {case.name}\n", f"{case.title}\n"]
    metrics, contestants = case.metrics(), case.contestants()
    if contestants:
        first = case.growth or f"× of “{case.subject()}”"
        heads = [first, *(HEADS.get(metric, metric) for metric in metrics), "rounds"]
        parts.append("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
        for one in contestants:
            cells = [one, *(figure(case, one, metric) for metric in metrics), noise(case, one)]
            parts.append("| " + " | ".join(cells) + " |")
    if case.left:
        parts.append("" if contestants else "No figures.\n")
        parts += [f"- {one}: left out, {cell(reason)}" for one, reason in case.left.items()]
    if case.growth and contestants:
        for metric in metrics:
            if line := case.slope(metric):
                parts.append(f"\nSlope of {HEADS.get(metric, metric)}: {amount(line[1], metric)} for one more "
                             f"({case.growth}), from {amount(line[0], metric)}.")  # fmt: skip
    if case.note:
        parts.append(f"\n{case.note}")
    if contestants:
        parts.append(f"\n<sub>{machine.line(case.machine)}</sub>")
    return "\n".join(parts) + "\n"


def figure(case: Case, one: str, metric: str) -> str:
    """How many times ours, then how much."""
    value = case.median(one, metric)
    if value is None:
        return ""
    text = amount(value, metric)
    if metric == "time" and value < 0.1:
        text += f" ({1 / value:,.0f}/s)"
    if one == case.subject():
        return text
    each = case.ratios(one, metric)
    return f"**{median(each):.2f} ×** {text}" if each else text


def noise(case: Case, one: str) -> str:
    """How many rounds, and which figures to doubt."""
    count = max(len(values) for (contestant, _), values in case.values.items() if contestant == one)
    wide = []
    for metric in case.metrics():
        each = case.ratios(one, metric) if one != case.subject() else []
        found = spread(each) if each else case.spread(one, metric)
        if found > NOISY:
            wide.append(f"{HEADS.get(metric, metric)} ± {found / 2:.0%}")
    return f"{count}, noisy: {', '.join(wide)}" if wide else str(count)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def write(cases: Sequence[Case], page: Path | None, folder: Path | None) -> str:
    """The report; with `page`, put between the marks of that file; with `folder`, plots are drawn there."""
    plots = {}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        base = page.parent if page is not None else folder
        for bench in dict.fromkeys(case.bench for case in cases):
            drawn = plot.draw([case for case in cases if case.bench == bench])
            if drawn:
                file = folder / f"{bench}.svg"
                file.write_text(drawn, encoding="utf-8")
                plots[bench] = file.resolve().relative_to(base.resolve(), walk_up=True).as_posix()
    text = markdown(cases, plots)
    if page is not None:
        source = page.read_text(encoding="utf-8")
        pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
        if len(pattern.findall(source)) != 1:
            raise ValueError(f"{page} has no place for the report: it needs {BEGIN.strip()} and {END.strip()}, once")
        page.write_text(pattern.sub(lambda _: f"{BEGIN}\n{text}\n{END}", source), encoding="utf-8")
    return text
