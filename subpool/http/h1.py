"""HTTP/1.1 (RFC 9112) over one connection: bytes in, parsed requests to the workers, their bytes out.

What is read is checked by `h1_reader`, what goes out is `h1_writer`'s. After a refusal the connection closes: nothing
behind it is believed.

Clients repeat themselves: on a connection the request line changes, the header lines seldom do. Lines that were parsed
and found good are remembered by their bytes (`Front.heads`); a whole request that repeats them is not parsed again, and
its worker is sent the bytes alone, which it remembers likewise (`worker.http.Site`).

Requests of one connection are answered in order, one at a time. What a client sends ahead (pipelining) is parsed only
as far as it came in the same read; then the socket is not read until the answers are out.

The deadline says at each moment what the connection waits for: a head, a body, the start of a response, room in the
client's window, or the next request.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, Final

import httptools

from ..channels import frames as f
from ..errors import PoolOverloaded, SubpoolError
from ..types import Headers
from ..wire import HTTP10, KEEP_ALIVE, simple
from .call import HTTPCall, RepeatedCall
from .failure import answer_for, log_request, told
from .front import NEVER, Front, Listener, Mount
from .h1_reader import METHODS, Reader, status_of
from .h1_writer import Writer, take_nothing_ahead
from .proxy import with_host
from .target import SLASH, authority, origin_form

log = logging.getLogger("subpool")

HELD: Final = 64 * 1024  # bytes of a body that are kept for an app that does not read
FRAMING: Final = 64 * 1024  # bytes of chunk sizes, extensions and trailers that a small body may have
SLICE: Final = 64 * 1024  # bytes given to the parser at once
FAMILIAR: Final = 4096  # bytes of a request whose header lines are remembered
END: Final = b"\r\n\r\n"
REQUEST: Final = re.compile(rb"(GET|POST|HEAD|PUT|DELETE|PATCH|OPTIONS) (/[!-\"$-~]*) HTTP/1\.1").fullmatch
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class H1(Reader, Writer, asyncio.Protocol):
    """One connection."""

    def __init__(self, front: Front, listener: Listener) -> None:
        self.front = front
        self._config = front.config
        Reader.__init__(self, front)
        Writer.__init__(self)
        self.listener = listener
        self.client: tuple[str, int] | None = None
        self.deadline = NEVER
        self._site = b"" if front.only is None else front.site(listener, front.only, listener.scheme, listener.server)
        self._fresh = True  # nothing was read yet
        self._opening = b""  # but so much that HTTP/2 is possible
        self._rest = b""  # the header lines of the last small request

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
        take_nothing_ahead(transport)
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

    # reading

    def data_received(self, data: bytes) -> None:
        if not self._resting or len(data) > FAMILIAR:
            self._resting = False
            self._receive(data)
            return
        self._resting = False
        line, _, rest = data.partition(b"\r\n")
        headers = self.front.heads.get(rest)
        if headers is None:
            self._receive(data)
            call = self._current
            if call is not None:
                self._remember(call, line, rest)
        else:
            match = REQUEST(line)
            if match is not None and len(line) <= self._max_line and not self.front.draining:
                self._again(match, rest, headers)
            else:
                self._receive(data)

    def _again(self, match: re.Match[bytes], rest: bytes, headers: Headers) -> None:
        """A whole request whose header lines, `rest`, came before."""
        front = self.front
        method, url = match.groups()
        call = RepeatedCall(next(front.ids), self, METHODS[method], url, headers, rest)
        self._current = call
        mount = front.only
        if mount is None:
            if self._route(call):
                self._dispatch(call)
            return
        call.mount = mount
        request = (self._site, call.method, url, rest, self.client, KEEP_ALIVE)
        call.frame = (f.CALL_HTTP, call.id, mount.app, None, request, b"")
        self._submit(call, mount)

    def _remember(self, call: HTTPCall, line: bytes, rest: bytes) -> None:
        """Header lines that a client sends twice in a row are known from then on, to all connections."""
        if rest != self._rest:
            self._rest = rest
        elif (
            call.complete
            and call.flags == KEEP_ALIVE
            and not (call.length or call.chunked or call.expect or call.upgrade or call.forwarded)
            and rest.find(END) == len(rest) - len(END)
            and REQUEST(line) is not None
        ):
            self.front.remember(rest, call.headers)

    def _receive(self, data: bytes) -> None:
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
            if call is self._current and not call.begun and call.mount is not None:
                self.deadline = self.front.now + call.mount.timeout
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
        request = (site, call.method, call.url, call.block or call.headers, client, call.flags)
        call.frame = (f.CALL_HTTP, call.id, mount.app, None, request, body)
        self._submit(call, mount)

    def _submit(self, call: HTTPCall, mount: Mount) -> None:
        front = self.front
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
            if call.complete or not call.streamed:
                self.deadline = front.now + mount.timeout
            else:
                self.deadline = front.now + self._config.body_timeout

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
        self._resting = self._current is None and self._parsing is None and not (
            self._head or self._calls or self._pending or self._lingering
        )  # fmt: skip

    def _read_no_more(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if not self._reading and not self._pending:
            self._reading = True
            self._transport.resume_reading()

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
