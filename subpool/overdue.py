"""The calls of one worker that nobody waits for and that have not ended: when to interrupt them, when to give up.

A call that was cancelled has `grace` seconds to end. Then the steward interrupts it, every `grace` seconds, and says
whether the call was on its thread (a hit). The worker is stuck when a call has survived `HITS` hits, or when `SILENT`
interrupts found no answer at all: a handler inside a C call that keeps the GIL leaves the steward no turn either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

HITS: Final = 2
SILENT: Final = 4


class _Step:
    __slots__ = ("asked", "at", "hits")

    def __init__(self, at: float) -> None:
        self.at = at  # when to go on
        self.hits = 0
        self.asked = 0  # interrupts without an answer


class Overdue:
    """`grace` in seconds; times are those of the host's loop."""

    __slots__ = ("_grace", "_steps")

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._steps: dict[int, _Step] = {}

    def __repr__(self) -> str:
        return f"<Overdue {sorted(self._steps)}>"

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, call: int, now: float) -> None:
        """The call has been cancelled."""
        self._steps[call] = _Step(now + self._grace)

    def forget(self, call: int) -> None:
        """The call has ended, or will: its worker's loop is alive."""
        self._steps.pop(call, None)

    def clear(self) -> None:
        self._steps.clear()

    def answered(self, call: int, hit: bool) -> None:
        """The steward has tried to interrupt the call."""
        step = self._steps.get(call)
        if step is not None:
            step.asked = 0
            step.hits += hit

    def escalate(self, now: float, interrupt: Callable[[int], None]) -> bool:
        """Interrupt what is due. True if the worker is stuck."""
        for call, step in self._steps.items():
            if now >= step.at:
                if step.hits >= HITS or step.asked >= SILENT:
                    return True
                step.at = now + self._grace
                step.asked += 1
                interrupt(call)
        return False
