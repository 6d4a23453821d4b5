"""The error tree on one page.

Rules:

- Everything subpool raises of its own is a `SubpoolError`; bad arguments are plain `TypeError` and `ValueError`
  that name the field.
- The name says whose fault it was: `App...` the application's, `Runner...` the runner module's, `Worker...` the
  worker's, `Pool...` the pool's or its caller's.
- All are picklable, and rebuilt from plain data when they cross from a worker (`from_wire`).
- `started` says whether the app had begun to run: only a request that had not started may be sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SubpoolError(Exception):
    """Root of all errors that subpool raises."""


class AppError(SubpoolError):
    """The app raised, or broke its protocol.

    `type_name` is the qualified name of the exception in the worker, `message` its text, `remote_traceback` the
    formatted traceback as text ("" where there is none).
    """

    def __init__(self, type_name: str, message: str, remote_traceback: str = "") -> None:
        super().__init__(type_name, message, remote_traceback)
        self.type_name = type_name
        self.message = message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        text = f"{self.type_name}: {self.message}" if self.message else self.type_name
        if self.remote_traceback:
            return f"{text}\n\nIn the worker:\n{self.remote_traceback.rstrip()}"
        return text


class AppLoadError(SubpoolError):
    """The app could not be imported, made or started. The text names the module and the cause."""

    def __init__(self, message: str, remote_traceback: str = "") -> None:
        super().__init__(message, remote_traceback)
        self.message = message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        return self.message


class NotIsolatable(AppLoadError):
    """Something that the app needs refuses isolated interpreters (PEP 684).

    `module` is what refused ("" where it was not an import), `chain` the modules that led to it, outermost first.
    """

    def __init__(self, message: str, remote_traceback: str = "", module: str = "", chain: tuple[str, ...] = ()) -> None:
        super().__init__(message, remote_traceback)
        self.args = (message, remote_traceback, module, chain)
        self.module = module
        self.chain = tuple(chain)


class ConfigError(SubpoolError, ValueError):
    """The configuration is wrong, and nothing was started.

    `problems`: all that was found, a text each: which file and line, variable or option, and what is wrong with it.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class RunnerError(SubpoolError):
    """The runner module is missing, lacks its function, or answered with something that is no response."""


class WorkerLost(SubpoolError):
    """The worker ended while it held the request. `started`: whether the app had begun to run it."""

    def __init__(self, message: str, started: bool = True) -> None:
        super().__init__(message, started)
        self.message = message
        self.started = started

    def __str__(self) -> str:
        return self.message


class PoolTimeout(SubpoolError, TimeoutError):
    """No answer within the time limit (seconds). `started`: whether the app had begun to run the request."""

    def __init__(self, message: str, started: bool = True) -> None:
        super().__init__(message, started)
        self.message = message
        self.started = started

    def __str__(self) -> str:
        return self.message


class PoolOverloaded(SubpoolError):
    """`max_pending` requests wait, or there are `max_websockets`; nothing was accepted. Try again later."""


class PoolClosed(SubpoolError):
    """The pool is not open: not yet entered, closing, or closed."""


class PoolBroken(SubpoolError):
    """No worker could be started again; the text holds the last cause."""


class UnknownFunction(SubpoolError, LookupError):
    """No function of that name is registered on the host; the text names those that are."""


class UnknownNode(SubpoolError, LookupError):
    """No host of that name answers; the text names those that do. Nothing was sent."""


class NodeLost(SubpoolError):
    """The host of that name ended, or cannot be reached any more, while it had the call: whether it ran is unknown."""


class BusUnavailable(SubpoolError):
    """Other hosts cannot be reached: there is no `bus`, or its Redis is away. The text says whether a call was sent."""


class WebSocketDenied(SubpoolError):
    """The app refused the WebSocket. `status` int, `headers` pairs of bytes, `body` bytes."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
        super().__init__(status, headers, body)
        self.status = status
        self.headers = headers
        self.body = body

    def __str__(self) -> str:
        return f"the app refused the WebSocket with status {self.status}"


class WebSocketClosed(SubpoolError):
    """The WebSocket has ended. `code` and `reason` as in RFC 6455, section 7.4."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"WebSocket closed with code {self.code}" + (f": {self.reason}" if self.reason else "")


class WebSocketUnsupported(SubpoolError):
    """The app is one that has no WebSockets: a WSGI app."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StateError(SubpoolError):
    """The shared state cannot be used as asked: see `subpool.state`."""


class StateFull(StateError):
    """The store holds `max_entries` or `max_bytes`, or its disk is full. Nothing was changed."""


class StateUnavailable(StateError):
    """The store did not answer in time, or cannot be reached. The text says whether a change may have been made."""


class ClientGone(SubpoolError, OSError):
    """Raised by `send()` in the app after the client has left (ASGI HTTP spec 2.4, "Disconnected client")."""


_ON_THE_WIRE = {
    cls.__name__: cls
    for cls in (
        *(AppError, AppLoadError, NotIsolatable, RunnerError, WorkerLost, PoolTimeout, WebSocketUnsupported),
        *(UnknownFunction, PoolOverloaded, PoolClosed, PoolBroken, UnknownNode, NodeLost, BusUnavailable),
        *(StateError, StateFull, StateUnavailable),
    )
}


def to_wire(error: SubpoolError) -> tuple[Any, ...]:
    """`error` as plain data: its class name, then its arguments."""
    return (type(error).__name__, *error.args)


def from_wire(data: tuple[Any, ...]) -> SubpoolError:
    """The error that `to_wire` took apart."""
    return _ON_THE_WIRE.get(data[0], SubpoolError)(*data[1:])
