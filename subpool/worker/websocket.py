"""The worker's side of a WebSocket: `receive` and `send` of its app (ASGI WebSocket spec 2.5).

Messages for the app come before it asks, as far as the host goes ahead; what the app took is told when it comes to a
quarter of that. With `ahead` None the app asks for each event (WANT). What the app sends is bounded as in `streams`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..channels.exchange import (
    CLOSED,
    CONNECTING,
    DENYING,
    OPEN,
    WEBSOCKET,
    WEIGHT,
    AppProtocolError,
    check_body,
    check_headers,
    check_status,
    next_state,
)  # fmt: skip
from ..errors import ClientGone
from ..types import Message
from .streams import HIGH_WATER, post_message
from .waiter import Waiter

if TYPE_CHECKING:
    from .worker import Worker

ABNORMAL: Final = 1006


class WebSocketPort:
    """One WebSocket."""

    __slots__ = ("_ahead", "_call", "_inbox", "_state", "_taken", "_weight", "_worker")

    def __init__(self, worker: Worker, call: int, ahead: int | None) -> None:
        self._worker = worker
        self._call = call
        self._ahead = ahead
        self._inbox = worker.calls.inbox(call)
        self._state = CONNECTING
        self._taken = self._weight = 0  # messages, and bytes of them, that the host does not know to be taken

    def __repr__(self) -> str:
        return f"<WebSocketPort {self._call} {self._state}, {self._inbox!r}>"

    async def receive(self) -> Message:
        inbox = self._inbox
        events = inbox.events
        if not events and not inbox.gone:
            if self._ahead is None:
                self._worker.post((f.WANT, self._call))
            while not events and not inbox.gone:
                inbox.waiter = Waiter(self._worker.loop)
                await inbox.waiter
        if not events:
            return {"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""}
        event: Any = events.popleft()
        if type(event) is dict:
            return event
        self._taken += 1
        self._weight += len(event) + f.OVERHEAD
        if self._weight * 4 >= self._ahead:  # type: ignore[operator]
            self._worker.post((f.TAKEN, self._call, self._taken))
            self._taken = self._weight = 0
        return {"type": "websocket.receive", "text" if type(event) is str else "bytes": event}

    async def send(self, message: Message) -> None:
        inbox = self._inbox
        if inbox.gone:
            raise ClientGone("the client has left")
        state = next_state(WEBSOCKET, self._state, message)
        kind = message["type"]
        if kind == "websocket.send":
            size = self._send(message.get("text"), message.get("bytes")) + WEIGHT
        else:
            size = self._answer(kind, message)
            if kind == "websocket.http.response.body":
                size += WEIGHT
        self._state = CLOSED if kind == "websocket.http.response.body" and not message.get("more_body") else state
        inbox.sent += size
        while inbox.sent - inbox.acked > HIGH_WATER:
            if inbox.gone:
                raise ClientGone("the client has left")
            inbox.room = Waiter(self._worker.loop)
            await inbox.room

    def _send(self, text: Any, data: Any) -> int:
        if (data is None) == (text is None):
            raise AppProtocolError("'websocket.send' takes either 'bytes' or 'text'")
        if text is None:
            text = data if type(data) is bytes else check_body({"type": "websocket.send", "body": data})
        elif type(text) is not str:
            if not isinstance(text, str):
                raise TypeError(f"the text of 'websocket.send' is {type(text).__name__}, not str")
            text = str(text)
        size = len(text)
        if self._ahead is None:
            kind: dict[str, Any] = {"type": "websocket.send"}
            if type(text) is bytes:
                post_message(self._worker, self._call, kind if text else {**kind, "bytes": b""}, text)
            else:
                post_message(self._worker, self._call, {**kind, "text": text}, b"")
        elif size < f.LOAN_SIZE or type(text) is str:
            self._worker.post((f.MESSAGE, self._call, None, text))
        else:
            loan = self._worker.lend(text)
            self._worker.post((f.MESSAGE, self._call, None, text if loan is None else f.LOAN), loan)
        return size

    def _answer(self, kind: str, message: Message) -> int:
        """What is no message: the size of its body."""
        out: dict[str, Any] = {"type": kind}
        body = b""
        if kind == "websocket.accept":
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
        post_message(self._worker, self._call, out, body)
        return len(body)

    def finish(self) -> None:
        """The app has returned. `AppProtocolError` if it has neither accepted nor closed."""
        if self._inbox.gone:
            return
        if self._state in (CONNECTING, DENYING):
            raise AppProtocolError("the app returned without accepting or closing the WebSocket")
        if self._state == OPEN:
            closed = {"type": "websocket.close", "code": 1000, "reason": ""}
            post_message(self._worker, self._call, closed, b"")
