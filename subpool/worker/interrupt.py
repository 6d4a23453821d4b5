"""Interrupting a request that holds its thread, and never the one after it.

`PyThreadState_SetAsyncExc` raises an exception in another thread of the same interpreter, at its next bytecode. Nothing
says which request that thread will be in by then, so the two sides shake hands, with plain attributes alone:

- the thread sets `current` to the request's id before it steps into the app, and in `leave` sets it to None and *then*
  looks at `order`;
- the interrupter sets `order` and *then* looks at `current`; only if that is the request it means does it fire.

One of the two always sees the other (Dekker). A thread that finds an order when it leaves waits until the interrupter
has made up its mind, and clears what may still be under way. An interrupt that strikes late is absorbed there.

A blocked C call is not interrupted: it raises when it returns. That is what abandoning is for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any


class Interrupted(BaseException):
    """Raised in a handler whose time is up. Not an `Exception`: `except Exception` does not swallow it."""


class _Order:
    __slots__ = ("call", "settled")

    def __init__(self, call: int) -> None:
        self.call = call
        self.settled = False


def _raise_in(thread: int, what: type[BaseException] | None) -> None:
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(what) if what else None)


class Step:
    """What one thread of a worker runs now. `current`: the id of the request whose app code is on it, or None."""

    __slots__ = ("current", "order", "thread")

    def __init__(self) -> None:
        self.current: int | None = None
        self.order: _Order | None = None
        self.thread = threading.get_ident()

    def __repr__(self) -> str:
        return f"<Step of thread {self.thread}, request {self.current}>"

    def leave(self) -> None:
        """The app's code has been left. Cheap: two attributes."""
        self.current = None
        if self.order is not None:
            self._absorb()

    def _absorb(self) -> None:
        while True:
            try:
                order = self.order
                if order is None:
                    return
                while not order.settled:
                    time.sleep(0)
                _raise_in(self.thread, None)
                self.order = None
                return
            except Interrupted:
                continue

    def interrupt(self, call: int) -> bool:
        """From another thread: raise `Interrupted` in the request `call`. False if it is not on the thread now."""
        order = _Order(call)
        self.order = order
        hit = self.current == call
        if hit:
            _raise_in(self.thread, Interrupted)
        order.settled = True
        if not hit and self.order is order:
            self.order = None
        return hit


@coroutine
def resume(coro: Coroutine[Any, Any, Any], yielded: Any, step: Step, call: int) -> Generator[Any, Any, Any]:
    """Drive `coro`, which has yielded once, to its end, each step of it marked as `call`'s."""
    while True:
        error = None
        value = None
        try:
            value = yield yielded
        except BaseException as caught:
            error = caught
        step.current = call
        try:
            yielded = coro.send(value) if error is None else coro.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            error = None
            step.leave()
