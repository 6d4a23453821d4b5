"""What was measured, and how it is kept: as JSON of pyperf, one benchmark for each contestant's metric in each case.

The name of a row is `bench/case/contestant/metric`, a run is a round, and the run's metadata say which: so rounds can
be matched when a file is read again, and `pyperf compare_to old.json new.json` works on the rows that both files
have. What could not take part is no row of pyperf's; it is a note in the metadata of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

UNITS: Final = {"memory": "byte", "rss": "byte", "each": "byte", "copied": "byte"}  # others: seconds, but for COUNTS
COUNTS: Final = frozenset({"frames", "wakeups", "functions", "system", "items"})
NOISY: Final = 0.15  # interquartile range of the rounds, as a part of their median, from which a row is noisy
LEAST: Final = 1e-12  # pyperf takes no zero


def unit(metric: str) -> str:
    """pyperf's unit of a metric."""
    return "integer" if metric in COUNTS else UNITS.get(metric, "second")


@dataclass(slots=True)
class Case:
    """Contestants that did the same work, and what it cost them: values by contestant, metric and round."""

    bench: str
    name: str
    title: str
    ours: str = ""  # the contestant that the others are compared with; "": the first
    note: str = ""
    growth: str = ""  # what grows, where contestants are the points of one line; their names are numbers
    values: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)  # contestants that could not take part, or not to the end
    order: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def add(self, contestant: str, metric: str, turn: int, value: float) -> None:
        self.values.setdefault((contestant, metric), {})[turn] = max(value, LEAST)
        if contestant not in self.order:
            self.order.append(contestant)

    def subject(self) -> str:
        """The contestant that ratios are taken with."""
        return self.ours or (self.order[0] if self.order else "")

    def contestants(self) -> list[str]:
        """Those that have figures, in order."""
        there = {contestant for contestant, _ in self.values}
        return [one for one in self.order if one in there]

    def metrics(self) -> list[str]:
        return list(dict.fromkeys(metric for _, metric in self.values))

    def median(self, contestant: str, metric: str) -> float | None:
        found = self.values.get((contestant, metric))
        return median(found.values()) if found else None

    def spread(self, contestant: str, metric: str) -> float:
        """The interquartile range of the rounds over their median; of fewer than four, the whole range."""
        return spread(list(self.values.get((contestant, metric), {}).values()))

    def ratios(self, contestant: str, metric: str = "time", ours: str | None = None) -> list[float]:
        """How many times as much it cost `contestant` as us, in each round that both have; sorted."""
        theirs = self.values.get((contestant, metric), {})
        mine = self.values.get((ours or self.subject(), metric), {})
        return sorted(theirs[turn] / mine[turn] for turn in theirs if turn in mine)

    def slope(self, metric: str) -> tuple[float, float] | None:
        """Of a line of growth: the cost of nothing and of one more, by least squares over the medians."""
        points = [(float(one), value) for one in self.contestants() if (value := self.median(one, metric)) is not None]
        if len(points) < 2:
            return None
        xs, ys = zip(*points, strict=True)
        mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
        over = sum((x - mean_x) ** 2 for x in xs)
        each = sum((x - mean_x) * (y - mean_y) for x, y in points) / over
        return mean_y - each * mean_x, each


def spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    if len(values) < 4:
        return (max(values) - min(values)) / median(values)
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / median(values)


# pyperf


def store(path: Path, cases: Iterable[Case], common: dict[str, Any]) -> bool:
    """Write a file of pyperf's. `common` are metadata of all rows. False if there was no figure to write."""
    import pyperf

    cases = list(cases)
    notes = [{"bench": case.bench, "case": case.name, **fields(case), "left": case.left} for case in cases]
    suite: list[Any] = []
    for case in cases:
        for (contestant, metric), values in case.values.items():
            about = {
                **common,
                "name": f"{case.bench}/{case.name}/{contestant}/{metric}",
                "unit": unit(metric),
                "perf_bench": case.bench,
                "perf_case": case.name,
                "perf_contestant": contestant,
                "perf_metric": metric,
                "perf_notes": json.dumps(notes),
            }
            runs = [
                pyperf.Run([value], metadata={**about, "perf_round": turn}, collect_metadata=False)
                for turn, value in values.items()
            ]
            suite.append(pyperf.Benchmark(runs))
    if not suite:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    pyperf.BenchmarkSuite(suite).dump(str(path), replace=True)
    return True


def fields(case: Case) -> dict[str, Any]:
    return {"title": case.title, "ours": case.subject(), "note": case.note, "growth": case.growth, "order": case.order}


def load(path: Path) -> list[Case]:
    """The cases of a file that `store` has written. `ValueError` for a file of pyperf's that is not ours."""
    import pyperf

    cases: dict[tuple[str, str], Case] = {}
    for row in pyperf.BenchmarkSuite.load(str(path)):
        for run in row.get_runs():
            about = run.get_metadata()
            if "perf_notes" not in about:
                raise ValueError(f"{path}: {row.get_name()!r} was not measured by python -m perf")
            if not cases:
                for note in json.loads(about["perf_notes"]):
                    left, bench, name = note.pop("left"), note.pop("bench"), note.pop("case")
                    cases[bench, name] = Case(bench, name, **note, left=left)
            case = cases[about["perf_bench"], about["perf_case"]]
            case.machine = about
            case.add(about["perf_contestant"], about["perf_metric"], int(about["perf_round"]), run.values[0])
    return list(cases.values())
