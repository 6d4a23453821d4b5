"""The worker's side of a streamed exchange: `receive` and `send` for an ASGI app, `pull` and `write` for a WSGI app.

Both directions are bounded. Into the app: nothing is sent before the app asks (WANT), and then one event. Out of it:
at most `HIGH_WATER` bytes that the reader on the host has not consumed (ACK), as `exchange.weight` counts; then `send`
waits. A WSGI app that holds the worker's thread waits by reading the flow lane itself.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Callable
from functools import cache, cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..channels import frames as f
from ..channels.exchange import (
    BODY,
    DONE,
    START,
    WEIGHT,
    AppProtocolError,
    HTTPExchange,
    check_headers,
    check_status,
    weight,
)
from ..errors import ClientGone
from ..types import Message
from .answers import asgi_answer
from .waiter import Waiter

if TYPE_CHECKING:
    from .interrupt import Step
    from .worker import Worker

HIGH_WATER = 256 * 1024  # bytes on their way to a reader


@cache
def default_runner() -> Any:
    """The default runner for WSGI: like every runner it is imported when it is first needed."""
    return import_module("subpool.runners.wsgi")


class Inbox:
    """What came for one call. `woken`: where waits that are over are put, for who lets their tasks go on."""

    __slots__ = ("_woken", "acked", "changed", "events", "gone", "room", "sent", "waiter")

    def __init__(self, woken: deque[Waiter]) -> None:
        self._woken = woken
        self.events: deque[Any] = deque()  # ASGI messages; of a WebSocket that is sent ahead, str and bytes
        self.waiter: Waiter | None = None
        self.room: Waiter | None = None
        self.changed: threading.Event | None = None  # set for an app on another thread
        self.sent = 0  # bytes of the answer; counted by the app's thread
        self.acked = 0  # bytes that were consumed; counted by the loop's thread
        self.gone = False

    def __repr__(self) -> str:
        gone = ", gone" if self.gone else ""
        return f"<Inbox {len(self.events)} events, {self.sent - self.acked} bytes unacknowledged{gone}>"

    def put(self, event: Any) -> None:
        self.events.append(event)
        waiter = self.waiter
        if waiter is not None and not waiter.over:
            waiter.over = True
            self._woken.append(waiter)
        if self.changed is not None:
            self.changed.set()

    def ack(self, size: int) -> None:
        self.acked += size
        if not self.full():
            self._wake()

    def full(self) -> bool:
        """Whether the reader is so far behind that the app waits."""
        return self.sent - self.acked > HIGH_WATER

    def leave(self) -> None:
        """The client has gone."""
        self.gone = True
        self._wake()

    def end(self) -> None:
        """The app has returned: nobody reads any more."""
        self.gone = True
        for waiter in (self.waiter, self.room):
            if waiter is not None and not waiter.over:
                waiter.over = True
                waiter.go_soon()
        if self.changed is not None:
            self.changed.set()

    def answered(self) -> None:
        """The app's answer is complete: who still waits in `receive()` hears of it."""
        waiter = self.waiter
        if waiter is not None and not waiter.over:
            waiter.over = True
            waiter.go_soon()

    def _wake(self) -> None:
        for waiter in (self.waiter, self.room):
            if waiter is not None and not waiter.over:
                waiter.over = True
                self._woken.append(waiter)
        if self.changed is not None:
            self.changed.set()


class _Port:
    def __init__(self, worker: Worker, call: int) -> None:
        self._worker = worker
        self._call = call

    @cached_property
    def _inbox(self) -> Inbox:
        """What comes for the call; who never waits for anything needs none."""
        return self._worker.calls.inbox(self._call)


class ASGIPort(_Port):
    """`receive` and `send` of one exchange over HTTP (ASGI HTTP spec 2.5)."""

    def __init__(self, worker: Worker, call: int, method: str) -> None:
        super().__init__(worker, call)
        self._http = HTTPExchange(method)

    async def receive(self) -> Message:
        inbox = self._inbox
        if not inbox.events and not self._over():
            self._worker.post((f.WANT, self._call))
            while not inbox.events and not self._over():
                inbox.waiter = Waiter(self._worker.loop)
                await inbox.waiter
        return inbox.events.popleft() if inbox.events else {"type": "http.disconnect"}

    def _over(self) -> bool:
        return self._inbox.gone or self._http.done

    async def send(self, message: Message) -> None:
        inbox = self._inbox
        if inbox.gone:
            raise ClientGone("the client has left")
        inbox.sent += self._send(message)
        if self._http.done:
            inbox.answered()
        while inbox.full():
            if inbox.gone:
                raise ClientGone("the client has left")
            inbox.room = Waiter(self._worker.loop)
            await inbox.room

    def _send(self, message: Message) -> int:
        exchange = self._http
        body = exchange.step(message)
        kind = message["type"]
        out: dict[str, Any] = {"type": kind}
        if kind == "http.response.body":
            out["more_body"] = not exchange.done and bool(message.get("more_body", False))
        elif kind == "http.response.start":
            out["status"] = check_status(message["status"])
            out["headers"] = check_headers(message.get("headers") or ())[0]
            if message.get("trailers"):
                out["trailers"] = True
        elif kind == "http.response.trailers":
            out["headers"] = check_headers(message.get("headers") or ())[0]
            out["more_trailers"] = bool(message.get("more_trailers", False))
        elif kind == "http.response.early_hint":
            out["links"] = [bytes(link) for link in message.get("links", ())]
        elif kind == "http.response.pathsend":
            out["path"] = str(message["path"])
        else:
            return 0
        post_message(self._worker, self._call, out, body)
        return weight(out, len(body))

    def finish(self) -> None:
        """The app has returned. `AppProtocolError` if its response is not complete."""
        if not self._http.done and not self._inbox.gone:
            missing = "without a response" if self._http.state == START else "before its response was complete"
            raise AppProtocolError(f"the app returned {missing}")


class SyncPort(_Port):
    """The same for a WSGI app: `pull` gives its input, `start` and `write` take its answer (`runners.wsgi.Sink`)."""

    state = START
    step: Step | None = None  # whose thread the app is on
    _input_over = False

    def __init__(self, worker: Worker, call: int, threaded: bool) -> None:
        super().__init__(worker, call)
        self._threaded = threaded
        if threaded:
            self._inbox.changed = threading.Event()

    def _post(self, message: dict[str, Any], body: bytes = b"") -> None:
        self._on_loop(post_message, self._worker, self._call, message, body)
        if not self._threaded:
            self._flush()

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function` on the loop's thread: at once if this is it."""
        if self._threaded:
            self._worker.loop.call_soon_threadsafe(function, *args)
        else:
            function(*args)

    def _room(self) -> None:
        """Wait until the reader has caught up. `ClientGone` if it left."""
        inbox = self._inbox
        while inbox.full():
            if inbox.gone:
                raise ClientGone("the client has left")
            self._wait()

    def _flush(self) -> None:
        """Send what was posted; an interrupt must not tear an item apart, so it waits meanwhile."""
        step = self.step
        assert step is not None
        step.leave()
        self._worker.flush_ahead()
        step.current = self._call

    def _wait(self) -> None:
        """Until something has come for this call."""
        if self._threaded:
            changed = self._inbox.changed
            assert changed is not None
            changed.wait()
            changed.clear()
        else:
            self._flush()
            poll = select.poll()
            poll.register(self._worker.lanes.flow.fileno(), select.POLLIN)
            poll.poll()
            step = self.step
            assert step is not None
            step.leave()  # as in `_flush`
            self._worker.on_flow()
            step.current = self._call

    def pull(self) -> bytes:
        """The next piece of the request's body, b"" at its end. `ClientGone` if the client left before."""
        inbox = self._inbox
        if self._input_over:
            return b""
        while True:
            if not inbox.events:
                if self._threaded:
                    self._worker.post_threadsafe((f.WANT, self._call))
                else:
                    self._worker.post((f.WANT, self._call))
                while not inbox.events and not inbox.gone:
                    self._wait()
            if not inbox.events:
                raise ClientGone("the client left before its request was complete")
            message = inbox.events.popleft()
            if message["type"] != "http.request":
                inbox.gone = True
                raise ClientGone("the client left before its request was complete")
            if not message.get("more_body", False):
                self._input_over = True
                return bytes(message.get("body", b""))
            if message.get("body"):
                return bytes(message["body"])

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """`wsgi.early_hints`."""
        self.hint(default_runner().check_headers(headers)[0])

    def hint(self, headers: list[tuple[str, str]]) -> None:
        """103 with the links among `headers`, before the response (RFC 8297)."""
        if self.state is START and not self._inbox.gone:
            links = [value for name, value in asgi_answer("103", headers)[1] if name == b"link"]
            message = {"type": "http.response.early_hint", "links": links}
            self._inbox.sent += weight(message, 0)
            self._post(message)
            self._room()

    def start(self, status: str, headers: list[tuple[str, str]]) -> None:
        code, pairs = asgi_answer(status, headers)
        self.state = BODY
        self._post({"type": "http.response.start", "status": code, "headers": pairs, "reason": status[4:]})

    def file(self, status: str, headers: list[tuple[str, str]], fd: int, offset: int, count: int) -> bool:
        """Only HTTP/1.1 can have a file sent by the kernel."""
        return False

    def whole(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """An answer that is there whole: it goes out with the end of the call."""
        code, pairs = asgi_answer(status, headers)
        if not any(name == b"content-length" for name, _ in pairs):
            pairs.append((b"content-length", b"%d" % len(body)))
        start = {"type": "http.response.start", "status": code, "headers": pairs, "reason": status[4:]}
        self._on_loop(post_message, self._worker, self._call, start, b"")
        self._on_loop(post_message, self._worker, self._call, {"type": "http.response.body", "more_body": False}, body)
        self.state = DONE

    def write(self, data: bytes) -> None:
        inbox = self._inbox
        if inbox.gone:
            raise ClientGone("the client has left")
        inbox.sent += len(data) + WEIGHT
        self._post({"type": "http.response.body", "more_body": True}, data)
        self._room()

    def finish(self) -> None:
        if self.state is not DONE:
            self._post({"type": "http.response.body", "more_body": False})


def post_message(worker: Worker, call: int, message: dict[str, Any], body: bytes) -> None:
    """A MESSAGE frame, its body lent if it is large."""
    loan = worker.lend(body) if body else None
    data = f.LOAN if loan is not None else (body or None)
    worker.post((f.MESSAGE, call, message, data), loan)
