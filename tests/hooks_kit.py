"""Hooks that do what a request's own headers say, and keep what they did: for tests of every protocol.

`x-do` is for `on_request`, `x-then` for `on_response`, `x-else` for `on_error`: steps with a blank between them, as
`set:x-user=me wait:gate answer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

from conftest import DEADLINE

from subpool import Hooks, Request, Response, ResponseHead

OWN = Response(418, [(b"x-by", b"hook"), (b"content-length", b"999"), (b"connection", b"upgrade")], b"by a hook")


class Gate:
    """What hooks wait for, on whichever loop, and a test on its own thread."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiters.append((loop, future))
        self.waiting.release()
        try:
            await future
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def reached(self) -> None:
        """Wait until a hook waits here."""
        assert self.waiting.acquire(timeout=DEADLINE), "no hook came to the gate"

    def open(self) -> None:
        """Let all go on that wait."""
        waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            loop.call_soon_threadsafe(lambda future=future: None if future.done() else future.set_result(None))


class Doing:
    """`hooks` for a server, with some at `prefixes`; `told` is what they saw, in order."""

    def __init__(self, *prefixes: str) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.gates: dict[str, Gate] = {}
        self.hooks = Hooks()
        self._fill(self.hooks, "")
        for prefix in prefixes:
            self._fill(self.hooks.at(prefix), prefix)

    def _fill(self, hooks: Hooks, where: str) -> None:
        """Of a mount: the same from headers that end with its name, as `x-do-api`."""
        mark = where.replace("/", "-")

        @hooks.on_request
        def ask(request: Request) -> Any:
            self.told.append(("request", where, request.method, request.path))
            return self._do(request.get("x-do" + mark), request, request)

        @hooks.on_response
        def respond(request: Request, response: ResponseHead) -> Any:
            self.told.append(("response", where, request.path, response.status))
            return self._do(request.get("x-then" + mark), request, response)

        @hooks.on_error
        def fail(request: Request, error: Exception) -> Any:
            self.told.append(("error", where, request.path, type(error).__name__))
            return self._do(request.get("x-else" + mark), request, error)

    @contextlib.contextmanager
    def gate(self, name: str) -> Iterator[Gate]:
        gate = self.gates[name] = Gate()
        try:
            yield gate
        finally:
            gate.open()

    def _do(self, steps: str | None, request: Request, subject: Any) -> Any:
        """At once, or as a coroutine if there is a step that waits."""
        left = steps.split() if steps else []
        if any(one.startswith("wait") for one in left):
            return self._later(left, request, subject)
        for one in left:
            found = self._step(one, request, subject)
            if found is not None:
                return found
        return None

    async def _later(self, steps: list[str], request: Request, subject: Any) -> Any:
        for one in steps:
            found = self._step(one, request, subject)
            if isinstance(found, Awaitable):
                found = await found
            if found is not None:
                return found
        return None

    def _step(self, step: str, request: Request, subject: Any) -> Any:
        name, _, argument = step.partition(":")
        return STEPS[name](self, argument, subject)


def _hold(doing: Doing, argument: str, subject: Any) -> None:
    end = perf_counter() + 0.06
    while perf_counter() < end:
        pass


def _fail(doing: Doing, argument: str, subject: Any) -> None:
    raise LookupError("by a hook")


def _wait(doing: Doing, argument: str, subject: Any) -> Awaitable[None]:
    return doing.gates[argument].wait()


def _assign(name: str, value: Callable[[str], Any]) -> Callable[[Doing, str, Any], None]:
    def act(doing: Doing, argument: str, subject: Any) -> None:
        setattr(subject, name, value(argument))

    return act


def _edit(doing: Doing, argument: str, subject: Any) -> None:
    """Change the list itself."""
    subject.headers.append((b"X-Mixed", argument.encode()))


def _spoil(doing: Doing, argument: str, subject: Any) -> None:
    subject.headers.append((b"x-bad", b"a\r\nx-smuggled: 1"))


def _frame(doing: Doing, argument: str, subject: Any) -> None:
    """Say something else of the body."""
    for name, value in (("content-length", "1"), ("transfer-encoding", "chunked"), ("connection", "close")):
        subject.set(name, value)
    subject.remove("date")


STEPS: dict[str, Callable[[Doing, str, Any], Any]] = {
    "answer": lambda doing, argument, subject: OWN,
    "status": lambda doing, argument, subject: int(argument),
    "nonsense": lambda doing, argument, subject: "nonsense",
    "raise": _fail,
    "wait": _wait,
    "hold": _hold,
    "set": lambda doing, argument, subject: subject.set(*argument.split("=", 1)),
    "add": lambda doing, argument, subject: subject.add(*argument.split("=", 1)),
    "remove": lambda doing, argument, subject: subject.remove(argument),
    "edit": _edit,
    "spoil": _spoil,
    "frame": _frame,
    "path": _assign("path", str),
    "raw": _assign("raw_path", str.encode),
    "query": _assign("query_string", str.encode),
    "method": _assign("method", str),
    "scheme": _assign("scheme", str),
    "client": _assign("client", lambda text: (text, 7)),
    "code": _assign("status", int),
}
