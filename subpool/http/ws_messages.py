"""Frames to messages and back (RFC 6455, section 5), with wsproto; no I/O.

A message's size is that of its bytes after inflation. Frames are taken in one at a time, as far as the caller iterates:
what is behind stays as bytes. A message in pieces is kept in one buffer, so that its pieces cost nothing beyond their
bytes, however small they are.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from .ws_deflate import Deflate

TEXT, BINARY, PIECE, PING, PONG, CLOSE, FAILED = "text", "binary", "piece", "ping", "pong", "close", "failed"

Incoming = tuple[str, str | bytes, int]  # kind; text, data or reason; size in bytes, or the code of CLOSE and FAILED

TOO_BIG: Final = int(CloseReason.MESSAGE_TOO_BIG)


class Messages:
    """One open connection, the server's side. `limit`: of a message, in bytes."""

    __slots__ = ("_connection", "_limit", "_parts", "_size")

    def __init__(self, limit: int, deflate: Deflate | None = None) -> None:
        self._limit = limit
        self._connection = Connection(ConnectionType.SERVER, [] if deflate is None else [deflate])
        self._parts: io.StringIO | io.BytesIO | None = None  # of a message that is not complete
        self._size = 0

    def __repr__(self) -> str:
        return f"<Messages {self._connection.state.name}>"

    # in

    def feed(self, data: bytes) -> None:
        """Bytes of the client. Nothing is made of them before `__iter__` comes to them."""
        if self._connection.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
            self._connection.receive_data(data)

    def __iter__(self) -> Iterator[Incoming]:
        """What the client sent. CLOSE or FAILED (close with that code) is the last; PIECE is a message's beginning."""
        for event in self._connection.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                found = self._piece(event.data, event.message_finished)
                yield found
                if found[0] is FAILED:
                    return
            elif isinstance(event, Ping):
                yield PING, bytes(event.payload), 0
            elif isinstance(event, Pong):
                yield PONG, bytes(event.payload), 0
            elif isinstance(event, CloseConnection):
                failed = self._connection.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING)
                code = int(event.code)
                reason = _too_big(self._limit) if failed and code == TOO_BIG else event.reason or ""
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
        return self._connection.send(TextMessage(data=text))

    def binary(self, data: bytes) -> bytes:
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
