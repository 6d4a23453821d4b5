"""Frames to messages and back (RFC 6455, section 5), with wsproto; no I/O.

wsproto's `FrameProtocol` reads, checks and writes the frames. Its `Connection` is not used: all that it adds is whether
either side has closed, and an event for each frame, which cost as much again as the frame.

A message's size is that of its bytes after inflation. Frames are taken in one at a time, as far as the caller iterates:
what is behind stays as bytes. A message in pieces is kept in one buffer, so that its pieces cost nothing beyond their
bytes, however small they are.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed
from wsproto.utilities import LocalProtocolError

from .ws_deflate import Deflate

TEXT, BINARY, PIECE, PING, PONG, CLOSE, FAILED = "text", "binary", "piece", "ping", "pong", "close", "failed"

Incoming = tuple[str, str | bytes, int]  # kind; text, data or reason; size in bytes, or the code of CLOSE and FAILED

TOO_BIG: Final = int(CloseReason.MESSAGE_TOO_BIG)

_OPEN, _WE, _THEY, _BOTH = "open", "we have closed", "they have closed", "both have closed"


class Messages:
    """One open connection, the server's side. `limit`: of a message, in bytes."""

    __slots__ = ("_limit", "_parts", "_protocol", "_size", "_state")

    def __init__(self, limit: int, deflate: Deflate | None = None) -> None:
        self._limit = limit
        self._protocol = FrameProtocol(client=False, extensions=[] if deflate is None else [deflate])
        self._state = _OPEN
        self._parts: io.StringIO | io.BytesIO | None = None  # of a message that is not complete
        self._size = 0

    def __repr__(self) -> str:
        return f"<Messages {self._state}>"

    # in

    def feed(self, data: bytes) -> None:
        """Bytes of the client. Nothing is made of them before `__iter__` comes to them."""
        if self._state is _OPEN or self._state is _WE:
            self._protocol.receive_bytes(data)

    def __iter__(self) -> Iterator[Incoming]:
        """What the client sent. CLOSE or FAILED (close with that code) is the last; PIECE is a message's beginning."""
        try:
            for opcode, payload, _, last in self._protocol.received_frames():
                data: Any = payload
                if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                    found = self._piece(data, last)
                    yield found
                    if found[0] is FAILED:
                        return
                elif opcode is Opcode.PING:
                    yield PING, bytes(data), 0
                elif opcode is Opcode.PONG:
                    yield PONG, bytes(data), 0
                elif opcode is Opcode.CLOSE:
                    self._state = _BOTH if self._state is _WE else _THEY
                    code, reason = data
                    yield CLOSE, reason or "", int(code)
        except ParseFailed as error:
            yield FAILED, _too_big(self._limit) if error.code == TOO_BIG else str(error), int(error.code)

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
        return self._state is _OPEN

    def _check_open(self) -> None:
        if self._state is not _OPEN:
            raise LocalProtocolError(f"nothing can be sent: {self._state}")

    def text(self, text: str) -> bytes:
        """A text message. `UnicodeEncodeError` for one with lone surrogates."""
        self._check_open()
        return bytes(self._protocol.send_data(text))

    def binary(self, data: bytes) -> bytes:
        self._check_open()
        return bytes(self._protocol.send_data(data))

    def ping(self) -> bytes:
        self._check_open()
        return bytes(self._protocol.ping())

    def pong(self, payload: bytes) -> bytes:
        self._check_open()
        return bytes(self._protocol.pong(payload))

    def close(self, code: int, reason: str) -> bytes:
        """Say that we close, or answer the client's close; b"" if that was done. A long reason is cut."""
        if self._state is _OPEN:
            self._state = _WE
        elif self._state is _THEY:
            self._state = _BOTH
        else:
            return b""
        if code == CloseReason.NO_STATUS_RCVD:  # the client gave none
            return bytes(self._protocol.close(CloseReason.NO_STATUS_RCVD))
        return bytes(self._protocol.close(code, reason.encode("utf-8", "replace").decode()))


def _too_big(limit: int) -> str:
    return f"a message has at most {limit} bytes"
