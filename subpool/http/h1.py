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
import re
from typing import Any, Final

import httptools

from ..channels import frames as f
from ..types import Headers
from ..wire import HTTP10, KEEP_ALIVE, simple
from .call import HTTPCall, RepeatedCall
from .front import NEVER, Front, Listener
from .h1_reader import METHODS, Reader, status_of
from .h1_requests import Requests
from .h1_writer import Writer, joins, take_nothing_ahead

FRAMING: Final = 64 * 1024  # bytes of chunk sizes, extensions and trailers that a small body may have
SLICE: Final = 64 * 1024  # bytes given to the parser at once
FAMILIAR: Final = 4096  # bytes of a request whose header lines are remembered
FRESH: Final = 0.5  # seconds that a connection without a request has when the server ends
END: Final = b"\r\n\r\n"
REQUEST: Final = re.compile(rb"(GET|POST|HEAD|PUT|DELETE|PATCH|OPTIONS) (/[!-\"$-~]*) HTTP/1\.1").fullmatch
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class H1(Requests, asyncio.Protocol):
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
        self._joins = joins(transport)
        self.deadline = self.front.now + self._config.head_timeout
        if self.front.draining:
            self.drain()

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
        self._fresh = False
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
        call.frame = (f.CALL_HTTP, call.id, mount.app, mount.namespace, request, b"")
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
        view = memoryview(data)
        for at in range(0, len(data), SLICE):  # what a client sends ahead is not to be parsed far ahead
            current = self._current
            if self._transport.is_closing():
                return
            if current is not None and current.complete:
                self._hold(data[at:])
                return
            self._parse(view[at : at + SLICE])

    def _hold(self, data: bytes) -> None:
        """Bytes behind a request that is not answered yet: kept, and no more are read."""
        self._pending += data
        self._read_no_more()

    def _parse(self, data: bytes | memoryview) -> None:
        call = self._parsing
        size = 0
        if call is None or not call.headers_complete:
            self._head += len(data)
        else:
            size = call.size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(bytes(data[upgrade.args[0] :]))
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

    # the front

    def idle(self) -> bool:
        return self._current is None

    def drain(self) -> None:
        call = self._current
        if self._fresh and call is None and not self._lingering:  # its request may be on its way
            self.deadline = min(self.deadline, self.front.now + FRESH)
        elif call is None and (self._parsing is None or self._lingering):
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
