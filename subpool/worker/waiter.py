"""What an app waits for in `receive()` and `send()`.

A future wakes its task in the next turn of the loop: a callback, a handle and another look at epoll for each message.
What comes for an app comes in a callback of the loop, where its task can as well go on at once. So a `Waiter` is as
much of a future as a task needs (asyncio's `_asyncio_future_blocking`), like `timed_loop.Sleeper`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Generator
from typing import Any


class Waiter:
    """One wait. Who ends it sets `over`, and then lets its task go on: `go` or `go_soon`."""

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_loop", "_wake", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = True
        self._loop = loop
        self._wake: Callable[[Waiter], object] | None = None
        self._context: contextvars.Context | None = None
        self._cancelled: tuple[Any, ...] | None = None  # what `CancelledError` gets
        self.over = False

    def __repr__(self) -> str:
        state = "pending" if not self.over else "done" if self._cancelled is None else "cancelled"
        return f"<Waiter {state}>"

    def __await__(self) -> Generator[Waiter]:
        yield self

    # what a task calls

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wake: Callable[[Waiter], object], *, context: contextvars.Context) -> None:
        """`wake` is the waiting task's; there is one."""
        self._wake, self._context = wake, context
        if self.over:  # whoever drives the task kept the waiter for long
            self.go_soon()

    def cancel(self, msg: Any = None) -> bool:
        """The task goes on with `CancelledError` in the next turn. False if the wait is over already."""
        if self.over:
            return False
        self.over = True
        self._cancelled = () if msg is None else (msg,)
        self.go_soon()
        return True

    def result(self) -> None:
        if self._cancelled is not None:
            raise asyncio.CancelledError(*self._cancelled)

    # who ends it

    def go(self) -> None:
        """The task goes on, here and now. In a callback of the loop alone: not while a task runs."""
        if self._wake is not None and self._context is not None:
            self._context.run(self._wake, self)

    def go_soon(self) -> None:
        """The task goes on in the next turn of the loop."""
        if self._wake is not None:
            self._loop.call_soon(self._wake, self, context=self._context)
