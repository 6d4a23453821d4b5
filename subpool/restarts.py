"""How often, and how soon, something that ended is started again: the restart intensity of OTP's supervisors.

Pure: the clock and the random numbers are the caller's.

- More than `most` ends within `window` seconds are too many: then nothing is started any more.
- What had proved itself (it was ready, and served) is started again at once. What ended before that is given time:
  0.05 s, doubling up to 5 s, each between half and the whole of it, so that several do not start in step. Ends that are
  further apart than `window` are no series: the first delay again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Final

BROKEN: Final = 3  # status of a process in which things ended too often
FRESH: Final = 75  # status of a process that has drained and wants another in its place (EX_TEMPFAIL)
DELAY: Final = (0.05, 5.0)  # seconds: the first, the longest


def chance() -> float:
    """A number from 0 to 1."""
    return int.from_bytes(os.urandom(4)) / 2**32


class Restarts:
    """`most` ends in `window` seconds. `jitter` gives numbers from 0 to 1."""

    __slots__ = ("_ends", "_jitter", "_streak", "most", "total", "window")

    def __init__(self, most: int, window: float, jitter: Callable[[], float] | None = None) -> None:
        self.most = most
        self.window = window
        self.total = 0
        self._jitter = jitter or chance
        self._ends: deque[float] = deque()
        self._streak = 0  # ends one after another that had not proved themselves

    def __repr__(self) -> str:
        return f"<Restarts {len(self._ends)} of {self.most} in {self.window:g} s>"

    def ended(self, now: float, proved: bool) -> float | None:
        """Something ended at `now`, in seconds: how long to wait before it is started again; None: it happens too
        often."""
        ends = self._ends
        ends.append(now)
        while ends and ends[0] <= now - self.window:
            ends.popleft()
        if len(ends) > self.most:
            return None
        self.total += 1
        if proved or len(ends) == 1:
            self._streak = 0
        if proved:
            return 0.0
        first, longest = DELAY
        delay = min(longest, first * 2.0 ** min(self._streak, 16))
        self._streak += 1
        return delay * (0.5 + 0.5 * self._jitter())
