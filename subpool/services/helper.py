"""The helper: one process in which plain functions run, a pool of one worker. Its side is `worker.helping`.

It is started when it is first needed, or with the server when functions are configured. When it dies, who waits for it
gets `WorkerLost`, what it had not begun waits for the next one, and that is started as any worker is. If that happens
too often, calls are refused for `PAUSE` seconds, and then it is tried again.

On a free-threaded build it is threads of this process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .. import _interpreters
from ..channels import frames as f
from ..channels.frames import Frame
from ..errors import AppError, PoolClosed, PoolOverloaded, SubpoolError, WorkerLost
from ..hostcall import Call, numbers
from ..hostloop import HostLoop
from ..plain import pack, unpack
from ..stats import PoolStats
from ..worker.helping import HOST, PACKED
from .asked import Asked

if TYPE_CHECKING:
    from ..pool import Pool
    from .registry import Function
    from .services import Services

log = logging.getLogger("subpool")

PAUSE: Final = 5.0  # seconds
MOST: Final = 4096  # calls that wait for it to start
TAKES: Final = 2  # items of one stream that it is asked for ahead


Done = Callable[[Any], None]
Failed = Callable[[SubpoolError], None]


class Helper:
    """`options`: of its pool, from the pool that it helps."""

    def __init__(self, services: Services, loop: HostLoop, options: dict[str, Any]) -> None:
        self._services = services
        self._loop = loop
        self._options = options
        self._pool: Pool | None = None  # open
        self._waiting: dict[int, Call] = {}
        self._starting: Callable[[], object] | None = None
        self._error: SubpoolError = PoolClosed("the pool is closed")
        self._not_before = 0.0
        self._closed = False
        self._restarts = 0  # of the pools that there were

    def __repr__(self) -> str:
        return f"<Helper {self._pool!r}, {len(self._waiting)} wait>"

    # running

    def call(self, function: str, done: Done, failed: Failed, *args: Any) -> Call:
        """Call a function of `worker.helping` there."""
        number = next(numbers)
        frame = (f.CALL_FUNCTION, number, f"subpool.worker.helping:{function}", pack(function, (args, {})))
        return self.submit(HelperCall(number, frame, done, failed))

    def submit(self, call: Call) -> Call:
        """Have it run there, or fail."""
        number = call.id
        if self._pool is not None:
            self._submit(self._pool, call)
        elif self._closed or self._loop.time() < self._not_before:
            call.fail(self._error)
        elif len(self._waiting) >= MOST:
            call.fail(PoolOverloaded(f"{MOST} calls wait already for the helper to start"))
        else:
            self._waiting[number] = call
            self.start()
        return call

    def give_up(self, call: Call) -> None:
        """Nobody waits for it any more."""
        if self._waiting.pop(call.id, None) is None and self._pool is not None:
            self._pool.engine.give_up(call)

    def _submit(self, pool: Pool, call: Call) -> None:
        try:
            pool.engine.submit(call)
        except SubpoolError as error:
            call.fail(error)

    # life

    def start(self) -> None:
        """Start it, if that has not begun."""
        if self._starting is None:
            self._starting = lambda: None  # it may end at once
            self._starting = self._loop.run(self.open(), self._started)

    async def open(self) -> None:
        from ..pool import Pool

        free = _interpreters.free_threaded()
        pool = Pool(None, isolation="thread" if free else "process", workers=1, **self._options)
        pool.services_of = lambda: self._services
        pool.internal = True
        await pool.__aenter__()
        pool.engine.on_broken = self._on_broken
        if self._closed:
            await pool.close(0.0)
            return
        self._pool = pool

    def _started(self, _: Any, error: BaseException | None) -> None:
        self._starting = None
        waiting, self._waiting = self._waiting, {}
        if self._pool is not None:
            for call in waiting.values():
                self._submit(self._pool, call)
            return
        if error is not None:
            self._pause(error if isinstance(error, SubpoolError) else SubpoolError(f"the helper: {error}"))
        for call in waiting.values():
            call.fail(self._error)

    def _on_broken(self, error: SubpoolError) -> None:
        self._pause(error)
        pool, self._pool = self._pool, None
        if pool is not None:
            self._restarts += pool.stats().restarts
            self._loop.run(pool.close(0.0), lambda value, error: None)

    def _pause(self, error: SubpoolError) -> None:
        self._not_before = self._loop.time() + PAUSE
        self._error = SubpoolError(f"the helper does not stay alive, and rests for {PAUSE:g} s: {error}")
        log.error("%s", self._error)

    async def close(self) -> None:
        """End it. What runs there is cut."""
        self._closed = True
        self._error = PoolClosed("the pool is closed")
        waiting, self._waiting = self._waiting, {}
        for call in waiting.values():
            call.fail(self._error)
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close(0.0)

    def stats(self) -> PoolStats | None:
        """Its pool's, while there is one."""
        if self._pool is None:
            return None
        stats = self._pool.stats()
        return replace(stats, restarts=stats.restarts + self._restarts)


def options_of(options: Any) -> dict[str, Any]:
    """What the helper's pool has of the options of a pool, or a server's."""
    return {
        "pythonpath": list(options.pythonpath),
        "venv": options.venv,
        "threads": min(32, (os.process_cpu_count() or 1) + 4),
        "timeout": None,
        "window": MOST,
        "max_concurrency": 10_000,
        "max_pending": MOST,
        "start_timeout": options.start_timeout,
        "close_timeout": options.close_timeout,
        "heartbeat_timeout": options.heartbeat_timeout,
        "state": options.state,
        "state_namespace": options.state_namespace,
    }


class HelperCall(Call):
    """A call whose end is two callbacks."""

    at_once = True

    def __init__(self, number: int, frame: Frame, done: Done, failed: Failed) -> None:
        super().__init__(number, frame, None, None, None, None)  # type: ignore[arg-type]  # nobody awaits it
        self._done, self._failed = done, failed

    def finish(self, frame: Frame) -> None:
        self._done(frame[4] if frame[2] == PACKED else unpack(frame[4]))

    def fail(self, error: BaseException) -> None:
        if isinstance(error, WorkerLost):
            error = WorkerLost(f"the helper process ended: {error.message}", error.started)
        elif not isinstance(error, SubpoolError):
            error = AppError(type(error).__name__, str(error))
        self._failed(error)


class InHelper:
    """One call of a plain function."""

    def __init__(self, helper: Helper, asked: Asked, function: Function, method: str | None, arguments: bytes) -> None:
        self._helper = helper
        self._asked = asked
        asked.running = self

        def done(data: Any) -> None:
            if data is HOST:
                helper._services.at_home(asked, function, method, arguments)
            else:
                asked.answer(data)

        number = next(numbers)
        frame = (f.CALL_HELP, number, function.name, function.spec, method, arguments)
        self._call = helper.submit(HelperCall(number, frame, done, asked.refuse))

    def cancel(self) -> None:
        self._helper.give_up(self._call)

    def more(self) -> None:
        """It is no stream."""


class HelperStream:
    """One generator in the helper: it is asked for an item when the reader has room for it."""

    def __init__(self, helper: Helper, asked: Asked, function: Function, method: str | None, arguments: bytes) -> None:
        self._helper = helper
        self._asked = asked
        self._number = next(numbers)  # of the generator, there
        self._taking: dict[int, Call] = {}
        self._open = False
        asked.running = self

        def done(data: Any) -> None:
            if data is HOST:
                helper._services.at_home(asked, function, method, arguments)
            else:
                self._open = True
                self._take()

        target = function.name, function.spec, method, arguments
        self._opening = helper.call("open", done, asked.refuse, self._number, *target)

    def _take(self) -> None:
        asked = self._asked
        while not asked.over and asked.credit > 0 and len(self._taking) < TAKES:
            asked.credit -= 1
            number = next(numbers)
            done, failed = partial(self._taken, number), partial(self._lost, number)
            call = self._helper.call("take", done, failed, self._number)
            if not asked.over:
                self._taking[number] = call

    def _taken(self, number: int, data: Any) -> None:
        self._taking.pop(number, None)
        if self._asked.over:
            return
        if data is None:
            self._open = False
            self._asked.answer(None)
            return
        self._asked.item(data)
        self._take()

    def _lost(self, number: int, error: SubpoolError) -> None:
        self._taking.pop(number, None)
        self._open = False  # one that raised is over
        self._asked.refuse(error)

    def cancel(self) -> None:
        if not self._open:
            self._helper.give_up(self._opening)
        for call in self._taking.values():
            self._helper.give_up(call)
        self._taking.clear()
        self._helper.call("shut", lambda data: None, lambda error: None, self._number)

    def more(self) -> None:
        if self._open:
            self._take()
