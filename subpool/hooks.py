"""Hooks: functions on the host that see requests, responses, errors and workers. Their registry.

    hooks = Hooks()

    @hooks.on_request
    async def check(request: Request) -> Response | None:
        return None if request.get("authorization") else Response(401, [], b"who are you?")

- Hooks of a kind run in their order. The first `on_request` or `on_error` that answers something ends the row.
- Those of the whole server see a request before those of its mount, and a response or an error behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final, NamedTuple

from .channels.exchange import check_headers, check_status
from .request import FRAMING, PLAIN
from .types import Response
from .watch import LIMIT, Watch

NAMES: Final = (
    "on_request", "on_response", "on_error", "on_worker_start", "on_worker_ready", "on_worker_exit", "on_reload",
)  # fmt: skip
OF_REQUESTS: Final = NAMES[:3]


class Hook:
    """One function of one kind."""

    __slots__ = ("_function", "_watch", "kind", "name")

    def __init__(self, kind: str, name: str, function: Callable[..., Any]) -> None:
        self.kind = kind
        self.name = name
        self._function = function
        self._watch = Watch(f"the {kind} hook {name}")

    def __repr__(self) -> str:
        return f"<Hook {self.kind} {self.name}>"

    def __call__(self, *args: Any) -> Any:
        """What it answers, or a coroutine of that."""
        began = perf_counter()  # what `Watch.call` does, in one go
        try:
            result = self._function(*args)
        except Exception as error:
            self._blame(error)
            raise
        finally:
            if perf_counter() - began > LIMIT:
                self._watch.held(perf_counter() - began)
        return self._wait(result) if result is not None and hasattr(result, "__await__") else result

    async def _wait(self, awaitable: Any) -> Any:
        try:
            return await (self._watch.steps(awaitable) if hasattr(awaitable, "send") else awaitable)
        except Exception as error:
            self._blame(error)
            raise

    def _blame(self, error: Exception) -> None:
        note = f"raised by the {self.kind} hook {self.name}"
        if note not in getattr(error, "__notes__", ()):  # one error may be raised again and again
            error.add_note(note)

    def answer(self, result: Any) -> Response:
        """What it answered in the app's place, checked: a `Response`, a tuple like it, or a status."""
        if self.kind == "on_response":
            raise TypeError(f"the hook {self.name} returned {result!r:.60}; on_response changes what it is given")
        if isinstance(result, int):
            status = check_status(result)
            phrase = HTTPStatus(status).phrase if status in HTTPStatus else f"Status {status}"
            result = status, [PLAIN], f"{phrase}\n".encode()
        if not isinstance(result, tuple) or len(result) != 3:
            raise TypeError(
                f"the hook {self.name} answered {result!r:.60}; it must be None, Response(status, headers, body), "
                "or a status"
            )
        status, headers, body = check_status(result[0]), check_headers(result[1])[0], result[2]
        if status < 200:
            raise ValueError(f"the hook {self.name} answered status {status}, which is no final one")
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"the hook {self.name} answered a body that is {type(body).__name__}, not bytes")
        kept = [(name.lower(), value) for name, value in headers if name.lower() not in FRAMING]
        return Response(status, kept, bytes(body))


Row = tuple[Hook, ...]


def run(hooks: Row, *args: Any) -> Response | Coroutine[Any, Any, Response | None] | None:
    """Run hooks in their order until one answers: its answer, or None. A coroutine of that if one of them waits."""
    for at, hook in enumerate(hooks):
        result = hook(*args)
        if result is not None:
            if hasattr(result, "__await__"):
                return _run_on(hooks, at, result, args)
            return hook.answer(result)
    return None


async def _run_on(hooks: Row, at: int, waiting: Any, args: tuple[Any, ...]) -> Response | None:
    result = await waiting
    if result is not None:
        return hooks[at].answer(result)
    rest = run(hooks[at + 1 :], *args)
    return rest if rest is None or isinstance(rest, Response) else await rest


class Chain(NamedTuple):
    """The rows that a request goes through."""

    on_request: Row = ()
    on_response: Row = ()
    on_error: Row = ()

    def within(self, outer: Chain | None) -> Chain:
        """As the chain of a mount of a server: what goes out meets those of the server behind its own."""
        if outer is None:
            return self
        return Chain(self.on_request, self.on_response + outer.on_response, self.on_error + outer.on_error)


class Hooks:
    """What is to be called, and when. Each method is a decorator for a function, plain or `async`."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Hook]] = {}
        self.mounts: dict[str, Hooks] = {}

    def __repr__(self) -> str:
        return f"<Hooks: {', '.join(f'{len(row)} {kind}' for kind, row in self._rows.items()) or 'none'}>"

    def add(self, kind: str, function: Callable[..., Any], name: str | None = None) -> None:
        """`function` becomes a hook, behind those that there are. `name`: in messages; else its own.

        `ValueError` if there is no such kind, `TypeError` if it cannot be called.
        """
        if kind not in NAMES:
            raise ValueError(f"there is no hook {kind!r}; there are {', '.join(NAMES)}")
        if not callable(function):
            raise TypeError(f"{kind} is {function!r:.60}, which cannot be called")
        own = getattr(function, "__qualname__", None) or type(function).__qualname__
        name = name or f"{getattr(function, '__module__', None) or '?'}:{own}"
        self._rows.setdefault(kind, []).append(Hook(kind, name, function))

    def on_request[F: Callable[..., Any]](self, function: F) -> F:
        """`(request)`, before the app: may change it, or answer in the app's place. WebSockets' handshakes too."""
        self.add("on_request", function)
        return function

    def on_response[F: Callable[..., Any]](self, function: F) -> F:
        """`(request, response)`, before a response begins: may change its status and headers."""
        self.add("on_response", function)
        return function

    def on_error[F: Callable[..., Any]](self, function: F) -> F:
        """`(request, error)`, when the app or the pool failed before the response had begun: may answer."""
        self.add("on_error", function)
        return function

    def on_worker_start[F: Callable[..., Any]](self, function: F) -> F:
        """`(worker)`, when a worker has been told to start."""
        self.add("on_worker_start", function)
        return function

    def on_worker_ready[F: Callable[..., Any]](self, function: F) -> F:
        """`(worker)`, when it takes requests; again when it has imported the app anew (3.13)."""
        self.add("on_worker_ready", function)
        return function

    def on_worker_exit[F: Callable[..., Any]](self, function: F) -> F:
        """`(worker)`, when it has ended, by order or not, or was abandoned."""
        self.add("on_worker_exit", function)
        return function

    def on_reload[F: Callable[..., Any]](self, function: F) -> F:
        """`(reload)`, when a reload is over."""
        self.add("on_reload", function)
        return function

    def at(self, prefix: str) -> Hooks:
        """The hooks of the server's mount at `prefix`: on_request, on_response and on_error for its requests alone."""
        return self.mounts.setdefault("" if prefix == "/" else prefix, Hooks())

    def row(self, kind: str) -> Row:
        """The hooks of one kind."""
        return tuple(self._rows.get(kind, ()))

    def chain(self) -> Chain | None:
        """The rows of requests; None if there are none."""
        chain = Chain(*map(self.row, OF_REQUESTS))
        return chain if any(chain) else None

    def update(self, other: Hooks) -> None:
        """Take the other's hooks too, behind those that there are."""
        for kind, row in other._rows.items():
            self._rows.setdefault(kind, []).extend(row)
        for prefix, hooks in other.mounts.items():
            self.at(prefix).update(hooks)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What worker hooks are told. `app`: its pool's; `kind`: its isolation; `generation`: another after each restart;
    `served`: requests. On exit `cause` says why, where it was not by order; `unexpected`: it ended by itself."""

    id: int
    generation: int
    kind: str
    app: str | None
    served: int = 0
    cause: str | None = None
    unexpected: bool = False


@dataclass(frozen=True, slots=True)
class Reload:
    """A reload that is over. `error`: why the old workers stay, or None. `fresh_process`: another process takes over,
    since workers that are threads share this one's copy of the app."""

    error: str | None = None
    fresh_process: bool = False
