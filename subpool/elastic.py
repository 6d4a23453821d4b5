"""How many workers there should be, between a least and a most number: by what waits. Pure; called at each tick.

- Work that waits at `PATIENCE` ticks in a row asks for one more worker; while one starts, no other is asked for.
- One goes when for `CALM` seconds hardly anything waited (in at most `RARELY` of the ticks).
"""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 3  # ticks
CALM: Final = 30.0  # seconds
RARELY: Final = 0.02


class Elastic:
    """`least` and `most` workers."""

    __slots__ = ("_begun", "_calm_ticks", "_since", "_waits", "_waits_now", "least", "most")

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self._waits_now = 0  # ticks in a row
        self._begun = False
        self._since = 0.0  # when the counts below began
        self._calm_ticks = self._waits = 0

    def __repr__(self) -> str:
        return f"<Elastic {self.least} to {self.most}>"

    def decide(self, now: float, workers: int, waiting: int, starting: bool) -> int:
        """+1, -1 or 0 workers. `waiting`: calls that no worker has begun; `workers`: those that are ready."""
        if not self._begun:
            self._begun = True
            self._begin(now)
        self._waits_now = self._waits_now + 1 if waiting else 0
        self._calm_ticks += 1
        self._waits += bool(waiting)
        if starting:
            return 0
        if workers < self.least:
            return 1
        if self._waits_now >= PATIENCE and workers < self.most:
            self._begin(now)
            return 1
        if now - self._since >= CALM:
            calm = self._waits <= RARELY * self._calm_ticks
            self._begin(now)
            if calm and workers > self.least:
                return -1
        return 0

    def _begin(self, now: float) -> None:
        self._since = now
        self._calm_ticks = self._waits = self._waits_now = 0
