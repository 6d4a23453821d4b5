"""WebSocket over HTTP/1.1 (RFC 6455): a connection that carries one session, from the upgrade request to its end.

`H1` hands it the transport of a request with `Upgrade: websocket`. Whatever comes of it, the connection is not used for
another request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ..types import Headers
from ..wire import Wire, block, date_header, simple
from .front import NEVER
from .h1_writer import take_nothing_ahead
from .ws_handshake import accept_of, key, open_session

if TYPE_CHECKING:
    from .call import HTTPCall
    from .front import Front, Listener
    from .ws_session import Session

LINGER: Final = 2.0  # seconds that a client has to read our last words
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: "
)


class WebSocket(asyncio.Protocol):
    """One connection. `call`: its upgrade request."""

    __slots__ = (
        "_call", "_denial", "_left", "_lingering", "_reading", "_session", "_transport", "_wire",
        "client", "deadline", "front", "listener",
    )  # fmt: skip

    def __init__(self, front: Front, listener: Listener, client: tuple[str, int] | None, call: HTTPCall) -> None:
        self.front = front
        self.listener = listener
        self.client = client
        self.deadline = NEVER
        self._call = call
        self._transport: Any = None
        self._session: Session | None = None
        self._reading = True
        self._lingering = False
        self._denial: tuple[int, Headers] | None = None  # its start, until the first of its body is here
        self._wire: Wire | None = None
        self._left = -1  # bytes that its declared length still allows; -1: no length

    def __repr__(self) -> str:
        return f"<WebSocket {self.client} {self._session!r}>"

    # asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        front, call = self.front, self._call
        call.connection = None
        call.started_at = front.loop.time() if front.access is not None else 0.0
        if not front.opened(self):
            transport.write(simple(503, "too many connections", more=[(b"retry-after", b"1")]))
            transport.close()
            return
        take_nothing_ahead(transport)
        self._session = session = open_session(front, self.listener, self.client, call, self)
        if session is not None:
            session.begin()
            if transport.get_write_buffer_size():  # of an answer before
                session.full()

    def data_received(self, data: bytes) -> None:
        if self._session is not None and not self._lingering:
            self._session.receive(data)

    def pause_writing(self) -> None:
        if self._session is not None:
            self._session.full()

    def resume_writing(self) -> None:
        if self._session is not None:
            self._session.room()

    def connection_lost(self, error: Exception | None) -> None:
        self.front.closed(self)
        self.deadline = NEVER
        if self._session is not None:
            self._session.left()

    # the session, see `Carrier`

    def accept(self, headers: Headers) -> None:
        call, given = self._call, block(headers)
        parts = [_SWITCHING, accept_of(key(call.headers)), b"\r\n", given.data]
        if self.front.config.date_header and not given.date:
            parts.append(date_header())
        if not given.server:
            parts.append(self._server_header())
        parts.append(b"\r\n")
        call.status = 101
        self._write(b"".join(parts))
        self._answered()

    def _server_header(self) -> bytes:
        value = self.front.config.server_header
        return b"server: %s\r\n" % value.encode() if value is not None else b""

    def refuse(self, status: int, text: str, headers: Headers) -> None:
        self._call.status = status
        self._write(simple(status, text, more=headers))
        self._answered()
        self.close(False)

    def deny(self, status: int, headers: Headers) -> None:
        self._denial = status, headers

    def deny_body(self, data: bytes, more: bool) -> None:
        if self._denial is not None:
            (status, headers), self._denial = self._denial, None
            given = block(headers)
            self._left = given.length
            self._wire = Wire(0, self.front.config.date_header, self._server_header())
            self._call.status = status
            bodiless = status in (204, 304)
            self._write(self._wire.head(status, given, -1 if more else len(data), bodiless=bodiless))
        wire = self._wire
        assert wire is not None
        if self._left >= 0:
            data = data[: self._left]  # what is more would be taken for something else
            self._left -= len(data)
        if data and not wire.bodiless:
            self._write(b"".join((wire.before(len(data)), data, wire.after())))
        if not more:
            self._write(wire.end())
            self._answered()
            self.close(False)

    def _answered(self) -> None:
        if self.front.access is not None:
            self.front.access.log(self, self._call)

    def _write(self, data: bytes) -> None:
        """Bytes of the response."""
        self._call.sent += len(data)
        self.write(data)

    def write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def unsent(self) -> int:
        return int(self._transport.get_write_buffer_size())

    def read_on(self, on: bool) -> None:
        if on is not self._reading and not self._transport.is_closing():
            self._reading = on
            self._transport.resume_reading() if on else self._transport.pause_reading()

    def close(self, clean: bool) -> None:
        """What still comes after an unclean end is read and dropped, lest our words be lost with a reset."""
        transport = self._transport
        self._lingering = True
        if clean or not transport.can_write_eof():
            transport.close()
            return
        self.deadline = self.front.now + LINGER
        self.read_on(True)
        transport.write_eof()

    def abort(self) -> None:
        self._transport.abort()

    # the front

    def idle(self) -> bool:
        return False

    def drain(self) -> None:
        if self._session is not None and not self._lingering:
            self._session.drain()

    def expired(self) -> None:
        if self._session is not None:
            self._session.expired()
        else:
            self.abort()
