"""The ASGI lifespan of one worker (Lifespan 2.0): start-up before its first request, shutdown after its last.

The application runs in one task of the worker's loop. What it may send is a table; anything else raises in
it.

    starting --startup.complete--> running --(shutdown sent)--> stopping --shutdown.complete / .failed--> over
    starting --startup.failed----> over

- `off`: the application is never called. `auto`: an application that raises, or returns, before
  `startup.complete` does not support the protocol; that is logged at debug. `on`: then the start fails.
- `startup.failed` fails the start in every mode, with the application's own message. So do SystemExit and
  what else is no Exception: they are no way to say "not supported".
- A task that does not end by itself is cancelled, and given up after that: nothing here waits for ever,
  except for the application's answer to startup and shutdown. Whoever awaits those sets the deadline:
  cancelling `startup()` or `shutdown()` cancels the application's task.
"""

from __future__ import annotations

import asyncio
import logging
import traceback

from subpool.errors import AppLoadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any

    type Message = MutableMapping[str, Any]
    type Application = Callable[
        [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
        Awaitable[object],
    ]

__all__ = ["MODES", "Lifespan"]

MODES = ("auto", "on", "off")

_log = logging.getLogger("subpool.lifespan")

_STEPS = {
    ("starting", "lifespan.startup.complete"): "running",
    ("starting", "lifespan.startup.failed"): "over",
    ("stopping", "lifespan.shutdown.complete"): "over",
    ("stopping", "lifespan.shutdown.failed"): "over",
}


class Lifespan:
    """Drives the lifespan of `app`; `mode` is "auto", "on" or "off".

    `grace` is the time in seconds that the application's task has to end after its last message, and once
    more after it is cancelled. Raises ValueError for another mode.
    """

    def __init__(self, app: Application, mode: str, *, grace: float = 1.0) -> None:
        if mode not in MODES:
            raise ValueError(f"lifespan must be one of {', '.join(MODES)}, not {mode!r}")
        self._app = app
        self._mode = mode
        self._grace = grace
        self._step = "new"
        self._state: dict[str, Any] = {}
        self._failure: str | None = None  # what startup.failed or shutdown.failed said
        self._error: BaseException | None = None  # what the application raised before startup.complete
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()  # shutdown may be received
        self._answer = asyncio.Event()  # the application answered what it was asked, or ended
        self._received = 0
        self._complete = False  # startup.complete was sent

    def __repr__(self) -> str:
        return f"<Lifespan {self._mode} {self._step}>"

    async def startup(self) -> dict[str, Any]:
        """Start the application; returns its state, which the worker copies into each request's scope.

        Returns {} with `off` and where the application does not support the protocol. Raises AppLoadError,
        with the application's own message, when its start failed. A second call raises RuntimeError.
        """
        if self._step != "new":
            raise RuntimeError(f"the lifespan was already started: {self!r}")
        if self._mode == "off":
            self._step = "over"
            return {}
        self._step = "starting"
        self._task = asyncio.create_task(self._run(), name="subpool-lifespan")
        await self._answered()
        if self._complete:
            return self._state
        await self._reap()
        error = self._error
        self._error = None
        if self._failure is not None:
            raise AppLoadError(self._failure or "the application's lifespan startup failed", _trace(error)) from error
        if error is not None and not isinstance(error, Exception | asyncio.CancelledError):
            raise AppLoadError(f"lifespan startup: {_describe(error)}", _trace(error)) from error
        why = "the application returned before startup.complete" if error is None else _describe(error)
        if self._mode == "on":
            raise AppLoadError(f"lifespan startup: {why}", _trace(error)) from error
        _log.debug("the application does not support lifespan: %s", why, exc_info=error)
        return {}

    async def shutdown(self) -> None:
        """Tell the application to shut down, wait for its answer, and let its task end.

        Does nothing where nothing was started. A failure of the application is logged at error, never raised.
        """
        if self._step == "running":
            self._step = "stopping"
            self._answer.clear()
            self._stop.set()
            await self._answered()
            if self._failure is not None:
                _log.error("lifespan shutdown failed: %s", self._failure or "the application gave no message")
        self._step = "over"
        await self._reap()
        self._error = None  # it holds frames of the application

    async def _answered(self) -> None:
        """Wait for the application's answer or its end; a cancelled wait cancels the application's task."""
        try:
            await self._answer.wait()
        except asyncio.CancelledError:
            self._step = "over"
            if self._task is not None:
                self._task.cancel()
            raise

    async def _reap(self) -> None:
        """Let the application's task end: by itself, else cancelled, else given up with a warning."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            await asyncio.wait((task,), timeout=self._grace)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=self._grace)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            _log.warning("the application's lifespan task does not end, even cancelled: given up")

    async def _run(self) -> None:
        """The application's task. Holds every exception: none is left for the loop to report."""
        scope: dict[str, Any] = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as error:  # noqa: BLE001  # startup() decides what it means
            if self._step == "starting" or self._failure is not None:
                self._error = error
            elif not isinstance(error, asyncio.CancelledError):
                _log.error("exception in the application's lifespan: %s", _describe(error), exc_info=error)
        finally:
            self._step = "over"
            self._answer.set()

    async def _receive(self) -> Message:
        """ASGI receive: startup, then shutdown when it comes, then nothing more."""
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        if self._received > 2:
            await asyncio.get_running_loop().create_future()  # waits until the task is cancelled
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        """ASGI send: one step of the table. Raises RuntimeError for a message that has no place now."""
        kind = message["type"]
        step = _STEPS.get((self._step, kind))
        if step is None:
            raise RuntimeError(f"unexpected ASGI message {kind!r} while the lifespan is {self._step}")
        if kind.endswith(".failed"):
            self._failure = str(message.get("message", ""))
        self._step = step
        self._complete = self._complete or step == "running"
        self._answer.set()


def _describe(error: BaseException) -> str:
    """The exception as one line: "ValueError: no database"."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _trace(error: BaseException | None) -> str:
    """The traceback as text, for an error that crosses to the host; "" without one."""
    return "".join(traceback.format_exception(error)) if error is not None else ""
