"""A worker's event loop, and how it keeps time. Linux; elsewhere asyncio's own loop waits precisely already.

`epoll_wait` counts in milliseconds, and asyncio rounds up: a sleep is up to 1 ms too long wherever anything else wakes
the loop meanwhile. So a short wait arms a timerfd, which ends the same `epoll_wait` when its time has come.

- A wait that is longer than `SHORT`, or has no end, costs two comparisons. A short one costs one system call, and none
  if the timer is armed for that moment already.
- The timer is edge-triggered, so it is never read; arming it anew forgets what it had to say (timerfd_create(2)). The
  timeout of epoll stays: without a timer a wait ends when it would have ended without this file. The kernel's timer
  slack (prctl(2)) does not apply to timerfds.
- A wake-up may find nothing due. What is due is always decided by the clock, so no timer fires too early.

`Sleeper` is what `aio.sleep` awaits. These sleeps stand in a heap of their own, as tuples, and when one is due its task
goes on in the same turn of the loop. For `asyncio.sleep` a timer sets a future, which wakes the task in the next turn,
behind another look at epoll; and its timers are compared by a method in Python.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import select
import selectors
import sys
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from time import CLOCK_MONOTONIC, monotonic_ns
from typing import Any, Final

assert sys.platform == "linux"

SHORT: Final = 0.1  # seconds; what epoll rounds up is at most a fiftieth of a longer wait
SAME: Final = 50_000  # nanoseconds; a timer that is armed for so much too early is left as it is


class Sleeper:
    """One sleep: as much of a future as a task needs to wait for it (asyncio's `_asyncio_future_blocking`)."""

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_loop", "_wake", "over")

    def __init__(self, loop: Loop) -> None:
        self._asyncio_future_blocking = True
        self._loop = loop
        self._wake: Callable[[Sleeper], object] | None = None
        self._context: contextvars.Context | None = None
        self._cancelled: tuple[Any, ...] | None = None  # what `CancelledError` gets
        self.over = False

    def __repr__(self) -> str:
        state = "pending" if not self.over else "done" if self._cancelled is None else "cancelled"
        return f"<Sleeper {state}>"

    def __await__(self) -> Generator[Sleeper]:
        yield self

    # what a task calls

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wake: Callable[[Sleeper], object], *, context: contextvars.Context) -> None:
        """`wake` is the waiting task's; there is one."""
        if self.over:  # whoever drives the task kept the sleeper for long
            self._loop.call_soon(wake, self, context=context)
        self._wake, self._context = wake, context

    def cancel(self, msg: Any = None) -> bool:
        """The task goes on with `CancelledError` in the next turn. False if it has gone on already."""
        if self.over:
            return False
        self.over = True
        self._cancelled = () if msg is None else (msg,)
        if self._wake is not None:
            self._loop.call_soon(self._wake, self, context=self._context)
        return True

    def result(self) -> None:
        if self._cancelled is not None:
            raise asyncio.CancelledError(*self._cancelled)

    # what the loop calls

    def wake(self) -> None:
        """It is over: its task goes on, here and now."""
        if not self.over:
            self.over = True
            if self._wake is not None and self._context is not None:
                self._context.run(self._wake, self)


class TimedSelector(selectors.EpollSelector):
    """An `EpollSelector` whose short waits end on time. `due` is called behind a wait that ends with a sleeper due."""

    def __init__(self) -> None:
        super().__init__()
        self.sleepers: list[tuple[int, int, Sleeper]] = []  # a heap: when (by `monotonic_ns`), which came first, who
        self.due: Callable[[], object] = int
        self._timer = -1
        self._armed = 0  # for when, by `monotonic_ns`

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.sleepers or (timeout is not None and 0 < timeout < SHORT):
            timeout = self._arm(timeout)
        ready = super().select(timeout)
        if self.sleepers and self.sleepers[0][0] <= monotonic_ns():
            self.due()
        return ready

    def _arm(self, timeout: float | None) -> float | None:
        """Have the timer end this wait on time. Returns the timeout for epoll, in seconds."""
        if timeout is not None and timeout <= 0:
            return 0
        sleepers = self.sleepers
        while sleepers and sleepers[0][2].over:  # cancelled
            heappop(sleepers)
        now = monotonic_ns()
        due = None if timeout is None or timeout >= SHORT else now + int(timeout * 1e9) + 1
        if sleepers and (due is None or sleepers[0][0] < due):
            due = sleepers[0][0]
        if due is None:
            return timeout
        if due <= now:
            return 0
        if not (now < self._armed and due - SAME <= self._armed <= due):
            try:
                if self._timer < 0:
                    self._timer = self._make_timer()
                os.timerfd_settime_ns(self._timer, flags=os.TFD_TIMER_ABSTIME, initial=due)
                self._armed = due
            except OSError:  # no descriptor is left, or the system has none of these: later by epoll's rounding
                pass
        return (due - now) * 1e-9

    def _make_timer(self) -> int:
        timer = os.timerfd_create(CLOCK_MONOTONIC, flags=os.TFD_CLOEXEC | os.TFD_NONBLOCK)
        try:  # with epoll alone: no key, so that `select` drops its events
            self._selector.register(timer, select.EPOLLIN | select.EPOLLET)  # type: ignore[attr-defined]
        except BaseException:
            os.close(timer)
            raise
        return timer

    def close(self) -> None:
        super().close()
        if self._timer >= 0:
            os.close(self._timer)
            self._timer = -1


class Loop(asyncio.SelectorEventLoop):
    """asyncio's loop on a `TimedSelector`, with the sleeps of `aio.sleep` that are shorter than `short` seconds."""

    short: float = SHORT

    def __init__(self) -> None:
        selector = TimedSelector()
        super().__init__(selector)
        self._sleepers = selector.sleepers
        self._slept = 0
        self._context = contextvars.Context()  # not that of whoever sleeps first
        selector.due = self._on_due

    def sleeper(self, seconds: float) -> Sleeper:
        """What is awaited for so long, above 0 and below `short`: one that is cancelled may stay until then."""
        sleeper = Sleeper(self)
        self._slept += 1
        heappush(self._sleepers, (monotonic_ns() + int(seconds * 1e9) + 1, self._slept, sleeper))
        return sleeper

    def _on_due(self) -> None:
        self.call_soon(self._wake, context=self._context)

    def _wake(self) -> None:
        sleepers, now = self._sleepers, monotonic_ns()
        while sleepers and sleepers[0][0] <= now:
            heappop(sleepers)[2].wake()


__all__ = ["SHORT", "Loop", "Sleeper", "TimedSelector"]
