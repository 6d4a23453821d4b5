"""HTTP/1.1 responses as bytes (RFC 9112): a worker writes them, the server's front passes them on.

`Wire` follows one response. It decides the framing: the length that the app declares, else that of a body which is
there whole, else chunks (HTTP/1.1), else the end of the connection (HTTP/1.0). `Connection`, `Keep-Alive` and
`Transfer-Encoding` of the app are not passed on: framing is the server's; `Connection: close` is honoured.

Blocks of headers that were serialised are remembered, since most answers of an app have the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final

from .channels.exchange import check_headers
from .types import Headers

KEEP_ALIVE, HTTP10, HTTP2 = 1, 2, 4  # flags of a request
FIRST, LAST, CLOSE, DONE = 1, 2, 4, 8  # flags of a WIRE frame, see `channels.frames`
WHOLE: Final = FIRST | LAST | DONE  # a response in one frame, with which the call ends and the connection does not

BLOCKS: Final = 256  # header lists that are remembered
_OURS: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"proxy-connection"})
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_reasons: dict[int, bytes] = {status: status.phrase.encode() for status in HTTPStatus}
_lines: dict[int, bytes] = {}
_blocks: dict[tuple[tuple[bytes, bytes], ...], Block] = {}
_date = (0, b"")


class Block:
    """Headers, checked, as bytes, and what the server must know of them. The last head made of them is kept."""

    __slots__ = ("close", "data", "date", "head", "length", "made_of", "server")

    def __init__(self, data: bytes, length: int, *, date: bool, server: bool, close: bool) -> None:
        self.data = data
        self.length = length  # as declared, or -1
        self.date = date
        self.server = server
        self.close = close
        self.made_of: tuple[Any, ...] | None = None
        self.head = b"", False

    def __repr__(self) -> str:
        return f"<Block {self.data!r:.80}>"


def status_line(status: int, reason: bytes | None = None) -> bytes:
    """`HTTP/1.1 200 OK` with its end. A reason of the app's own (WSGI) is kept."""
    if reason is not None and reason != _reasons.get(status):
        return b"HTTP/1.1 %d %s\r\n" % (status, reason)
    line = _lines.get(status)
    if line is None:
        line = _lines[status] = b"HTTP/1.1 %d %s\r\n" % (status, _reasons.get(status, b""))
    return line


def date_header() -> bytes:
    """`date: ...` with its end, made once a second (RFC 9110, section 5.6.7)."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        at = time.gmtime(now)
        _date = now, (
            f"date: {_DAYS[at.tm_wday]}, {at.tm_mday:02d} {_MONTHS[at.tm_mon - 1]} {at.tm_year} "
            f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT\r\n"
        ).encode()
    return _date[1]


def remembered[T](known: dict[Any, T], headers: Iterable[Any], make: Callable[[Headers, int], T]) -> T:
    """What `make` makes of `headers` once they are checked, and of the length that they declare: made once, and kept in
    `known`. Raises what `check_headers` raises."""
    try:
        key = tuple(headers)
        found = known.get(key)
        if found is not None:
            return found
    except TypeError:  # not hashable: lists or bytearrays inside
        key = ()
        headers = list(headers)
    checked, length = check_headers(key or headers)
    found = make(checked, length)
    if key == tuple(checked):
        if len(known) >= BLOCKS:
            known.clear()
        known[key] = found
    return found


def block(headers: Iterable[Any]) -> Block:
    """`headers` checked and as bytes. Raises what `check_headers` raises."""
    return remembered(_blocks, headers, _block)


def _block(headers: Headers, length: int) -> Block:
    parts: list[bytes] = []
    seen = set()
    close = False
    for name, value in headers:
        lower = name.lower()
        seen.add(lower)
        if lower in _OURS:
            close = close or (lower == b"connection" and b"close" in value.lower())
            continue
        parts += (name, b": ", value, b"\r\n")
    return Block(b"".join(parts), length, date=b"date" in seen, server=b"server" in seen, close=close)


def whole(flags: int, date: bool, extra: bytes, line: bytes, headers: Block, size: int) -> tuple[bytes, bool]:
    """A final response whose body of `size` bytes is there, and is to be sent: its head, and whether the connection
    closes. What `Wire.head` makes of the same, in one go."""
    length = headers.length
    now = date_header() if date and not headers.date else b""
    made_of = (now, line, flags, extra, -1 if length >= 0 else size)
    if headers.made_of == made_of:
        return headers.head
    close = headers.close or not flags & KEEP_ALIVE
    head = line + headers.data
    if length < 0:
        head += b"content-length: %d\r\n" % size
    head += now
    if extra and not headers.server:
        head += extra
    if close:
        head += b"connection: close\r\n"
    elif flags & HTTP10:
        head += b"connection: keep-alive\r\n"
    headers.made_of, headers.head = made_of, (head + b"\r\n", close)
    return headers.head


class Wire:
    """One response. `flags` are those of the request; `extra` is what the server adds to every head, with its ends."""

    __slots__ = ("_chunked", "_date", "_extra", "_flags", "bodiless", "close")

    def __init__(self, flags: int, date: bool, extra: bytes) -> None:
        self._flags = flags
        self._date = date
        self._extra = extra  # the `server` header, or nothing
        self._chunked = False
        self.close = not flags & KEEP_ALIVE
        self.bodiless = False

    def __repr__(self) -> str:
        return f"<Wire {'chunked' if self._chunked else 'plain'}{', close' if self.close else ''}>"

    def head(
        self, status: int, headers: Block, length: int, *, bodiless: bool, reason: bytes | None = None
    ) -> bytes:
        """The head of a final response. `length`: of a body that is there whole, else -1."""
        declared, close = headers.length, headers.close
        self.bodiless = bodiless
        parts = [status_line(status, reason), headers.data]
        if declared < 0:
            if length >= 0 and not (bodiless and not length) and status != 204:
                parts.append(b"content-length: %d\r\n" % length)
            elif length < 0 and not bodiless:
                if self._flags & HTTP10:
                    close = True
                else:
                    self._chunked = True
                    parts.append(b"transfer-encoding: chunked\r\n")
        if self._date and not headers.date:
            parts.append(date_header())
        if self._extra and not headers.server:
            parts.append(self._extra)
        if close or self.close:
            self.close = True
            parts.append(b"connection: close\r\n")
        elif self._flags & HTTP10:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def before(self, size: int) -> bytes:
        """What goes before a piece of `size` bytes."""
        return b"%x\r\n" % size if self._chunked else b""

    def after(self) -> bytes:
        """What goes behind a piece."""
        return b"\r\n" if self._chunked else b""

    def end(self, trailers: Headers = ()) -> bytes:  # type: ignore[assignment]
        """The end of the body."""
        if not self._chunked:
            return b""
        return b"0\r\n" + b"".join(b"%s: %s\r\n" % pair for pair in trailers) + b"\r\n"


def informational(status: int, headers: Iterable[Any]) -> bytes:
    """A 1xx response (RFC 9110, section 15.2)."""
    return status_line(status) + block(headers).data + b"\r\n"


def simple(status: int, text: str, *, close: bool = True, head: bool = False, more: Headers | None = None) -> bytes:
    """A whole answer of the server itself, in plain text."""
    body = text.encode() + b"\n" if text else b""
    headers: Headers = [(b"content-type", b"text/plain; charset=utf-8"), *(more or [])]
    wire = Wire(0 if close else KEEP_ALIVE, True, b"")
    return wire.head(status, block(headers), len(body), bodiless=False) + (b"" if head else body)
