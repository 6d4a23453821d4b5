"""Who waits in a worker for something that the host sends, on a thread or in a task, and what has come for him."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..channels.wakeup import Wakeup

MOST_MS: Final = 2**31 - 1  # that poll() takes


class Bell(Protocol):
    """Wakes one waiter. A ring that comes before the wait ends it at once; a wait may end without a ring."""

    def ring(self) -> None:
        """From any thread."""


class ThreadBell:
    """For another thread than the worker's own. It is rung too when that is to be interrupted: who waits for a lock
    takes no note."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it was rung already

    def wait(self, deadline: float | None) -> bool:
        """False when `deadline`, a time of `time.monotonic`, has passed."""
        if deadline is None:
            return self._lock.acquire()
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        self._lock.acquire(timeout=min(left, threading.TIMEOUT_MAX))
        return True


class OwnBell:
    """For the worker's own thread, held by an app: it reads the flow lane itself meanwhile, and is rung by what comes.
    An interrupter on another thread uses `wakeup`."""

    __slots__ = ("_pump", "_rung")

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._rung = False

    def ring(self) -> None:
        self._rung = True

    def wait(self, deadline: float | None) -> bool:
        """False when `deadline`, a time of `time.monotonic`, has passed."""
        left = None
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
        if not self._rung:
            self._pump.wait(left)
        self._rung = False
        return True


class Pump:
    """Reads the flow lane for an app that holds the loop's thread. `wake` ends a wait, from any thread."""

    def __init__(self, fileno: int, on_readable: Callable[[], None]) -> None:
        self._on_readable = on_readable
        self._wakeup = Wakeup()
        self._poll = select.poll()
        self._fileno = fileno
        self._poll.register(fileno, select.POLLIN)
        self._poll.register(self._wakeup.fileno(), select.POLLIN)

    def wait(self, seconds: float | None) -> None:
        """Until something has come, or `wake` was called, or the seconds have passed."""
        ready = self._poll.poll(None if seconds is None else min(seconds * 1000 + 1, MOST_MS))
        for fd, _ in ready:
            if fd == self._fileno:
                self._on_readable()
            else:
                self._wakeup.take()

    def wake(self) -> None:
        self._wakeup.wake()

    def close(self) -> None:
        self._wakeup.close()


class LoopBell:
    """For a task. `own`: its loop is the worker's, which rings on its own thread."""

    __slots__ = ("_loop", "_waiter", "own")

    def __init__(self, loop: asyncio.AbstractEventLoop, own: bool) -> None:
        self._loop = loop
        self.own = own
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        if self.own:
            self._ring()
            return
        try:
            self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:
            pass  # the loop has ended, and with it who waited

    def _ring(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self, deadline: float | None) -> bool:
        """False when `deadline`, a time of the loop, has passed."""
        loop = self._loop
        if deadline is not None and loop.time() >= deadline:
            return False
        if self._waiter is not None:
            raise RuntimeError("another task waits for this already")
        waiter = self._waiter = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, self._ring)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        return True


class Inlet:
    """What comes for one call or one stream: items, then an end with a value or an error."""

    __slots__ = ("bell", "error", "items", "over", "value")

    def __init__(self, bell: Bell | None) -> None:
        self.bell = bell
        self.items: deque[bytes] = deque()
        self.over = False
        self.value: bytes | None = None
        self.error: Any = None

    def __repr__(self) -> str:
        return f"<Inlet {len(self.items)} items{', over' if self.over else ''}>"

    def in_task(self) -> bool:
        """Whether who waits leaves the worker's loop its turn."""
        return isinstance(self.bell, LoopBell) and self.bell.own

    def put(self, item: bytes) -> None:
        self.items.append(item)
        self._ring()

    def end(self, value: bytes | None, error: Any = None) -> None:
        self.value, self.error = value, error
        self.over = True
        self._ring()

    def _ring(self) -> None:
        if self.bell is not None:
            self.bell.ring()
