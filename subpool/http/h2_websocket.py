"""A WebSocket over a stream of HTTP/2 (RFC 8441): what a session asks of its carrier, said in frames of HTTP/2.

The session counts bytes of its own; here it hears that its client is behind when `HIGH` bytes wait, and that the client
has caught up when none does. What it leaves there (`read_on`) is not acknowledged, so that the client stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h2.errors import ErrorCodes

from ..types import Headers
from .front import NEVER
from .h2_headers import Request, block, plain, response
from .ws_handshake import open_session

if TYPE_CHECKING:
    from .h2_stream import Stream
    from .ws_session import Session

HIGH: Final = 64 * 1024  # bytes that wait to be sent
NO_LENGTH: Final = -1


class H2WebSocket:
    """One stream; also the request that the access log reads."""

    version = "2"
    flags = 0
    status = 0
    sent = 0

    def __init__(self, number: int, stream: Stream, request: Request) -> None:
        self.id = number
        self.method = request.method
        self.url = request.target
        self.headers = request.headers
        self.forwarded = request.forwarded
        self.started_at = 0.0
        self._stream = stream
        self._session: Session | None = None
        self._reading = True
        self._unread = 0  # bytes that are not acknowledged
        self._full = False
        self._left = NO_LENGTH  # bytes of a denial that may still come
        stream.user = self

    def __repr__(self) -> str:
        return f"<H2WebSocket {self._stream!r} {self._session!r}>"

    def begin(self) -> None:
        """Call the app."""
        connection = self._stream.connection
        if connection.front.access is not None:
            self.started_at = connection.front.loop.time()
        self._session = open_session(connection.front, connection.listener, connection.client, self, self, "2")
        if self._session is not None:
            self._session.begin()

    # the stream, see `h2_stream.User`

    def received(self, data: bytes, last: bool) -> None:
        self._unread += len(data)
        session = self._session
        if session is not None and data and not self._stream.ending:
            session.receive(data)
        if self._reading or session is None:
            self._acknowledge()
        if last and not self._stream.ending:  # as if the connection were lost
            self._stream.reset(ErrorCodes.CANCEL)

    def _acknowledge(self) -> None:
        unread, self._unread = self._unread, 0
        self._stream.read(unread)

    def wrote(self, size: int, weight: int) -> None:
        self.sent += size
        if self._full and not self._stream.unsent:
            self._full = False
            if self._session is not None:
                self._session.room()

    def ended(self) -> None:
        self._acknowledge()
        if self._session is not None:
            self._session.left()

    left = ended

    def expired(self) -> None:
        if self._session is not None:
            self._session.expired()

    def drain(self) -> None:
        if self._session is not None:
            self._session.drain()

    # the session, see `ws_carrier.Carrier`

    @property
    def deadline(self) -> float:
        return self._stream.due

    @deadline.setter
    def deadline(self, due: float) -> None:
        if self._stream.over:
            return
        if due == NEVER:
            self._stream.due = due
        else:
            self._stream.wait(due)

    def accept(self, headers: Headers) -> None:
        self._start(200, headers)
        self._answered()

    def _start(self, status: int, headers: Headers, sized: bool = False) -> None:
        connection = self._stream.connection
        try:
            head = response(status, headers, connection.front.config.date_header, connection.server_header)
        except ValueError:
            self._stream.reset(ErrorCodes.INTERNAL_ERROR)
            return
        self.status = status
        self._stream.start(head, sized=sized and b"content-length" not in block(headers)[1])

    def _answered(self) -> None:
        connection = self._stream.connection
        if connection.front.access is not None:
            connection.front.access.log(connection, self)

    def refuse(self, status: int, text: str, headers: Headers) -> None:
        self.status = status
        head, body = plain(status, text, headers, self._stream.connection.server_header)
        self._stream.start(head, sized=False)
        self._stream.send(body)
        self._answered()
        self._stream.end()

    def deny(self, status: int, headers: Headers) -> None:
        declared = dict(headers).get(b"content-length")
        self._left = 0 if status in (204, 304) else NO_LENGTH if declared is None else int(declared)
        self._start(status, headers, sized=self._left != 0)

    def deny_body(self, data: bytes, more: bool) -> None:
        if self._left >= 0:
            data = data[: self._left]
            self._left -= len(data)
        self.write(data)
        if not more and self._left > 0:
            self.abort()
        elif not more:
            self._answered()
            self._stream.end()

    def write(self, data: bytes) -> None:
        if self._stream.ending:
            return
        self._stream.send(data)
        if not self._full and self._stream.unsent > HIGH:
            self._full = True
            if self._session is not None:
                self._session.full()

    def unsent(self) -> int:
        return self._stream.unsent

    def read_on(self, on: bool) -> None:
        self._reading = on
        if on:
            self._acknowledge()

    def close(self, clean: bool) -> None:
        if not self._stream.ending:
            self._stream.end()

    def abort(self) -> None:
        self._stream.connection.row.push(self._stream)
        self._stream.reset(ErrorCodes.CANCEL)
