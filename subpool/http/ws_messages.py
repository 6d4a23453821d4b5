"""Frames to messages and back (RFC 6455, section 5), with wsproto and a short way for plain ones; no I/O.

A message's size is that of its bytes after inflation. Frames are taken in one at a time, as far as the caller iterates:
what is behind stays as bytes. Plain frames between messages are read here (`ws_plain`), all others go to wsproto, each
to its end. A message in pieces is kept in one buffer, so that its pieces cost nothing beyond their
bytes, however small they are.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from . import ws_plain as plain
from .ws_deflate import Deflate

TEXT, BINARY, PIECE, PING, PONG, CLOSE, FAILED = "text", "binary", "piece", "ping", "pong", "close", "failed"

Incoming = tuple[str, str | bytes, int]  # kind; text, data or reason; size in bytes, or the code of CLOSE and FAILED

TOO_BIG: Final = int(CloseReason.MESSAGE_TOO_BIG)


class Messages:
    """One open connection, the server's side. `limit`: of a message, in bytes."""

    __slots__ = (
        "_at", "_connection", "_data", "_fed", "_inside", "_limit", "_over", "_owed", "_parts", "_plain", "_size",
    )  # fmt: skip

    def __init__(self, limit: int, deflate: Deflate | None = None) -> None:
        self._limit = limit
        self._data = b""  # what came, from `_at` on not looked at
        self._at = self._owed = 0  # so many bytes from there on are of a frame that wsproto has the beginning of
        self._fed = False  # wsproto has something that it was not asked for yet
        self._inside = False  # a message whose last frame has not begun
        self._over = False
        self._plain = deflate is None  # what is sent
        self._connection = Connection(ConnectionType.SERVER, [] if deflate is None else [deflate])
        self._parts: io.StringIO | io.BytesIO | None = None  # of a message that is not complete
        self._size = 0

    def __repr__(self) -> str:
        return f"<Messages {self._connection.state.name}>"

    # in

    def feed(self, data: bytes) -> None:
        """Bytes of the client. Nothing is made of them before `__iter__` comes to them."""
        if not self._over:
            self._data = self._data[self._at :] + data if self._data else data
            self._at = 0

    def __iter__(self) -> Iterator[Incoming]:
        """What the client sent. CLOSE or FAILED (close with that code) is the last; PIECE is a message's beginning."""
        most = min(plain.MOST, self._limit)
        while not self._over:
            if self._fed:
                yield from self._events()
                self._fed = False
            while not (self._owed or self._inside or self._over):
                data, at = self._data, self._at
                if len(data) - at < plain.FEWEST:
                    break
                kind, size = data[at], data[at + 1] - 0x80
                end = at + plain.FEWEST + size
                if not (kind == plain.TEXT or kind == plain.BINARY) or not 0 <= size <= most or end > len(data):
                    break
                content: str | bytes = plain.payload(data, at, size)
                if kind == plain.TEXT:
                    try:
                        content = content.decode()  # type: ignore[union-attr]
                    except UnicodeDecodeError:
                        break
                self._at = end
                yield TEXT if kind == plain.TEXT else BINARY, content, size
            if not self._pass_on():
                return

    def _pass_on(self) -> bool:
        """Give wsproto the frame that comes next, as far as it is here. False if nothing is."""
        data, at = self._data, self._at
        if self._over or at == len(data):
            self._data, self._at = b"", 0
            return False
        if not self._owed:
            self._owed = plain.size(data, at)
            if not self._owed:
                return False
            if not data[at] & 0x08:  # control frames may come between those of a message
                self._inside = not data[at] & 0x80
        end = min(len(data), at + self._owed)
        self._owed -= end - at
        self._at = end
        if self._connection.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
            self._connection.receive_data(data[at:end])
            self._fed = True
        return True

    def _events(self) -> Iterator[Incoming]:
        for event in self._connection.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                found = self._piece(event.data, event.message_finished)
                self._over = found[0] is FAILED
                yield found
                if self._over:
                    return
            elif isinstance(event, Ping):
                yield PING, bytes(event.payload), 0
            elif isinstance(event, Pong):
                yield PONG, bytes(event.payload), 0
            elif isinstance(event, CloseConnection):
                failed = self._connection.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING)
                code = int(event.code)
                reason = _too_big(self._limit) if failed and code == TOO_BIG else event.reason or ""
                self._over = True
                yield FAILED if failed else CLOSE, reason, code

    def _piece(self, data: str | bytes | bytearray, last: bool) -> Incoming:
        """A piece of a message; the message if it is complete."""
        self._size += len(data) if not isinstance(data, str) or data.isascii() else len(data.encode())
        if self._size > self._limit:
            return FAILED, _too_big(self._limit), TOO_BIG
        whole: str | bytes
        if isinstance(data, str):
            if self._parts is not None or not last:
                text = self._parts = self._parts or io.StringIO()
                assert isinstance(text, io.StringIO)
                text.write(data)
                data = text.getvalue() if last else ""
            whole = data
        else:
            if self._parts is not None or not last:
                parts = self._parts = self._parts or io.BytesIO()
                assert isinstance(parts, io.BytesIO)
                parts.write(data)
                data = parts.getvalue() if last else b""
            whole = bytes(data)
        if not last:
            return PIECE, "", 0
        size, self._size, self._parts = self._size, 0, None
        return TEXT if isinstance(whole, str) else BINARY, whole, size

    # out

    @property
    def open(self) -> bool:
        """Whether neither side has said that it closes."""
        return self._connection.state is ConnectionState.OPEN

    def text(self, text: str) -> bytes:
        """A text message. `UnicodeEncodeError` for one with lone surrogates."""
        if self._plain and len(text) <= plain.MOST and self.open:
            data = text.encode()
            if len(data) <= plain.MOST:
                return plain.framed(plain.TEXT, data)
        return self._connection.send(TextMessage(data=text))

    def binary(self, data: bytes) -> bytes:
        if self._plain and len(data) <= plain.MOST and self.open:
            return plain.framed(plain.BINARY, data)
        return self._connection.send(BytesMessage(data=data))

    def ping(self) -> bytes:
        return self._connection.send(Ping())

    def pong(self, payload: bytes) -> bytes:
        return self._connection.send(Pong(payload=payload))

    def close(self, code: int, reason: str) -> bytes:
        """Say that we close, or answer the client's close; b"" if that was done. A long reason is cut."""
        if self._connection.state not in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            return b""
        if code == CloseReason.NO_STATUS_RCVD:  # the client gave none
            return self._connection.send(CloseConnection(code=CloseReason.NO_STATUS_RCVD))
        reason = reason.encode("utf-8", "replace").decode()
        return self._connection.send(CloseConnection(code=code, reason=reason))


def _too_big(limit: int) -> str:
    return f"a message has at most {limit} bytes"
