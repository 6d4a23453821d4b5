"""The ports of HTTP/2: what an app sends is checked and posted as WIRE frames whose heads are header lists (`wire2`).

In such a frame `head` is the header list of a response, or of an informational one if the frame is not FIRST, or None;
`body` goes into DATA frames, `tail` is the list of trailers. What depends on the connection is the front's: framing and
compression.

As with HTTP/1.1 (`h1`) an app that answers at once costs one frame. An app that has started its response and then waits
has its head sent, before there is a body.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..channels.exchange import BODY, START, WEIGHT, AppProtocolError
from ..channels.frames import Frame
from ..errors import ClientGone
from ..types import Headers
from ..wire import DONE, FIRST, LAST, WHOLE
from ..wire2 import UNKNOWN, Fields, fields, informational, weight
from .answers import asgi_answer
from .h1 import H1Port
from .streams import SyncPort

if TYPE_CHECKING:
    from .http import Request, Site
    from .worker import Worker

PIECE: Final = 256 * 1024  # bytes of a file read at once


def wire_frame(
    worker: Worker, call: int, status: int, flags: int, head: Headers | None, body: bytes, tail: Headers | None = None
) -> tuple[Frame, Any]:
    """A WIRE frame and its loan."""
    size = len(body)
    if size < f.LOAN_SIZE:
        return (f.WIRE, call, status, flags, head, body or None, tail, size), None
    loan = worker.lend(body)
    return (f.WIRE, call, status, flags, head, body if loan is None else f.LOAN, tail, size), loan


class H2Port(H1Port):
    """`receive` and `send` of one request over HTTP/2."""

    _fields: Fields

    def release(self) -> None:
        if self._holding:
            super().release()
            self._send_head()

    # onto the wire

    def _keep(self, headers: Iterable[Any]) -> int:
        self._fields = fields(headers)
        return self._fields.length

    def _make_head(self, size: int) -> Headers:
        self._begun = True
        return self._fields.head(self.status, size, self._site.date, self._site.server)

    def _started(self) -> None:
        self._worker.loop.call_soon(self._send_head)  # what the app says in the same breath goes with it

    def _send_head(self) -> None:
        """The app waits: its client has the head by now."""
        if self.state is BODY and not (self._begun or self._bodiless) and self._answer is None:
            self._out(FIRST, self._make_head(UNKNOWN))

    def _interim(self, status: int, headers: Iterable[Any]) -> None:
        head = informational(status, headers)
        self._open().sent += weight(head) + WEIGHT
        self._worker.post((f.WIRE, self._call, status, 0, head, None, None, 0))

    def _post_answer(self, done: int) -> None:
        body, self._answer = self._answer, None
        assert body is not None
        self._out(FIRST | LAST | done, self._make_head(len(body)), body)

    def _piece(self, body: bytes) -> None:
        flags, head = 0, None
        if not self._begun:
            flags, head = FIRST, self._make_head(UNKNOWN)
        if self.done:
            self._finish(flags, head, body)
            return
        if body:
            inbox = self._open()
            inbox.sent += len(body)
            if self._joined(flags, head, body):
                return
            inbox.sent += WEIGHT
        elif head is None:
            return
        self._out(flags, head, body)

    def _end(self, trailers: Headers) -> None:
        self._finish(0, None, b"", fields(trailers).pairs)

    def _finish(self, flags: int, head: Headers | None, body: bytes, tail: Headers | None = None) -> None:
        """The last frame of the response; it may be that of the call too."""
        if self._holding:
            self._held = flags | LAST, head, body, tail
        elif not self._joined(flags | LAST, head, body, tail):
            self._out(flags | LAST, head, body, tail)

    def _joined(self, flags: int, head: Any, body: bytes, tail: Any = None) -> bool:
        frames = self._worker.frames
        if flags & FIRST or not frames:
            return False
        last = frames[-1]
        if last[0] != f.WIRE or last[1] != self._call or type(last[5]) is not bytes:
            return False
        size = len(body)
        if len(last[5]) + size >= f.LOAN_SIZE:
            return False
        frames[-1] = (f.WIRE, self._call, self.status, last[3] | flags, last[4], last[5] + body, tail, last[7] + size)
        return True

    def _out(self, flags: int, head: Any, body: bytes = b"", tail: Any = None) -> None:
        self._worker.post(*wire_frame(self._worker, self._call, self.status, flags, head, body, tail))

    async def _file(self, path: str) -> None:
        """`http.response.pathsend`: read and sent in pieces, as fast as the client takes them."""
        with open(path, "rb") as file:  # noqa: ASYNC230  the kernel has it, or reads ahead
            left = os.fstat(file.fileno()).st_size
            if self._left >= 0 and self._left != left and not self._bodiless:
                raise AppProtocolError(f"the file has {left} bytes, its Content-Length says {self._left}")
            self._out(FIRST, self._make_head(left))
            while left and not self._bodiless:
                data = file.read(min(left, PIECE))
                if not data:
                    raise OSError("the file became shorter while it was sent")
                left -= len(data)
                inbox = self._open()
                inbox.sent += len(data) + WEIGHT
                self._out(0, None, data)
                await self._room(inbox)
        self._finish(0, None, b"")


class H2SyncPort(SyncPort):
    """The same for a WSGI app (`runners.wsgi.Sink`)."""

    _status = 0
    _fields: Fields

    def __init__(self, worker: Worker, call: int, threaded: bool, request: Request, site: Site) -> None:
        super().__init__(worker, call, threaded)
        self._site = site
        self._head_only = request[1] == "HEAD"

    def hint(self, headers: list[tuple[str, str]]) -> None:
        inbox = self._inbox
        if self.state is START and not inbox.gone:
            head = informational(103, asgi_answer("103", headers)[1])
            inbox.sent += weight(head) + WEIGHT
            self._on_loop(self._worker.post, (f.WIRE, self._call, 103, 0, head, None, None, 0))
            self._let_go()

    def start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self._status, pairs = asgi_answer(status, headers)
        self._fields = fields(pairs)
        self.state = "body"

    def whole(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.start(status, headers)
        self._send(WHOLE, len(body), body)
        self.state = "over"

    def write(self, data: bytes) -> None:
        inbox = self._inbox
        if inbox.gone:
            raise ClientGone("the client has left")
        inbox.sent += len(data) + WEIGHT
        self._send(FIRST if self.state == "body" else 0, UNKNOWN, data)
        self.state = "begun"
        self._let_go()

    def finish(self) -> None:
        """The app's answer is over, and with it the call."""
        if self.state == "begun":
            self._send(LAST | DONE)
        elif self.state != "over":
            bodiless = self._head_only or self._status in (204, 304)
            self._send(WHOLE, UNKNOWN if bodiless else 0)

    def _send(self, flags: int, size: int = UNKNOWN, body: bytes = b"") -> None:
        head = self._fields.head(self._status, size, self._site.date, self._site.server) if flags & FIRST else None
        self._on_loop(self._post_wire, flags, head, body)

    def _post_wire(self, flags: int, head: Headers | None, body: bytes) -> None:
        self._worker.post(*wire_frame(self._worker, self._call, self._status, flags, head, body))

    def _let_go(self) -> None:
        """Send what was posted, and wait until the client has caught up."""
        if not self._threaded:
            self._flush()
        self._room()
