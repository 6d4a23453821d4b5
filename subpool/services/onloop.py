"""Functions that run on the host's loop: `async def` ones, and those registered `inline`.

One that holds the loop holds every connection of the server: who does so too long is named in the log (`watch`).
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from ..errors import SubpoolError
from ..hostloop import HostLoop, Waiter
from ..plain import pack, unpack
from ..watch import Watch
from ..worker.importer import as_app_error
from .asked import Asked


class OnLoop:
    """Begins functions; those that wait are tasks of the loop."""

    def __init__(self, loop: HostLoop) -> None:
        self._loop = loop
        self._tasks: set[Task] = set()
        self._watches: dict[str, Watch] = {}  # by names that there are

    def __repr__(self) -> str:
        return f"<OnLoop: {len(self._tasks)} tasks>"

    def __len__(self) -> int:
        return len(self._tasks)

    def run(self, asked: Asked, function: Callable[..., Any], arguments: bytes) -> None:
        """Call the function; `asked` hears how it went."""
        watch = self._watches.get(asked.name)
        if watch is None:
            watch = self._watches[asked.name] = Watch(f"function {asked.name!r}")
        work: Coroutine[Any, Any, Any]
        try:
            args, kwargs = unpack(arguments)
            value = watch.call(function, *args, **kwargs)
            if asked.stream:
                work = _items(asked, value, self._loop)
            elif inspect.isawaitable(value):
                work = _answer(asked.name, value)
            else:
                asked.answer(pack(f"the answer of {asked.name!r}", value))
                return
        except (Exception, SystemExit) as error:
            asked.refuse(as_app_error(error))
            return
        task = Task(asked, self._loop)
        self._tasks.add(task)
        task.begin(_watched(watch, work), self._tasks.discard)

    def cancel(self) -> None:
        """End what runs."""
        for task in list(self._tasks):
            task.asked.cancel()


class Task:
    """One function that waits."""

    def __init__(self, asked: Asked, loop: HostLoop) -> None:
        self.asked = asked
        self._loop = loop
        self._cancel: Callable[[], object] | None = None
        self.waiter: Waiter | None = None

    def __repr__(self) -> str:
        return f"<Task of {self.asked!r}>"

    def begin(self, work: Coroutine[Any, Any, Any], over: Callable[[Task], None]) -> None:
        asked = self.asked
        asked.running = self

        def done(value: Any, error: BaseException | None) -> None:
            over(self)
            if error is None:
                asked.answer(value)
            elif isinstance(error, (Exception, SystemExit)):
                asked.refuse(as_app_error(error))
            else:  # cancelled: by who asked, who hears nothing; or by the function itself
                asked.refuse(SubpoolError(f"function {asked.name!r} was cancelled"))

        self._cancel = self._loop.run(work, done)

    def cancel(self) -> None:
        if self._cancel is not None:
            self._cancel()

    def more(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


async def _watched(watch: Watch, work: Coroutine[Any, Any, Any]) -> Any:
    return await watch.steps(work)


async def _answer(name: str, value: Any) -> bytes:
    return pack(f"the answer of {name!r}", await value)


async def _items(asked: Asked, value: Any, loop: HostLoop) -> None:
    """Send what a generator yields, as the reader has room for it."""
    if inspect.iscoroutine(value):
        value = await value
    items = aiter(value) if hasattr(value, "__aiter__") else _walk(iter(value))
    try:
        while True:
            while asked.credit <= 0:
                task: Any = asked.running
                task.waiter = loop.waiter()
                await task.waiter
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
            asked.credit -= 1
            asked.item(pack(f"an item of {asked.name!r}", item))
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


async def _walk(items: Any) -> AsyncIterator[Any]:
    try:
        for item in items:
            yield item
    finally:
        if hasattr(items, "close"):
            items.close()
