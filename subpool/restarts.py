"""How often something that ends is started again, and how soon: the restart intensity of OTP's supervisors.

Pure: the time is told, chance is injected. Rules:

- More than `most` ends within the last `window` seconds: no further start. What ends so often will end again.
- What had proved itself (it was ready and served) is started again at once: its end says nothing about the next.
- What had not is waited for, longer each time in a row, with jitter, so that many do not start in step.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Final

FRESH: Final = 75  # status of a process that has drained and wants another in its place (EX_TEMPFAIL)
SHORTEST: Final = 0.05  # seconds
LONGEST: Final = 5.0


class Restarts:
    """`ended` is told of each end that was not asked for."""

    def __init__(self, most: int, window: float, chance: Callable[[], float] = random.random) -> None:
        self.most = most
        self.window = window
        self._chance = chance  # from 0 to 1
        self._ends: deque[float] = deque(maxlen=most + 1)
        self._in_a_row = 0

    def __repr__(self) -> str:
        return f"<Restarts {len(self._ends)} of {self.most} in {self.window:g} s>"

    def ended(self, now: float, proved: bool) -> float | None:
        """Something ended at `now`: seconds until the next start, or None if there must be none."""
        ends = self._ends
        ends.append(now)
        while now - ends[0] > self.window:
            ends.popleft()
        if len(ends) > self.most:
            return None
        if proved:
            self._in_a_row = 0
            return 0.0
        low = min(LONGEST / 2, SHORTEST * float(2**self._in_a_row))
        self._in_a_row = min(self._in_a_row + 1, 32)
        return low + low * self._chance()
