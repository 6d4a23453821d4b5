"""The frame of every measurement: contestants take turns, round by round, and what they cost is written down.

A *benchmark* is a module of this package with a docstring and `async def run(session)`. It compares *contestants* in
*cases*. A contestant is a `Turn`: given the seconds that it may take, it works that long and answers what one
operation cost, by metric. Every figure is a cost, less is better: seconds, bytes or a count, never "a second", so
that all ratios read alike and `pyperf compare_to` says "faster" where it means it.

In each round every contestant has one turn, in an order that changes; before its turn it has a quarter of one that is
not counted, since what ran before has warmed or cooled the machine. What slows the machine for a while slows a whole
round: the ratio of two contestants is the median of the ratios of the rounds.

One that raises is out of its case, with a reason, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from perf.results import Case

BENCHMARKS: Final = (
    *("codec", "channels", "calls", "switches", "fairness", "servers", "starts", "growth", "counts", "loans"),
    *("state", "services", "sleeps"),
)
SOAK: Final = frozenset({"loans"})  # run when named, not by `all`

Turn = Callable[[float], Awaitable[dict[str, float]]]


class Left(Exception):
    """A contestant cannot take part; the text says why. It becomes a row of the report."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of the time it takes to be believed is spent."""

    name: str
    rounds: int
    share: float  # of the seconds that a benchmark asks for its turns

    def of(self, rounds: int) -> int:
        """Rounds of a case that would normally have that many."""
        return max(2, round(rounds * self.rounds / NORMAL.rounds))


FAST: Final = Effort("fast", 2, 0.25)
NORMAL: Final = Effort("normal", 5, 1.0)
RIGOROUS: Final = Effort("rigorous", 15, 2.0)


@dataclass(slots=True)
class Session:
    """What a benchmark is given, and where its figures go."""

    effort: Effort = NORMAL
    isolation: str = "subinterpreter"
    workers: int = 2
    pythons: tuple[str, ...] = ()  # further interpreters that servers are run with
    only: str = ""  # part of the names of the cases that are wanted
    bench: str = ""
    cases: list[Case] = field(default_factory=list)

    def wanted(self, case: str) -> bool:
        return self.only in f"{self.bench}/{case}"

    def case(self, name: str, title: str, **fields: Any) -> Case:
        """The case of that name, made when it is first asked for."""
        for case in self.cases:
            if (case.bench, case.name) == (self.bench, name):
                return case
        case = Case(self.bench, name, title, **fields)
        self.cases.append(case)
        return case

    async def compare(
        self,
        name: str,
        title: str,
        contestants: Mapping[str, Turn],
        *,
        seconds: float = 0.2,
        rounds: int = NORMAL.rounds,
        left: Mapping[str, str] | None = None,
        warm: bool = True,
        **fields: Any,
    ) -> None:
        """Let `contestants` take turns. The first is the one that the others are compared with; `left` are those that
        cannot take part, and why; `fields` are of the `Case`. `warm`: whether a quarter of a turn goes before."""
        if not self.wanted(name):
            return
        case = self.case(name, title, **fields)
        case.left.update(left or {})
        case.order.extend(one for one in contestants if one not in case.order)
        playing = dict(contestants)
        chance = random.Random(name)
        seconds *= self.effort.share
        self.say(f"{self.bench}/{name}: {', '.join(playing)}")
        for turn in range(self.effort.of(rounds)):
            order = list(playing)
            chance.shuffle(order)
            for one in order:
                try:
                    async with asyncio.timeout(60 + 20 * seconds):
                        if warm:
                            await playing[one](seconds / 4)
                        for metric, value in (await playing[one](seconds)).items():
                            case.add(one, metric, turn, value)
                except Exception as error:
                    text = str(error) if isinstance(error, Left) else f"{type(error).__name__}: {error}"
                    self.leave(case, one, text)
                    del playing[one]

    def leave(self, case: Case, contestant: str, reason: str) -> None:
        case.left[contestant] = " ".join(reason.split())[:300]
        self.say(f"  {contestant}: {case.left[contestant]}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


# Turns


def loop(function: Callable[[], object]) -> Turn:
    """A turn of a function that is called again and again on this thread."""

    async def measure(number: int) -> float:
        repeat = range(number)
        start = time.perf_counter()
        for _ in repeat:
            function()
        return time.perf_counter() - start

    return counted(measure)


def counted(measure: Callable[[int], Awaitable[float]], least: int = 1) -> Turn:
    """A turn of what does a number of operations, `least` or more at a time, and says how many seconds they took."""
    rate = 0.0

    async def turn(seconds: float) -> dict[str, float]:
        nonlocal rate
        number = least
        while not rate:
            took = await measure(number)
            if took >= seconds / 20:
                rate = number / took
            number *= 4
        number = max(least, int(rate * seconds))
        took = await measure(number)
        rate = number / took
        return {"time": took / number}

    return turn


def awaited(call: Callable[[], Awaitable[object]], in_flight: int = 64) -> Turn:
    """A turn of `in_flight` tasks, each calling one time after another."""

    async def measure(number: int) -> float:
        async def caller(calls: int) -> None:
            for _ in range(calls):
                await call()

        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for i in range(in_flight):
                group.create_task(caller(number // in_flight + (i < number % in_flight)))
        return time.perf_counter() - start

    return counted(measure, in_flight)


def patched_turn(turn: Turn, *patches: tuple[object, str, object]) -> Turn:
    """`turn` with attributes replaced while it lasts: (owner, name, value)."""

    async def inside(seconds: float) -> dict[str, float]:
        with patched(patches):
            return await turn(seconds)

    return inside


@contextlib.contextmanager
def patched(patches: Iterable[tuple[object, str, object]]) -> Iterator[None]:
    """Attributes replaced inside the block. They must exist: a patch that misses would measure nothing."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def percentiles(latencies: list[float]) -> dict[str, float]:
    """p50, p90, p99 and p99.9 of latencies in seconds."""
    each = sorted(latencies)
    last = len(each) - 1
    return {name: each[round(last * part)] for name, part in PERCENTILES.items()}


PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
