"""Streams on the host: one ASGI exchange with a worker, and what stands on it (`stream_asgi`, `websocket`)."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Self

import anyio

from . import hostcall as c
from .channels import frames as f
from .channels.exchange import weight
from .errors import ClientGone, PoolClosed, SubpoolError, WebSocketClosed, WebSocketDenied
from .hostcall import StreamCall
from .types import Headers, Message, Receive, Send

if TYPE_CHECKING:
    from .engine import Engine

MESSAGES_AHEAD = 16  # of a WebSocket session, before the app asks


class Exchange:
    """One exchange under way: `send` gives the app events, `receive` takes its answers, `close` ends it."""

    def __init__(self, engine: Engine, call: StreamCall) -> None:
        self._engine = engine
        self.call = call

    def __repr__(self) -> str:
        return f"<Exchange {self.call!r}>"

    async def asked(self) -> bool:
        """Wait until the app asks for an event (its `receive()`). False when it has ended."""
        return await self.call.asked()

    def send(self, message: Message) -> None:
        """Give the app an event. `TypeError` if its body is no bytes."""
        plain = dict(message)
        body = plain.pop("body", None) if plain["type"] == "http.request" else plain.pop("bytes", None)
        if body is not None and not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"the body of {plain['type']!r} is {type(body).__name__}, not bytes")
        if plain.get("text", "") is None:
            del plain["text"]
        self._engine.send_event(self.call, plain, bytes(body) if body is not None else None)

    async def receive(self) -> Message | None:
        """The app's next message, its body as bytes; None when it has returned. Raises the error that ended it."""
        event = await self.call.next_event()
        if event is None:
            return None
        message, data = event
        member = self.call.member
        size = 0
        if data is not None:
            size = len(data)
            if isinstance(data, memoryview):
                loan, data = data, bytes(data)
                if member is not None:
                    member.give_back(loan)
        kind = message["type"]
        if kind == "websocket.send":
            if data is not None:
                message["bytes"] = data
            else:
                size = len(message.get("text", ""))
        elif kind.endswith(".body"):
            message["body"] = data if data is not None else b""
        taken = weight(message, size)
        if taken and member is not None and not self.call.ended:
            member.link.flow((f.ACK, self.call.id, taken))
        return message

    def gone(self) -> None:
        """The client has left: the app's `receive()` answers a disconnect, its `send()` raises."""
        if self.call.member is not None and self.call.state == c.STARTED:
            self.call.member.link.flow((f.GONE, self.call.id))

    def close(self) -> None:
        """Nobody reads any more: the app is cancelled if it still runs."""
        call = self.call
        member = call.member
        self._engine.give_up(call)
        if member is not None:
            member.lenders.discard(call)
            member.link.credit(call.detach())
        call.fail(PoolClosed("the exchange was closed"))

    async def drive(self, receive: Receive, send: Send) -> None:
        """Join the app to the `receive` and `send` of an ASGI server, to its end."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._feed, receive)
                while (message := await self.receive()) is not None:
                    await send(message)
                group.cancel_scope.cancel()
        except BaseExceptionGroup as group_error:
            if len(group_error.exceptions) == 1:
                raise group_error.exceptions[0] from None
            raise
        finally:
            self.close()

    async def _feed(self, receive: Receive) -> None:
        while await self.asked():
            message = await receive()
            self.send(message)
            if message["type"].endswith(".disconnect"):
                self.gone()
                return


class Stream:
    """An answer as it comes: `status`, `headers`, and an async iterator of the body. From `Pool.stream_asgi`."""

    def __init__(self, exchange: Exchange, body: bytes | Iterable[bytes] | AsyncIterable[bytes]) -> None:
        self._exchange = exchange
        self._body = body
        self._group: Any = None
        self._over = False
        self.status = 0
        self.headers: Headers = []
        self.informational: list[tuple[int, Headers]] = []  # 1xx responses that came before

    def __repr__(self) -> str:
        return f"<Stream {self.status}{' over' if self._over else ''}>"

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        try:
            self._group.start_soon(self._feed)
            while True:
                message = await self._exchange.receive()
                if message is None:
                    raise ClientGone("the app ended without a response")
                if message["type"] == "http.response.start":
                    self.headers = message["headers"]
                    if 100 <= message["status"] < 200 and message["status"] != 101:
                        self.informational.append((message["status"], self.headers))
                        continue
                    self.status = message["status"]
                    return self
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._exchange.close()
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._over:
            message = await self._exchange.receive()
            if message is None:
                self._over = True
            elif message.get("body"):
                return message["body"]  # type: ignore[no-any-return]
        raise StopAsyncIteration

    async def read(self) -> bytes:
        """The rest of the body, whole."""
        return b"".join([chunk async for chunk in self])

    async def _feed(self) -> None:
        exchange = self._exchange
        try:
            async for chunk in _pieces(self._body):
                if not await exchange.asked():
                    return
                if not isinstance(chunk, (bytes, bytearray, memoryview)):
                    raise TypeError(f"body_iterable gave {type(chunk).__name__}, not bytes")
                exchange.send({"type": "http.request", "body": chunk, "more_body": True})
            if await exchange.asked():
                exchange.send({"type": "http.request", "body": b"", "more_body": False})
        except Exception as error:
            exchange.close()
            exchange.call.error = error
            exchange.call._wake()


async def _pieces(body: Any) -> AsyncIterator[Any]:
    if isinstance(body, (bytes, bytearray, memoryview)):
        if len(body):
            yield body
    elif hasattr(body, "__aiter__"):
        async for chunk in body:
            yield chunk
    else:
        for chunk in body:
            yield chunk


class WebSocketSession:
    """Drives a WebSocket app from Python. From `Pool.websocket`; entering waits until the app accepts.

    `subprotocol` and `headers` are what it accepted with. `WebSocketDenied` if it refuses.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._group: Any = None
        self._closed: WebSocketClosed | None = None
        self._waiting: deque[Message] = deque()  # what the app has not asked for yet
        self._changed = anyio.Event()
        self.subprotocol: str | None = None
        self.headers: Headers = []

    def __repr__(self) -> str:
        return f"<WebSocketSession {'open' if self._closed is None else self._closed}>"

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        try:
            self._group.start_soon(self._feed)
            await self._put({"type": "websocket.connect"})
            await self._accepted()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def _accepted(self) -> None:
        denial: tuple[int, Headers] | None = None
        body = b""
        while (message := await self._exchange.receive()) is not None:
            kind = message["type"]
            if kind == "websocket.accept":
                self.subprotocol, self.headers = message["subprotocol"], message["headers"]
                return
            if kind == "websocket.http.response.start":
                denial = message["status"], message["headers"]
            elif kind == "websocket.http.response.body":
                body += message["body"]
            elif kind == "websocket.close":
                raise WebSocketDenied(403, [])
        if denial is not None:
            raise WebSocketDenied(*denial, body)
        raise WebSocketDenied(403, [])

    async def __aexit__(self, *exc: object) -> None:
        try:
            if self._closed is None and exc[0] is None:
                await self.close()
        finally:
            self._exchange.close()
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)

    async def send(self, data: str | bytes) -> None:
        """Send a message. Waits while the app does not read. `WebSocketClosed` after the end."""
        if self._closed is not None:
            raise self._closed
        if isinstance(data, str):
            await self._put({"type": "websocket.receive", "text": data})
        elif isinstance(data, (bytes, bytearray, memoryview)):
            await self._put({"type": "websocket.receive", "bytes": bytes(data)})
        else:
            raise TypeError(f"a WebSocket message is str or bytes, not {type(data).__name__}")

    async def receive(self) -> str | bytes:
        """The app's next message. `WebSocketClosed` when it has closed."""
        if self._closed is not None:
            raise self._closed
        try:
            message = await self._exchange.receive()
        except SubpoolError:
            self._closed = WebSocketClosed(1011, "the app failed")
            raise
        if message is None or message["type"] == "websocket.close":
            code, reason = (1000, "") if message is None else (message["code"], message["reason"])
            self._closed = WebSocketClosed(code, reason)
            raise self._closed
        return message["bytes"] if "bytes" in message else message["text"]  # type: ignore[no-any-return]

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it from this side, and wait until the app has ended; how it ended is not asked."""
        if self._closed is not None:
            return
        self._closed = WebSocketClosed(code, reason)
        self._waiting.append({"type": "websocket.disconnect", "code": code, "reason": reason})
        while self._waiting:
            self._exchange.send(self._waiting.popleft())
        self._exchange.gone()
        try:
            while await self._exchange.receive() is not None:
                pass
        except SubpoolError:
            pass

    async def _put(self, message: Message) -> None:
        while len(self._waiting) >= MESSAGES_AHEAD:
            await self._change()
        self._waiting.append(message)
        self._changed.set()

    async def _change(self) -> None:
        self._changed = anyio.Event()
        await self._changed.wait()
        if self._exchange.call.ended:
            raise WebSocketClosed(1006, "the app has ended")

    async def _feed(self) -> None:
        while await self._exchange.asked():
            while not self._waiting:
                await self._change()
            self._exchange.send(self._waiting.popleft())
            self._changed.set()
        self._changed.set()
