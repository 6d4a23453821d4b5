"""How many workers the pools of a server process should have: what an operator said last, by a signal or a command.

Pure. A pool that finds its number by itself (`workers: {min, max}`) has None: nothing is remembered of it. Server
processes are told whole numbers, never steps, so that those that heard different things come to be alike.
"""

from __future__ import annotations

from collections.abc import Sequence

Counts = Sequence[int | None]


class Size:
    """`before`: what `passed_on` gave to the guard before this one."""

    def __init__(self, before: Sequence[Counts] = ()) -> None:
        self.counts: Counts = ()
        self._configured: Counts = ()
        self._before = before
        self._step = 0  # asked for before it was known how many there are

    def __repr__(self) -> str:
        return f"<Size {list(self.counts)}>"

    def told(self, counts: Counts) -> bool:
        """A process that is ready has so many, as configured. Whether it should have others."""
        if not self._configured:
            self._configured = self.counts = list(counts)
            if len(self._before) == 2 and list(self._before[0]) == self._configured:
                self.counts = list(self._before[1])  # configured as then: the operator's word holds
            self.step(self._step)
        return list(counts) != list(self.counts)

    def step(self, delta: int) -> None:
        """So many more, or less, but one at least."""
        if not self._configured:
            self._step += delta
        self.counts = [None if count is None else max(1, count + delta) for count in self.counts]

    def set(self, count: int) -> None:
        """So many in each pool."""
        self.counts = [None if one is None else count for one in self.counts]

    def passed_on(self) -> list[Counts]:
        """For the guard of an upgrade: what was configured, and what there should be."""
        return [self._configured, self.counts]
