"""The worker's side of a streamed exchange: `receive` and `send` for an ASGI app, `pull` and `write` for a WSGI app.

Both directions are bounded. Into the app: nothing is sent before the app asks (WANT), and then one event. Out of it:
at most `HIGH_WATER` bytes that the reader on the host has not consumed (ACK), as `exchange.weight` counts; then `send`
waits. A WSGI app that holds
the worker's thread waits by reading the flow lane itself.
"""

from __future__ import annotations

import asyncio
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
    CLOSED,
    CONNECTING,
    DENYING,
    OPEN,
    START,
    WEBSOCKET,
    WEIGHT,
    AppProtocolError,
    HTTPExchange,
    check_body,
    check_headers,
    check_status,
    next_state,
    weight,
)  # fmt: skip
from ..errors import ClientGone
from ..types import Message
from .answers import asgi_answer

if TYPE_CHECKING:
    from .interrupt import Step
    from .worker import Worker

HIGH_WATER = 256 * 1024  # bytes on their way to a reader


@cache
def default_runner() -> Any:
    """The default runner for WSGI: like every runner it is imported when it is first needed."""
    return import_module("subpool.runners.wsgi")


class Inbox:
    """What came for one call."""

    __slots__ = ("acked", "changed", "events", "gone", "room", "sent", "waiter")

    def __init__(self) -> None:
        self.events: deque[dict[str, Any]] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.room: asyncio.Future[None] | None = None
        self.changed: threading.Event | None = None  # set for an app on another thread
        self.sent = 0  # bytes of the answer; counted by the app's thread
        self.acked = 0  # bytes that were consumed; counted by the loop's thread
        self.gone = False

    def __repr__(self) -> str:
        gone = ", gone" if self.gone else ""
        return f"<Inbox {len(self.events)} events, {self.sent - self.acked} bytes unacknowledged{gone}>"

    def put(self, message: dict[str, Any]) -> None:
        self.events.append(message)
        self._wake()

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
        self._wake()

    def _wake(self) -> None:
        for future in (self.waiter, self.room):
            if future is not None and not future.done():
                future.set_result(None)
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
    """`receive` and `send` of one exchange, HTTP or WebSocket (ASGI HTTP and WebSocket spec 2.5)."""

    def __init__(self, worker: Worker, call: int, scope: dict[str, Any]) -> None:
        super().__init__(worker, call)
        self._http = HTTPExchange(scope["method"]) if scope["type"] == "http" else None
        self._state = CONNECTING
        self._disconnect: Message = {"type": "http.disconnect"}
        if self._http is None:
            self._disconnect = {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    async def receive(self) -> Message:
        inbox = self._inbox
        if not inbox.events and not self._over():
            self._worker.post((f.WANT, self._call))
            while not inbox.events and not self._over():
                inbox.waiter = self._worker.loop.create_future()
                await inbox.waiter
        return inbox.events.popleft() if inbox.events else dict(self._disconnect)

    def _over(self) -> bool:
        return self._inbox.gone or (self._http is not None and self._http.done)

    async def send(self, message: Message) -> None:
        if self._inbox.gone:
            raise ClientGone("the client has left")
        size = self._send_http(message, self._http) if self._http is not None else self._send_websocket(message)
        inbox = self._inbox
        inbox.sent += size
        if self._http is not None and self._http.done and inbox.waiter is not None and not inbox.waiter.done():
            inbox.waiter.set_result(None)
        while inbox.full():
            if inbox.gone:
                raise ClientGone("the client has left")
            inbox.room = self._worker.loop.create_future()
            await inbox.room

    def _send_http(self, message: Message, exchange: HTTPExchange) -> int:
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
        _post(self._worker, self._call, out, body)
        return weight(out, len(body))

    def _send_websocket(self, message: Message) -> int:
        self._state = next_state(WEBSOCKET, self._state, message)
        kind = message["type"]
        out: dict[str, Any] = {"type": kind}
        body = b""
        if kind == "websocket.send":
            data, text = message.get("bytes"), message.get("text")
            if (data is None) == (text is None):
                raise AppProtocolError("'websocket.send' takes either 'bytes' or 'text'")
            if text is not None:
                if not isinstance(text, str):
                    raise TypeError(f"the text of 'websocket.send' is {type(text).__name__}, not str")
                out["text"] = str(text)
                _post(self._worker, self._call, out, b"")
                return weight(out, len(text))
            body = check_body({"type": kind, "body": data})
            if not body:
                out["bytes"] = b""
        elif kind == "websocket.accept":
            out["subprotocol"] = message.get("subprotocol")
            out["headers"] = check_headers(message.get("headers") or ())[0]
        elif kind == "websocket.close":
            out["code"] = int(message.get("code") or 1000)
            out["reason"] = str(message.get("reason") or "")
        elif kind == "websocket.http.response.start":
            out["status"] = check_status(message["status"])
            out["headers"] = check_headers(message.get("headers") or ())[0]
        else:
            body = check_body(message)
            out["more_body"] = bool(message.get("more_body", False))
            if not out["more_body"]:
                self._state = CLOSED
        _post(self._worker, self._call, out, body)
        return weight(out, len(body))

    def finish(self) -> None:
        """The app has returned. `AppProtocolError` if its response is not complete."""
        if self._http is not None:
            if not self._http.done and not self._inbox.gone:
                missing = "without a response" if self._http.state == START else "before its response was complete"
                raise AppProtocolError(f"the app returned {missing}")
        elif self._state in (CONNECTING, DENYING) and not self._inbox.gone:
            raise AppProtocolError("the app returned without accepting or closing the WebSocket")
        elif self._state == OPEN and not self._inbox.gone:
            _post(self._worker, self._call, {"type": "websocket.close", "code": 1000, "reason": ""}, b"")


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
        self._on_loop(_post, self._worker, self._call, message, body)
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
            self._worker.on_flow()

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
        """An answer that is there whole."""
        self.start(status, headers)
        if body:
            self.write(body)

    def write(self, data: bytes) -> None:
        inbox = self._inbox
        if inbox.gone:
            raise ClientGone("the client has left")
        inbox.sent += len(data) + WEIGHT
        self._post({"type": "http.response.body", "more_body": True}, data)
        self._room()

    def finish(self) -> None:
        self._post({"type": "http.response.body", "more_body": False})


def _post(worker: Worker, call: int, message: dict[str, Any], body: bytes) -> None:
    loan = worker.lend(body) if body else None
    data = f.LOAN if loan is not None else (body or None)
    worker.post((f.MESSAGE, call, message, data), loan)
