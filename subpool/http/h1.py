"""HTTP/1.1 (RFC 9112) over one connection: bytes in, parsed requests to the workers, their bytes out.

What is read is checked by `h1_reader`. After a refusal the connection closes: nothing behind it is believed.

Requests of one connection are answered in order, one at a time. What a client sends ahead (pipelining) is parsed only
as far as it came in the same read; then the socket is not read until the answers are out.

The deadline says at each moment what the connection waits for: a head, a body, the start of a response, room in the
client's window, or the next request.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import httptools

from ..channels import frames as f
from ..errors import PoolOverloaded, SubpoolError
from ..wire import CLOSE, FIRST, HTTP10, KEEP_ALIVE, LAST, WEIGHT, simple
from .call import HTTPCall
from .failure import answer_for, log_request, told
from .front import NEVER, Front, Listener
from .h1_reader import Reader, status_of
from .proxy import with_host
from .target import SLASH, authority, origin_form

if TYPE_CHECKING:
    from ..channels.frames import Frame
    from ..member import Member
    from .sendfile import FileSender

log = logging.getLogger("subpool")

HELD: Final = 64 * 1024  # bytes of a body that are kept for an app that does not read
ACK: Final = 64 * 1024  # bytes of a response that the worker is told of at once
FRAMING: Final = 64 * 1024  # bytes of chunk sizes, extensions and trailers that a small body may have
SLICE: Final = 64 * 1024  # bytes given to the parser at once
LINGER: Final = 2.0  # seconds that a client has to read our last words
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class H1(Reader, asyncio.Protocol):
    """One connection."""

    def __init__(self, front: Front, listener: Listener) -> None:
        super().__init__(front)
        self.front = front
        self.listener = listener
        self.client: tuple[str, int] | None = None
        self.deadline = NEVER
        self._config = config = front.config
        self._keepalive = config.keepalive_timeout
        self._site = b"" if front.only is None else front.site(listener, front.only, listener.scheme, listener.server)
        self._transport: Any = None
        self._current: HTTPCall | None = None  # the request that is being answered
        self._lingering = False
        self._paused = False  # the client reads slowly
        self._reading = True
        self._pending = b""  # bytes that were read and not parsed
        self._lent: list[tuple[Member, memoryview]] = []  # loans that the transport still writes
        self._fresh = True  # nothing was read yet
        self._opening = b""  # but so much that HTTP/2 is possible
        self._written = 0
        self._sender: FileSender | None = None  # of a file that is the rest of the response

    def __repr__(self) -> str:
        state = "lingering" if self._lingering else "busy" if self._current else "idle"
        return f"<H1 {self.client} {state}>"

    def _connection(self) -> H1:
        return self

    # asyncio

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if not self.front.opened(self):
            transport.write(simple(503, "too many connections", more=[(b"retry-after", b"1")]))
            transport.close()
            return
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple) and len(peer) >= 2:
            self.client = peer[0], peer[1]
        transport.set_write_buffer_limits(high=0)
        self.deadline = self.front.now + self._config.head_timeout

    def connection_lost(self, error: Exception | None) -> None:
        self.front.closed(self)
        self.deadline = NEVER
        self._left_by_client()
        self._release()

    def eof_received(self) -> bool:
        """The client sends no more: it has left. (That it may still read cannot be told.)"""
        if self._current is None and self._lingering:
            return False
        self._left_by_client()
        return False

    def _left_by_client(self) -> None:
        calls = [self._current, *self._calls]
        self._current = self._parsing = None
        self._calls.clear()
        if self._sender is not None:
            self._sender.stop()
            self._sender = None
        for call in calls:
            if call is not None:
                call.leave()

    def pause_writing(self) -> None:
        self._paused = True
        self._written = self._transport.get_write_buffer_size()
        if self._current is not None and self._current.begun:
            self.deadline = self.front.now + self._config.write_timeout

    def resume_writing(self) -> None:
        self._paused = False
        self._release()
        call = self._current
        if self._sender is not None:
            self._sender.go_on()
        elif call is not None:
            if call.begun:
                self.deadline = NEVER
            self._acknowledge(call, 1)
        elif not self._lingering:
            self.deadline = self.front.now + self._keepalive
            self._go_on()

    def _release(self) -> None:
        """Give back the loans that are written."""
        lent, self._lent = self._lent, []
        for member, loan in lent:
            try:
                member.give_back(loan)
            except BufferError:  # the transport still holds it; its last reference goes with the transport
                member.link.credit(1)

    # reading

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        current = self._current
        if self._pending or (self._paused if current is None else current.complete):
            self._hold(data)
            return
        if self._parsing is None:
            if self._fresh:
                data = self._opening + data
                if data[:1] == b"P" and PREFACE.startswith(data[: len(PREFACE)]):
                    if len(data) < 3:  # "PRI", or "POST", "PUT", "PATCH"
                        self._opening = data
                        return
                    if self._to_h2(data):
                        return
                self._fresh = False
            if not self._head:
                self.deadline = self.front.now + self._config.head_timeout
        if len(data) <= SLICE:
            self._parse(data)
            return
        for at in range(0, len(data), SLICE):  # what a client sends ahead is not to be parsed far ahead
            current = self._current
            if self._transport.is_closing():
                return
            if current is not None and current.complete:
                self._hold(data[at:])
                return
            self._parse(data[at : at + SLICE])

    def _hold(self, data: bytes) -> None:
        """Bytes behind a request that is not answered yet: kept, and no more are read."""
        self._pending += data
        self._read_no_more()

    def _parse(self, data: bytes) -> None:
        call = self._parsing
        size = 0
        if call is None or not call.headers_complete:
            self._head += len(data)
        else:
            size = call.size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(*(self._refusal or status_of(error)))
        else:
            if self._refusal is not None:
                self._refuse(*self._refusal)
            elif self._parsing is not None and call is self._parsing and call.headers_complete:
                call.framing += len(data) - (call.size - size)
                if call.framing > FRAMING + 16 * call.size:
                    self._refuse(431, "the body of the request is mostly framing")
            elif self._head > self._max_line and self._too_long():
                self._refuse(431, "the head of the request is too large")
        if self._current is None:
            self._next()

    def _refuse(self, status: int, text: str) -> None:
        """Answer for the request that is being read, behind those before it, and close."""
        call = self._parsing or HTTPCall(0, self)
        self._parsing = None
        self._refusal = (status, text)
        if call is self._current:  # its head was good, its body is not
            if call.begun:
                self._abort(call)
            else:
                if call.dispatched:
                    call.leave()
                self._answer(call, status, text)
        elif call not in self._calls:
            self._calls.append(call)
        call.complete = True
        call.status = status

    # bodies, from the reader

    def _body_follows(self, call: HTTPCall) -> None:
        if self._current is None and call is self._calls[0]:
            self._next()

    def _piece(self, call: HTTPCall) -> None:
        if call.dispatched:
            call.feed()
            if call.held:
                self._wait_for_reader(call)
            else:
                self.deadline = self.front.now + self._config.body_timeout
        elif call is self._current:
            self.deadline = self.front.now + self._config.body_timeout

    def _wait_for_reader(self, call: HTTPCall) -> None:
        """The app has not asked for what came: that is its time, not the client's."""
        self.deadline = self.front.now + call.mount.timeout if call.mount is not None and not call.begun else NEVER
        if call.held > HELD:
            self._read_no_more()

    def _request_over(self, call: HTTPCall) -> None:
        if call.dispatched:
            call.feed()
            self._await_response(call)
        elif call is self._current:
            self._dispatch(call)

    # to the workers

    def _next(self) -> None:
        """Take the next request that came, if its head is here."""
        while self._current is None and self._calls and not self._lingering:
            call = self._calls[0]
            if call.status:  # refused
                self._calls.popleft()
                self._answer(call, *(self._refusal or (call.status, "")))
            elif not call.headers_complete:
                return
            else:
                self._calls.popleft()
                self._current = call
                if self._route(call):
                    if call.complete or call.streamed:
                        self._dispatch(call)
                    else:
                        self.deadline = self.front.now + self._config.body_timeout

    def _route(self, call: HTTPCall) -> bool:
        """Find the mount. False if the request was answered here."""
        target = call.url
        if target[0] != SLASH and target != b"*":
            # its authority counts in place of Host (RFC 9112, section 3.2.2)
            call.headers = with_host(call.headers, authority(target))
            target = call.url = origin_form(target)
        mount = self.front.only or self.front.find(target)
        if mount is None:
            self._answer(call, 404, "no app is mounted here", close=not call.complete)
            return False
        call.mount = mount
        if (call.length or call.size) > mount.max_body:
            self._answer(call, 413, "the body of the request is too large")
            return False
        return True

    def _dispatch(self, call: HTTPCall) -> None:
        front, mount = self.front, call.mount
        assert mount is not None
        listener = self.listener
        client, scheme = self.client, listener.scheme
        if call.forwarded:
            client, scheme, call.headers = front.speaker(listener, client, call.headers)
            call.client = client
        if front.only is not None and scheme == listener.scheme:
            site = self._site
        else:
            site = front.site(listener, mount, scheme, listener.server)
        if call.streamed:
            body = None
        else:
            parts = call.parts
            body = b"" if not parts else parts[0] if len(parts) == 1 else b"".join(parts)
        request = (site, call.method, call.url, call.headers, client, call.flags)
        call.frame = (f.CALL_HTTP, call.id, mount.app, None, request, body)
        call.dispatched = True
        front.requests += 1
        call.started_at = front.now if front.access is None else front.loop.time()
        try:
            mount.engine.submit(call)
        except PoolOverloaded:
            self._answer(call, 503, "too many requests wait", more=[(b"retry-after", b"1")], close=call.streamed)
        except SubpoolError as error:
            log.error("%s %s: %s", call.method, call.url.decode("latin-1"), error)
            self._answer(call, 503, "not available")
        else:
            self._await_response(call)

    def _await_response(self, call: HTTPCall) -> None:
        if call is self._current and not call.begun and call.mount is not None:
            if call.complete or not call.streamed:
                self.deadline = self.front.now + call.mount.timeout
            else:
                self.deadline = self.front.now + self._config.body_timeout

    # from the workers

    def on_whole(self, call: HTTPCall, frame: Frame) -> None:
        """A whole response, after which the connection stays: what `on_wire` and `_done` make of it, in one go."""
        self._transport.write(frame[4])
        if self.front.access is not None or self.front.draining or not call.complete:
            call.begun = True
            call.status = frame[2]
            call.sent = frame[7]
            self._done(call, False)
            return
        self._current = None
        call.connection = None
        self.deadline = self.front.now + self._keepalive
        if self._calls or self._pending or not self._reading:
            self._go_on()

    def on_wire(self, call: HTTPCall, member: Member, frame: Frame, body: Any) -> None:
        """Bytes for the client."""
        flags = frame[3]
        transport = self._transport
        if transport.is_closing():  # the connection is lost, and its end on the way
            member.drop(body)
            return
        head, tail = frame[4], frame[6]
        size = len(head)
        if flags & FIRST:
            call.begun = True
            call.status = frame[2]
            self.deadline = NEVER
        if body is None:
            transport.write(head)
        elif isinstance(body, tuple):
            self._send_file(call, body, bool(flags & CLOSE))
            return
        else:
            size += len(body) + len(tail)
            if head:
                transport.write(head)
            transport.write(body)
            if isinstance(body, memoryview):
                if self._paused or transport.get_write_buffer_size():
                    self._lent.append((member, body))
                else:
                    member.give_back(body)
            if tail:
                transport.write(tail)
        call.sent += frame[7]
        if flags & LAST:
            self._done(call, bool(flags & CLOSE))
        else:
            call.unacknowledged += size + WEIGHT
            if not self._paused:
                self._acknowledge(call, ACK)

    def _send_file(self, call: HTTPCall, file: tuple[int, int, int], close: bool) -> None:
        """The rest of the response is a part of a file."""
        from .sendfile import FileSender

        def done(error: OSError | None) -> None:
            self._sender = None
            if error is None:
                self._done(call, close)
            else:
                self._abort(call)

        call.sent += file[2]
        self._sender = FileSender(self.front.loop, self._transport, file, done)
        self._written = file[2]
        self.deadline = self.front.now + self._config.write_timeout
        if not self._transport.get_write_buffer_size():
            self._sender.go_on()

    def _acknowledge(self, call: HTTPCall, least: int) -> None:
        if call.unacknowledged >= least and call.member is not None:
            call.member.link.flow((f.ACK, call.id, call.unacknowledged))
            call.unacknowledged = 0

    def on_wanted(self, call: HTTPCall) -> None:
        """The app asks for its body."""
        if call is not self._current:
            return
        if call.expect and not call.begun and not call.complete:
            call.expect = False
            self._transport.write(CONTINUE)
        call.feed()
        if not call.complete:
            if call.wants:
                self.deadline = self.front.now + self._config.body_timeout
            self._read_on()

    def on_end(self, call: HTTPCall) -> None:
        """The app has returned."""
        if call is self._current and self._sender is None:  # without the end of its response
            self._abort(call)

    def on_error(self, call: HTTPCall, error: BaseException) -> None:
        """The request failed. After the start there is no way but to break off."""
        log_request(call.id, call.method, call.url, told(error))
        if call is not self._current:
            return
        if call.begun:
            self._abort(call)
        else:
            self._answer(call, *answer_for(error), close=not call.complete)

    # the end of a request

    def _answer(
        self,
        call: HTTPCall,
        status: int,
        text: str,
        *,
        close: bool = True,
        more: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """A response of our own."""
        close = close or not call.flags & KEEP_ALIVE
        data = simple(status, text, close=close, head=call.method == "HEAD", more=more)
        call.status = status
        call.begun = True
        call.sent = 0 if call.method == "HEAD" else len(text) + 1
        self._transport.write(data)
        self._current = call
        self._done(call, close)

    def _done(self, call: HTTPCall, close: bool) -> None:
        """The response is out. The call itself may go on in the worker."""
        front = self.front
        if front.access is not None:
            front.access.log(self, call)
        self._current = None
        call.connection = None
        if not call.complete:  # nobody reads the rest of the request
            if call.dispatched and call.wants:
                call.leave()
            close = True
        if close or front.draining:
            self._close()
            return
        if self._parsing is call:
            self._parsing = None
        self.deadline = front.now + self._keepalive
        self._go_on()

    def _go_on(self) -> None:
        """To the next request, if some of it is here, and if the client takes the answers."""
        if self._paused:
            self.deadline = self.front.now + self._config.write_timeout
            return
        self._next()
        if self._current is None or not self._current.complete:
            pending, self._pending = self._pending, b""
            if pending:
                self.data_received(pending)
            if not self._pending:
                self._read_on()

    def _read_no_more(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if not self._reading and not self._pending:
            self._reading = True
            self._transport.resume_reading()

    def _close(self) -> None:
        """Close when all is written. What still comes is read and dropped, lest our words be lost with a reset."""
        transport = self._transport
        self._lingering = True
        self._pending = b""
        self._calls.clear()
        self._written = transport.get_write_buffer_size()
        if self._parsing is None and not self._refusal:
            self.deadline = self.front.now + self._config.write_timeout
            transport.close()
            return
        self.deadline = self.front.now + LINGER
        self._read_on()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _abort(self, call: HTTPCall) -> None:
        if self.front.access is not None:
            self.front.access.log(self, call)
        self._current = None
        call.leave()
        self._transport.abort()

    # the front

    def idle(self) -> bool:
        return self._current is None

    def drain(self) -> None:
        call = self._current
        if call is None and (self._parsing is None or self._lingering):
            self._transport.close()
        elif call is not None:
            call.flags &= ~KEEP_ALIVE

    def abort(self) -> None:
        self._transport.abort()

    def expired(self) -> None:
        call = self._current
        if self._lingering or (call is None and self._paused):
            if not self._has_written():
                self._transport.abort()
        elif call is None and self._parsing is None and not self._head:
            self._transport.close()
        elif call is None:
            self._refusal = (408, "the head of the request did not come in time")
            self._answer(self._parsing or HTTPCall(0, self), *self._refusal)
        elif call.begun:
            if not self._has_written():
                self._abort(call)
        elif not call.complete and (call.wants or not call.dispatched):
            if call.dispatched:
                call.leave()
            self._answer(call, 408, "the body of the request did not come in time")
        else:
            assert call.mount is not None
            call.mount.engine.expire(call)

    def _has_written(self) -> bool:
        """Whether the client has taken some of what waits for it since the last look; then it has more time."""
        left = self._transport.get_write_buffer_size() if self._sender is None else self._sender.left
        if not left or left >= self._written:
            return False
        self._written = left
        self.deadline = self.front.now + self._config.write_timeout
        return True

    # other protocols

    def _upgrade(self, rest: bytes) -> None:
        """A request with `Upgrade`: WebSocket (RFC 6455), or one that we do not know and ignore."""
        calls = list(self._calls)
        call = calls[-1] if calls else None
        if call is None or self._refusal is not None:
            self._refuse(*(self._refusal or (400, "bad request")))
            self._next()
            return
        if self._current is None and len(calls) == 1 and _is_websocket(call):
            from .websocket import WebSocket

            self.front.closed(self)
            self._calls.clear()
            self._parsing = None
            self._release()
            other = WebSocket(self.front, self.listener, self.client, call)
            self._transport.set_protocol(other)
            other.connection_made(self._transport)
            if rest:
                other.data_received(rest)
            return
        self.resume_body(call)
        if not call.complete:
            self._body_follows(call)
        if self._current is None:
            self._next()
        if rest:
            self.data_received(rest)

    def _to_h2(self, data: bytes) -> bool:
        """A client that begins with the preface of HTTP/2 (RFC 9113, section 3.3)."""
        if "h2" not in self._config.http_version or self._head:
            return False
        from .h2 import H2

        self.front.closed(self)
        other = H2(self.front, self.listener)
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        other.data_received(data)
        return True


def _is_websocket(call: HTTPCall) -> bool:
    headers = dict(call.headers)
    return call.method == "GET" and headers.get(b"upgrade", b"").lower() == b"websocket" and not call.flags & HTTP10
