"""HTTP/2 (RFC 9113) over one connection: the library knows frames and states, here each gets to whom it concerns.

A stream (`h2_stream`) serves a request (`h2_call`) or a WebSocket (`h2_websocket`). There is no task and no timer for
any of them: each has its time, and `deadline` is the first of these.

After GOAWAY, whoever sent it, what is under way is finished; then the connection closes. After a mistake of the client
in the connection itself, or a flood (`h2_guard`), it closes at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from .front import NEVER, Front, Listener
from .h2_guard import REFUSED, RESET, Flood, Guard
from .h2_headers import Malformed, check
from .h2_library import Library
from .h2_opening import opened
from .h2_row import HIGH, Row
from .h2_stream import Stream

log = logging.getLogger("subpool")

STREAMS: Final = 100  # at once; also of those that were reset and that workers still run
HELD: Final = 65535  # bytes that a client may send on a stream before its app reads
LINGER: Final = 2.0  # seconds that a client has to read our last words


class H2(asyncio.Protocol):
    """One connection."""

    def __init__(self, front: Front, listener: Listener) -> None:
        self.front = front
        self.listener = listener
        self.client: tuple[str, int] | None = None
        self.deadline = NEVER
        self.lingering = False  # nothing is read or sent any more
        self.abandoned = 0  # requests that workers still run though their streams were reset
        self.server_header = front.config.server_header.encode() if front.config.server_header else b""
        limit = 2 * front.config.max_headers_size + 32 * front.config.max_headers  # what is above gets no answer
        self.h2 = Library(limit)
        self.guard = Guard(limit, front.now)
        self.row = Row(self)
        self._transport: Any = None
        self._streams: dict[int, Stream] = {}
        self._answered: dict[int, float] = {}  # streams that are over but for what their clients still send; until when
        self._idle_due = NEVER
        self._draining = False

    def __repr__(self) -> str:
        state = "lingering" if self.lingering else "draining" if self._draining else "open"
        return f"<H2 {self.client} {state}, {len(self._streams)} streams>"

    # asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = self.row.transport = transport
        transport.write(self.h2.greet(STREAMS, HELD, self.front.config.max_headers_size))
        if not self.front.opened(self):
            self.h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, b"too many connections")
            self.row.write()
            self.lingering = True
            transport.close()
            return
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple) and len(peer) >= 2:
            self.client = peer[0], peer[1]
        transport.set_write_buffer_limits(high=HIGH)
        self._idle_due = self.deadline = self.front.now + self.front.config.head_timeout
        self.row.write()
        if self.front.draining:
            self.drain()

    def connection_lost(self, error: Exception | None) -> None:
        self.front.closed(self)
        self.deadline = NEVER
        self.lingering = True
        self._lose()

    def _lose(self) -> None:
        for stream in list(self._streams.values()):
            stream.gone()

    def pause_writing(self) -> None:
        self.row.pause()

    def resume_writing(self) -> None:
        self.row.resume()

    # reading

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        try:
            cuts = self.guard.look(data, self.front.now)
        except Flood as flood:
            log.warning("HTTP/2 connection of %s ended: %s", self.client, flood)
            self._end(flood.code, str(flood))
            return
        at = 0
        for cut in [*cuts, len(data)]:
            if cut > at:
                self._take(data[at:cut] if cut - at < len(data) else data)
                at = cut
            if self.lingering:
                return
        self.row.turn()

    def _take(self, data: bytes) -> None:
        self.row.write()  # the library forgets what it has to send when the client says GOAWAY
        try:
            for event in self.h2.receive_data(data):
                act = _ACTS.get(type(event))
                if act is not None:
                    act(self, event)
        except ProtocolError as error:  # the library has said GOAWAY
            log.debug("HTTP/2 connection of %s ended: %s", self.client, error)
            self._linger()

    def _on_request(self, event: RequestReceived) -> None:
        number = event.stream_id
        streams = len(self._streams) + len(self._answered)
        if self._draining or streams >= STREAMS or self.abandoned >= STREAMS:
            self.guard.spend(REFUSED)
            self.h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        windows = self.h2.streams[number]
        windows._expected_content_length = None  # for the library a wrong one is the end of the connection
        stream = Stream(self, number, windows, complete=event.stream_ended is not None)
        try:
            begin = opened(stream, event.headers)
        except Malformed as error:
            log.debug("request of %s refused: %s", self.client, error)
            self.guard.spend(RESET)
            self.h2.reset_stream(number, ErrorCodes.PROTOCOL_ERROR)
            return
        self._streams[number] = stream
        self._idle_due = NEVER
        begin()

    def _on_data(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.receive(event.data, event.flow_controlled_length, event.stream_ended is not None)
        elif event.flow_controlled_length:
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def _on_ended(self, event: StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            self._answered.pop(event.stream_id, None)
        elif not stream.complete:  # without data
            stream.receive(b"", 0, True)

    def _on_trailers(self, event: TrailersReceived) -> None:
        """ASGI and WSGI have no place for them; they are checked and dropped."""
        stream = self._streams.get(event.stream_id)
        try:
            for name, value in event.headers:
                check(bytes(name), bytes(value))
        except Malformed:
            if stream is not None:
                stream.reset(ErrorCodes.PROTOCOL_ERROR, blame=True)

    def _on_reset(self, event: StreamReset) -> None:
        if not event.remote_reset:
            self.guard.spend(RESET)
        self._answered.pop(event.stream_id, None)
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.gone()

    def _on_window(self, event: WindowUpdated) -> None:
        if not event.stream_id:
            self.row.widened()
        elif event.stream_id in self._streams:
            self.row.add(self._streams[event.stream_id])

    def _on_settings(self, event: RemoteSettingsChanged) -> None:
        self.h2.bound()
        for stream in self._streams.values():  # their windows may be wider
            self.row.add(stream)

    def _on_goaway(self, event: ConnectionTerminated) -> None:
        """The client opens no more streams, and may wait for those that there are."""
        self.h2.go_on()
        self._draining = True

    # streams

    def clock(self, due: float) -> None:
        """Look after the streams when that time has passed."""
        if due < self.deadline:
            self.deadline = due

    def expired(self) -> None:
        now = self.front.now
        if self.lingering or (self.row.due < now and not self.row.moves()):
            self._transport.abort()
            return
        for stream in list(self._streams.values()):
            if stream.due < now:
                stream.due = NEVER
                stream.user.expired()
            if stream.write_due < now:
                self.row.stuck(stream, now)
        for number in [number for number, due in self._answered.items() if due < now]:
            del self._answered[number]
            self.h2.reset_stream(number, ErrorCodes.NO_ERROR)
            self.row.schedule()
        if self._idle_due < now and not self._streams:
            self._end(ErrorCodes.NO_ERROR, "")
            return
        dues = [min(stream.due, stream.write_due) for stream in self._streams.values()]
        self.deadline = min([self.row.due, self._idle_due, *dues, *self._answered.values()])

    def forget(self, stream: Stream) -> None:
        """The stream is over."""
        self._streams.pop(stream.number, None)
        self.row.remove(stream)
        if not self._streams:
            self._idle_due = self.front.now + self.front.config.keepalive_timeout
            self.clock(self._idle_due)
            self.row.schedule()

    def swallow(self, number: int) -> None:
        """The stream is answered, its client not done. What comes is dropped; in the end it is told (section 8.1).

        Many clients do not read before they have sent everything, or miss an answer that comes with a reset.
        """
        self._answered[number] = due = self.front.now + LINGER
        self.clock(due)

    def sent(self) -> None:
        """What could be sent has been."""
        if self._draining and not self._streams:
            self._linger()

    # the end

    def idle(self) -> bool:
        return not self._streams

    def drain(self) -> None:
        if self.lingering or self._draining:
            return
        if not self._streams:
            self._end(ErrorCodes.NO_ERROR, "")
            return
        self._draining = True
        self.row.write()
        self._transport.write(self.h2.goaway())
        for stream in list(self._streams.values()):
            stream.user.drain()

    def abort(self) -> None:
        self._transport.abort()

    def _end(self, code: int, text: str) -> None:
        """Say GOAWAY and close, whatever is under way."""
        self.h2.close_connection(code, text.encode())
        self._linger()

    def _linger(self) -> None:
        """Close when all is written. What still comes is dropped, lest our words be lost with a reset."""
        self.row.write()
        self.lingering = True
        self._lose()
        self.deadline = self.front.now + LINGER
        self.row.read_on()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()


_ACTS: Final[dict[type[Event], Any]] = {
    RequestReceived: H2._on_request,
    DataReceived: H2._on_data,
    StreamEnded: H2._on_ended,
    TrailersReceived: H2._on_trailers,
    StreamReset: H2._on_reset,
    WindowUpdated: H2._on_window,
    RemoteSettingsChanged: H2._on_settings,
    ConnectionTerminated: H2._on_goaway,
}
