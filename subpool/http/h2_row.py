"""Whose turn it is to send, over one connection of HTTP/2.

Streams that have something to send stand in a row and take turns, a frame each, as long as the transport has room and
the client's windows are open. All that one turn of the loop brings is written at once.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from h2.errors import ErrorCodes

from .front import NEVER
from .h2_guard import SENT, SERVED
from .h2_stream import ENDED, MORE, SHUT, STARVED, Stream

if TYPE_CHECKING:
    from .h2 import H2

HIGH: Final = 64 * 1024  # bytes in the transport's buffer: then streams wait
STUFFED: Final = 1024 * 1024  # bytes there: then nothing is read either, for we only answer pings and the like
TURN: Final = 64  # frames in one turn of the loop


class Row:
    """The sending half of a connection. `due`: when the transport must have moved, while it is full."""

    __slots__ = (
        "_connection", "_handed", "_held_up", "_paused", "_row", "_scheduled", "_sent_at", "_starved", "_unwritten",
        "due", "transport",
    )  # fmt: skip

    def __init__(self, connection: H2) -> None:
        self._connection = connection
        self.transport: Any = None
        self.due = NEVER
        self._row: deque[Stream] = deque()
        self._starved: list[Stream] = []  # streams that wait for room in the connection's window
        self._scheduled = False
        self._handed = 0  # bytes of data that the library has, since it was last asked for what to write
        self._paused = False  # the client reads slowly
        self._held_up = False  # so slowly that it is not read either
        self._unwritten = 0  # bytes that were in the transport when `due` was set
        self._sent_at = 0.0  # when data went out last

    def __repr__(self) -> str:
        return f"<Row {len(self._row)} streams{', paused' if self._paused else ''}>"

    def add(self, stream: Stream) -> None:
        """The stream has something to send, or room for it."""
        if not stream.over:
            if not stream.queued:
                stream.queued = True
                stream.write_due = NEVER
                self._row.append(stream)
            self.schedule()

    def remove(self, stream: Stream) -> None:
        """The stream is over."""
        if stream in self._starved:
            self._starved.remove(stream)

    def widened(self) -> None:
        """The connection's window has room again."""
        starved, self._starved = self._starved, []
        for stream in starved:
            self.add(stream)

    def schedule(self) -> None:
        """There is something to write: at the end of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self._connection.front.loop.call_soon(self.turn)

    def turn(self) -> None:
        """Send what can be sent."""
        self._scheduled = False
        connection = self._connection
        if connection.lingering:
            return
        row = self._row
        frames = 0
        while row and frames < TURN and not self._paused:
            stream = row.popleft()
            stream.queued = False
            if not stream.over:
                frames += 1
                self._advance(stream)
                if self._handed >= HIGH:  # the transport is to say when it has enough
                    self.write()
        self.write()
        if row and not self._paused:
            self.schedule()
        else:
            connection.sent()

    def push(self, stream: Stream) -> None:
        """Let the stream send what it can, at once: it is about to be reset."""
        while not self._paused and not stream.over and self._advance(stream):
            self.write()

    def _advance(self, stream: Stream) -> bool:
        """Let the stream send a frame. False if it cannot send more."""
        connection = self._connection
        unsent = stream.unsent
        outcome = stream.write()
        if stream.unsent < unsent:
            self._handed += unsent - stream.unsent
            self._sent_at = connection.front.now
            connection.guard.earn(SENT)
        if outcome == MORE:
            if not stream.queued:
                stream.queued = True
                self._row.append(stream)
            return True
        if outcome == ENDED:
            stream.finished()
            connection.guard.earn(SERVED)
        elif outcome in (SHUT, STARVED):
            if outcome == STARVED:
                self._starved.append(stream)
            stream.write_due = connection.front.now + connection.front.config.write_timeout
            connection.clock(stream.write_due)
        return False

    def stuck(self, stream: Stream, now: float) -> None:
        """The client lets the stream send nothing. Where the connection's window alone is shut, others may have."""
        since = self._sent_at + self._connection.front.config.write_timeout
        if stream in self._starved and since >= now:
            stream.write_due = since
        else:
            stream.reset(ErrorCodes.CANCEL, blame=True)

    # the transport

    def write(self) -> None:
        """Write what the library has."""
        self._handed = 0
        data = self._connection.h2.data_to_send()
        if data:
            self.transport.write(data)
            if self._paused and not self._held_up and self.transport.get_write_buffer_size() > STUFFED:
                self._held_up = True
                self.transport.pause_reading()

    def pause(self) -> None:
        """The transport is full."""
        front = self._connection.front
        self._paused = True
        self._unwritten = self.transport.get_write_buffer_size()
        self.due = front.now + front.config.write_timeout
        self._connection.clock(self.due)

    def resume(self) -> None:
        self._paused = False
        self.due = NEVER
        self.read_on()
        self.schedule()

    def read_on(self) -> None:
        if self._held_up:
            self._held_up = False
            self.transport.resume_reading()

    def moves(self) -> bool:
        """`due` has passed: whether the client has read anything meanwhile. Then it has as much time again."""
        front = self._connection.front
        left, before = self.transport.get_write_buffer_size(), self._unwritten
        self._unwritten = left
        self.due = front.now + front.config.write_timeout
        return bool(left < before)
