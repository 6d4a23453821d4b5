"""HTTP/2 responses as header lists (RFC 9113, section 8): a worker makes them, the server's front encodes them.

A list is whole when it leaves: `:status` first, then what the app gave, then what the server adds (the length of a body
that is there whole, `date`, `server`). Headers of the connection are left out (section 8.2.2), names are in lower case,
values without white space around them.

Lists that were checked are remembered, since most answers of an app have the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .types import Headers
from .wire import date_header, remembered

UNKNOWN: Final = -1  # length of a body
_CONNECTION: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_statuses: dict[int, bytes] = {}
_known: dict[tuple[tuple[bytes, bytes], ...], Fields] = {}


class Fields:
    """Headers, checked, and what the server must know of them. The last list made of them is kept."""

    __slots__ = ("_list", "_made_of", "date", "length", "pairs", "server")

    def __init__(self, pairs: Headers, length: int) -> None:
        self.pairs = pairs
        self.length = length  # as declared, or `UNKNOWN`
        names = [name for name, _ in pairs]
        self.date = b"date" in names
        self.server = b"server" in names
        self._made_of: tuple[Any, ...] = ()
        self._list: Headers = []

    def __repr__(self) -> str:
        return f"<Fields {self.pairs!r:.80}>"

    def head(self, status: int, size: int, date: bool, server: bytes) -> Headers:
        """The header list of a final response; not to be changed. `size`: of a body that is there whole."""
        now = date_header()[6:-2] if date and not self.date else b""
        if self.length >= 0:
            size = UNKNOWN
        made_of = (status, size, now, server)
        if self._made_of != made_of:
            pairs = [(b":status", status_bytes(status)), *self.pairs]
            if size >= 0:
                pairs.append((b"content-length", b"%d" % size))
            if now:
                pairs.append((b"date", now))
            if server and not self.server:
                pairs.append((b"server", server))
            self._made_of, self._list = made_of, pairs
        return self._list


def fields(headers: Iterable[Any]) -> Fields:
    """`headers` checked, as HTTP/2 has them. Raises what `check_headers` raises."""
    return remembered(_known, headers, _fields)


def _fields(headers: Headers, length: int) -> Fields:
    lower = [(name.lower(), value.strip(b" \t")) for name, value in headers]
    return Fields([pair for pair in lower if pair[0] not in _CONNECTION], length)


def informational(status: int, headers: Iterable[Any]) -> Headers:
    """A 1xx response (RFC 9110, section 15.2)."""
    return [(b":status", status_bytes(status)), *fields(headers).pairs]


def weight(pairs: Headers) -> int:
    """The bytes of a header list, by the measure of HTTP/2 (RFC 9113, section 6.5.2)."""
    return sum(len(name) + len(value) + 32 for name, value in pairs)


def status_bytes(status: int) -> bytes:
    found = _statuses.get(status)
    if found is None:
        found = _statuses[status] = b"%d" % status
    return found
