"""The port of HTTP/1.1 for WSGI apps (`runners.wsgi.Sink`), over the frames of `h1`.

Statuses and blocks of headers that were serialised are remembered, since most answers of an app have the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ..channels import frames as f
from ..channels.exchange import START, WEIGHT
from ..errors import ClientGone
from ..wire import CLOSE, DONE, FIRST, LAST, WHOLE, Block, Wire, block, informational, status_line, whole
from .answers import asgi_answer
from .h1 import give_file, wire_frame
from .streams import SyncPort

if TYPE_CHECKING:
    from .http import Request, Site
    from .worker import Worker

CACHED: Final = 256  # entries of each cache
NOTHING: Final = Block(b"", -1, date=False, server=False, close=False)
_status_lines: dict[str, tuple[bytes, int]] = {}
_wsgi_blocks: dict[tuple[tuple[str, str], ...], Block] = {}


class H1SyncPort(SyncPort):
    """One request."""

    _wire: Wire
    _status = 0
    _block = NOTHING
    _reason = b""

    def __init__(self, worker: Worker, call: int, threaded: bool, request: Request, site: Site) -> None:
        super().__init__(worker, call, threaded)
        self._flags = request[5]
        self._site = site
        self._head_only = request[1] == "HEAD"

    def hint(self, headers: list[tuple[str, str]]) -> None:
        if self.state is START and not self._inbox.gone:
            self._send(0, informational(103, asgi_answer("103", headers)[1]))

    def whole(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """An answer that is there whole."""
        found = _status_lines.get(status) or _status_line(status)
        site = self._site
        size = len(body)
        head, close = whole(self._flags, site.date, site.extra, found[0], _wsgi_block(headers), size)
        self.state = "over"
        flags = FIRST | LAST | DONE | CLOSE if close else WHOLE
        if size < f.LOAN_SIZE and not self._threaded:
            self._worker.post((f.WIRE, self._call, found[1], flags, head + body, None, b"", size))
        else:
            self._status = found[1]
            self._on_loop(self._post_wire, flags, head, body, b"")

    def file(self, status: str, headers: list[tuple[str, str]], fd: int, offset: int, count: int) -> bool:
        """A part of a file as the whole body. False if it has to be sent piece by piece."""
        if not count or self._head_only:
            return False
        self.start(status, headers)
        self._send(FIRST, self._begin(count))
        self.state = "given"
        owned = os.dup(fd)  # the app may close its own before anybody comes to it
        try:
            self._on_loop(give_file, self._worker, self._call, self._status, self._wire, owned, offset, count)
        except RuntimeError:  # the loop has ended under a thread
            os.close(owned)
            raise
        return True

    def start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self._status = int(status[:3])
        self._block = _wsgi_block(headers)
        self._wire = Wire(self._flags, self._site.date, self._site.extra)
        self._reason = status[4:].encode("latin-1")
        self.state = "body"

    def _begin(self, length: int) -> bytes:
        self.state = "begun"
        bodiless = self._head_only or self._status in (204, 304)
        return self._wire.head(self._status, self._block, length, bodiless=bodiless, reason=self._reason)

    def write(self, data: bytes) -> None:
        inbox = self._inbox
        if inbox.gone:
            raise ClientGone("the client has left")
        flags, head = (FIRST, self._begin(-1)) if self.state == "body" else (0, b"")
        self._send(flags, head + self._wire.before(len(data)), data, self._wire.after())

    def finish(self) -> None:
        """The app's answer is over, and with it the call."""
        if self.state == "begun":
            self._send(LAST | DONE, self._wire.end())
        elif self.state == "given":  # the response is the front's now, the call is not over yet
            (self._worker.post_threadsafe if self._threaded else self._worker.post)((f.END, self._call))
        elif self.state != "over":
            self._send(FIRST | LAST | DONE, self._begin(0))

    def _send(self, flags: int, head: bytes, body: bytes = b"", tail: bytes = b"") -> None:
        if flags & LAST and self._wire.close:
            flags |= CLOSE
        if not flags & LAST:
            self._inbox.sent += len(head) + len(body) + len(tail) + WEIGHT
        self._on_loop(self._post_wire, flags, head, body, tail)
        if not flags & LAST:
            if not self._threaded:
                self._flush()
            self._room()

    def _post_wire(self, flags: int, head: bytes, body: bytes, tail: bytes) -> None:
        self._worker.post(*wire_frame(self._worker, self._call, self._status, flags, head, body, tail))


def _status_line(status: str) -> tuple[bytes, int]:
    """A checked status as in "200 OK": its line, its code."""
    code = int(status[:3])
    found = status_line(code, status[4:].encode("latin-1")), code
    if len(_status_lines) < CACHED:
        _status_lines[status] = found
    return found


def _wsgi_block(headers: list[tuple[str, str]]) -> Block:
    """Checked headers of a WSGI app as bytes."""
    key = tuple(headers)
    found = _wsgi_blocks.get(key)
    if found is None:
        found = block([(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers])
        if len(_wsgi_blocks) >= CACHED:
            _wsgi_blocks.clear()
        _wsgi_blocks[key] = found
    return found
