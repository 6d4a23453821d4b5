"""One stream of a connection of HTTP/2 (RFC 9113, section 5): its windows, what waits to be sent, its end.

What goes over it is its user's concern: an HTTP request (`h2_call`) or a WebSocket (`h2_websocket`).

Out: the user gives a head, data, an end; the connection calls `write` when the stream's turn has come, and each call
hands one DATA frame or one informational response at most to the library. In: `receive` passes data on; the client may
send more when the user says `read`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from h2.errors import ErrorCodes

from ..channels.exchange import WEIGHT
from ..types import Headers
from ..wire2 import weight
from .front import NEVER
from .h2_guard import RESET

if TYPE_CHECKING:
    from h2.stream import H2Stream

    from .h2 import H2

FRAME: Final = 16 * 1024  # bytes of a DATA frame at most, so that streams take turns
MORE, IDLE, SHUT, STARVED, ENDED = range(5)  # what `write` comes to: see there


class User(Protocol):
    """Whom the stream serves."""

    def received(self, data: bytes, last: bool) -> None:
        """Data of the client; none at all may come with `last`. What was made use of is told with `Stream.read`."""

    def wrote(self, size: int, weight: int) -> None:
        """So much of the data has been sent; `weight` is what that counted for, see `wire.WEIGHT`."""

    def ended(self) -> None:
        """Everything has been sent."""

    def left(self) -> None:
        """The stream has gone: reset, by whomever, or its connection is lost."""

    def expired(self) -> None:
        """`Stream.due` has passed."""

    def drain(self) -> None:
        """The server ends."""


class Stream:
    """`number` is its id, `complete` says that the client has sent all it will."""

    __slots__ = (
        "_early", "_ending", "_h2", "_head", "_offset", "_queue", "_sized", "_trailers", "_windows", "begun",
        "complete", "connection", "due", "number", "over", "queued", "unsent", "user", "write_due",
    )  # fmt: skip

    def __init__(self, connection: H2, number: int, windows: H2Stream, *, complete: bool) -> None:
        self.connection = connection
        self.number = number
        self.user: User
        self.complete = complete
        self.over = False  # nothing is sent or received any more
        self.due = NEVER  # the user's clock; set it with `wait`
        self.write_due = NEVER  # until then the client must let us send more
        self.queued = False  # it is in the connection's row
        self.unsent = 0  # bytes that wait
        self.begun = False  # the head of a final response is given
        self._h2 = connection.h2
        self._windows = windows
        self._early: deque[Headers] = deque()  # informational responses
        self._head: Headers | None = None
        self._sized = False
        self._queue: deque[bytes] = deque()
        self._offset = 0  # of the first piece: bytes that are sent
        self._ending = False
        self._trailers: Headers = []

    def __repr__(self) -> str:
        state = "over" if self.over else "ending" if self._ending else "begun" if self.begun else "new"
        return f"<Stream {self.number} {state}, {self.unsent} bytes unsent>"

    # in

    def receive(self, data: bytes, size: int, last: bool) -> None:
        """Data from the client, `size` bytes with its padding."""
        if size > len(data):
            self.read(size - len(data))
        self.complete = self.complete or last
        self.user.received(data, last)

    def read(self, size: int) -> None:
        """So many bytes have been made use of: the client may send as many."""
        if size:
            self._h2.acknowledge_received_data(size, self.number)
            self.connection.row.schedule()

    def wait(self, due: float) -> None:
        """Call the user's `expired` when that time has passed."""
        self.due = due
        self.connection.clock(due)

    # out

    @property
    def ending(self) -> bool:
        """Whether the user has said everything."""
        return self._ending or self.over

    def informational(self, headers: Headers) -> None:
        """A 1xx response."""
        if not self.over and not self.begun:
            self._early.append(headers)
            self.connection.row.add(self)

    def answer(self, headers: Headers, body: bytes | None, trailers: Headers | None = None) -> None:
        """A whole response."""
        self.begun = self._ending = True
        self._head = headers
        if body:
            self._queue.append(body)
            self.unsent = len(body)
        if trailers:
            self._trailers = trailers
        self.connection.row.add(self)

    def start(self, headers: Headers, sized: bool = False) -> None:
        """The head of the response. `sized`: a content-length is added if the body is whole before it leaves."""
        self.begun = True
        self._head = headers
        self._sized = sized
        self.connection.row.add(self)

    def send(self, data: bytes) -> None:
        if self.over or not data:
            return
        self._queue.append(data)
        self.unsent += len(data)
        self.connection.row.add(self)

    def end(self, trailers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._ending = True
        self._trailers = list(trailers)
        self.connection.row.add(self)

    def write(self) -> int:
        """Hand on one frame of data at most.

        MORE: there is more that can go. IDLE: nothing is left. SHUT: the stream's window is shut. STARVED: that of the
        connection. ENDED: that was all.
        """
        h2, number, ending = self._h2, self.number, self._ending
        queue = self._queue
        if self._early:
            head = self._early.popleft()
            h2.send_headers(number, head)
            self.user.wrote(0, weight(head) + WEIGHT)
            return MORE if self._early or self.begun else IDLE
        if self._head is not None:
            head, self._head = self._head, None
            if ending and self._sized and not self._trailers:
                head = [*head, (b"content-length", b"%d" % self.unsent)]
            last = ending and not queue and not self._trailers
            h2.send_headers(number, head, end_stream=last)
            if last:
                return ENDED
        if queue:
            piece = queue[0]
            left = len(piece) - self._offset
            room = self._windows.outbound_flow_control_window
            size = min(left, room, h2.outbound_flow_control_window, FRAME)
            if size <= 0:
                return SHUT if room <= 0 else STARVED
            counted = size
            if size == left:
                counted += WEIGHT
                data = piece[self._offset :] if self._offset else piece
                queue.popleft()
                self._offset = 0
            else:
                data = piece[self._offset : self._offset + size]
                self._offset += size
            self.unsent -= size
            last = ending and not queue and not self._trailers
            h2.send_data(number, data, end_stream=last)
            self.user.wrote(size, counted)
            if last:
                return ENDED
            return MORE if queue or ending else IDLE
        if not ending:
            return IDLE
        if self._trailers:
            h2.send_headers(number, self._trailers, end_stream=True)
        else:
            h2.end_stream(number)
        return ENDED

    # the end

    def finished(self) -> None:
        """Everything is sent. What the client still sends is no use to anyone."""
        if not self.complete:
            self.connection.swallow(self.number)
        self._close().ended()

    def reset(self, code: ErrorCodes, *, blame: bool = False) -> None:
        """Break off. `blame`: it is the client's doing, and counts."""
        if self.over:
            return
        if blame:
            self.connection.guard.spend(RESET)
        self._h2.reset_stream(self.number, code)
        self.connection.row.schedule()
        self.gone()

    def gone(self) -> None:
        """It is reset, or the connection is lost."""
        if not self.over:
            self._close().left()

    def _close(self) -> User:
        """The user, to be told; the stream knows it no longer, so that neither keeps the other."""
        user = self.user
        del self.user
        self.over = True
        self.due = self.write_due = NEVER
        self._queue.clear()
        self._early.clear()
        self._head = None
        self.unsent = 0
        self.connection.forget(self)
        return user
