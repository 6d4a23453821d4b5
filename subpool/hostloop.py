"""The host's event loop, asyncio or trio, as the pool needs it: callbacks, descriptors, one kind of waiter.

The pool's core is made of callbacks, so that the way of a request costs the same on both. Only leaves wait: a `Waiter`
is what a caller awaits and a callback resolves. All methods are for the loop's own thread but `call_threadsafe`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol


class Waiter(Protocol):
    """What one caller awaits and a callback settles, once; on asyncio a plain future. A cancelled wait settles it."""

    def done(self) -> bool: ...

    def set_result(self, value: Any, /) -> None: ...

    def set_exception(self, error: BaseException, /) -> None: ...

    def __await__(self) -> Generator[Any, None, Any]: ...


Done = Callable[[Any, BaseException | None], None]


class HostLoop(Protocol):
    """What the pool asks of the loop it runs on."""

    def time(self) -> float: ...

    def waiter(self) -> Waiter: ...

    def run(self, work: Coroutine[Any, Any, Any], done: Done) -> Callable[[], object]:
        """Run `work`, and call `done` with its value, or with what it raised. Answers what cancels it."""

    def call_soon(self, callback: Callable[[], None]) -> None: ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None: ...

    def call_threadsafe(self, callback: Callable[..., None], *args: Any) -> None: ...

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None: ...

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None: ...

    def remove_reader(self, fd: int) -> None: ...

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None: ...

    def remove_writer(self, fd: int) -> None: ...


def current() -> HostLoop:
    """The loop that runs now. `RuntimeError` if none does."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return TrioLoop()
    return AsyncioLoop()


class AsyncioLoop:
    """asyncio, and what stands in for it (uvloop)."""

    def __init__(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.waiter: Callable[[], Waiter] = loop.create_future
        self.time: Callable[[], float] = loop.time
        self.call_soon: Any = loop.call_soon
        self.call_later: Any = loop.call_later
        self.add_reader: Any = loop.add_reader
        self.add_writer: Any = loop.add_writer
        self.remove_reader: Any = loop.remove_reader
        self.remove_writer: Any = loop.remove_writer

    def run(self, work: Coroutine[Any, Any, Any], done: Done) -> Callable[[], object]:
        def ended(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                done(None, asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                done(None, error)
            else:
                done(task.result(), None)

        task = asyncio.Task(work, loop=self._loop, eager_start=True)
        if task.done():
            ended(task)
        else:
            self._tasks.add(task)
            task.add_done_callback(ended)
        return task.cancel

    def call_threadsafe(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(function())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_CANCELLED = object()


class TrioWaiter:
    __slots__ = ("_outcome", "_task")

    def __init__(self) -> None:
        self._outcome: Any = None
        self._task: Any = None

    def done(self) -> bool:
        return self._outcome is not None

    def set_result(self, value: Any, /) -> None:
        import outcome

        self._settle(outcome.Value(value))

    def set_exception(self, error: BaseException, /) -> None:
        import outcome

        self._settle(outcome.Error(error))

    def _settle(self, result: Any) -> None:
        self._outcome = result
        if self._task is not None:
            import trio

            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def __await__(self) -> Generator[Any, None, Any]:
        import trio

        if self._outcome is None:
            self._task = trio.lowlevel.current_task()

            def abort(_: Any) -> Any:
                self._task = None
                self._outcome = _CANCELLED
                return trio.lowlevel.Abort.SUCCEEDED

            yield from trio.lowlevel.wait_task_rescheduled(abort).__await__()  # noqa: ASYNC105
        return self._outcome.unwrap()


class TrioLoop:
    """trio: descriptors and timers are system tasks, which end with the run."""

    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._watching: dict[tuple[int, str], Any] = {}
        self.time = trio.current_time

    def waiter(self) -> Waiter:
        return TrioWaiter()

    def run(self, work: Coroutine[Any, Any, Any], done: Done) -> Callable[[], object]:
        scope = self._trio.CancelScope()

        async def watched() -> None:
            value, error = None, None
            with scope:
                try:
                    value = await work
                except self._trio.Cancelled as cancelled:
                    error = cancelled
                    raise
                except BaseException as raised:  # noqa: BLE001  it is told, to whom it belongs
                    error = raised
            done(value, error)

        self.spawn(watched)
        return scope.cancel

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._token.run_sync_soon(callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        async def later() -> None:
            await self._trio.sleep(seconds)
            callback()

        self.spawn(later)

    def call_threadsafe(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._token.run_sync_soon(callback, *args)
        except self._trio.RunFinishedError:
            pass

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        trio = self._trio

        async def quiet() -> None:
            try:
                await function()
            except trio.Cancelled:
                raise
            except Exception:
                import logging

                logging.getLogger("subpool").exception("a callback of the pool failed")

        trio.lowlevel.spawn_system_task(quiet)

    def _watch(self, fd: int, what: str, wait: Any, callback: Callable[[], object]) -> None:
        scope = self._watching[fd, what] = self._trio.CancelScope()

        async def watch() -> None:
            with scope:
                while True:
                    await wait(fd)
                    callback()

        self.spawn(watch)

    def _unwatch(self, fd: int, what: str) -> None:
        scope = self._watching.pop((fd, what), None)
        if scope is not None:
            scope.cancel()

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self._watch(fd, "r", self._trio.lowlevel.wait_readable, callback)

    def remove_reader(self, fd: int) -> None:
        self._unwatch(fd, "r")

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        self._unwatch(fd, "w")
        self._watch(fd, "w", self._trio.lowlevel.wait_writable, callback)

    def remove_writer(self, fd: int) -> None:
        self._unwatch(fd, "w")
