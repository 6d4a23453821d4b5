"""The time of a pool: limits of calls, and the two coarse ticks by which everything that is late is found.

Each tick runs only while it is needed: every millisecond while a worker holds work that it has not begun, every 20 ms
while any call but a WebSocket is under way. There is no timer object for a call: calls of one limit end in the order in
which they began, so a dictionary for each limit is enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from .hostcall import Call
from .hostloop import HostLoop

STALL_TICK: Final = 0.001  # seconds
CLOCK_TICK: Final = 0.02
LIMITS: Final = 8  # dictionaries that are kept though empty


class Clock:
    """`on_stall` and `on_clock` answer whether their tick is still needed; `on_late` gets a call whose time is up."""

    def __init__(
        self,
        loop: HostLoop,
        on_stall: Callable[[float], bool],
        on_clock: Callable[[float], bool],
        on_late: Callable[[Call], None],
    ) -> None:
        self._loop = loop
        self._on_stall, self._on_clock, self._on_late = on_stall, on_clock, on_late
        self._limits: dict[float, dict[int, Call]] = {}
        self._watching_stalls = self._ticking = False

    def __repr__(self) -> str:
        return f"<Clock: {len(self)} limits, {'ticking' if self._ticking else 'still'}>"

    def __len__(self) -> int:
        return sum(map(len, self._limits.values()))

    def begin(self, call: Call) -> None:
        """The call was accepted: its time runs."""
        call.accepted = now = self._loop.time()
        timeout = call.timeout
        if timeout is not None:
            call.deadline = now + timeout
            calls = self._limits.get(timeout)
            if calls is None:
                calls = self._limits[timeout] = {}
            calls[call.id] = call
        if not self._ticking:
            self.watch()

    def watch(self) -> None:
        """Look every 20 ms for what is late, as long as `on_clock` says."""
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(CLOCK_TICK, self._tick)

    def end(self, call: Call) -> None:
        """The call has ended, or nobody waits for it."""
        timeout = call.timeout
        if timeout is not None:
            calls = self._limits.get(timeout)
            if calls is not None:
                calls.pop(call.id, None)
                if not calls and len(self._limits) > LIMITS:
                    del self._limits[timeout]

    def watch_stalls(self) -> None:
        """Work was sent: look every millisecond whether it is being done."""
        if not self._watching_stalls:
            self._watching_stalls = True
            self._loop.call_later(STALL_TICK, self._stall_tick)

    def _stall_tick(self) -> None:
        self._watching_stalls = False
        if self._on_stall(self._loop.time()):
            self.watch_stalls()

    def _tick(self) -> None:
        now = self._loop.time()
        for calls in list(self._limits.values()):
            for call in list(itertools.takewhile(lambda call: call.deadline <= now, calls.values())):
                self._on_late(call)
        if self._on_clock(now) or len(self):
            self._loop.call_later(CLOCK_TICK, self._tick)
        else:
            self._ticking = False
