"""Reading requests of HTTP/1.1: httptools' callbacks, and everything that is refused.

httptools parses, strictly. What it lets pass and we do not: other codings than `chunked` (501), no or several `Host`,
other versions, what is too large. `_refusal` says what is wrong with the request that is being read; nothing behind it
is believed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import httptools

from ..wire import HTTP10, KEEP_ALIVE
from .call import HTTPCall
from .front import Front
from .proxy import HEADERS as FORWARDED

if TYPE_CHECKING:
    from .h1 import H1

WHOLE: Final = 16 * 1024  # bytes: smaller bodies are awaited and sent to the worker with the head
METHODS: Final = {name.encode(): name for name in ("GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")}
_SPECIAL: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", *FORWARDED})


class Reader:
    """The reading half of a connection. What becomes of what was read, the other half says."""

    front: Front
    _parser: Any

    def __init__(self, front: Front) -> None:
        config = front.config
        self._max_line, self._max_header = config.max_request_line, config.max_header
        self._max_headers, self._max_head = config.max_headers, config.max_headers_size
        self._parser = httptools.HttpRequestParser(self)
        self._parsing: HTTPCall | None = None  # the request that is being read
        self._calls: deque[HTTPCall] = deque()  # whole or not, behind the one that is being answered
        self._head = 0  # bytes of the head that is being read
        self._refusal: tuple[int, str] | None = None

    def _connection(self) -> H1:
        raise NotImplementedError

    def _body_follows(self, call: HTTPCall) -> None:
        """The head of a request with a body is here."""
        raise NotImplementedError

    def _piece(self, call: HTTPCall) -> None:
        """A piece of its body has come, into `call.parts`."""
        raise NotImplementedError

    def _request_over(self, call: HTTPCall) -> None:
        """The whole request is here."""
        raise NotImplementedError

    def _too_long(self) -> bool:
        return self._head > self._max_head + self._max_line

    # httptools

    def on_url(self, url: bytes) -> None:
        """The first of a request that there is a callback for."""
        call = self._parsing
        if call is None:
            self._parsing = HTTPCall(next(self.front.ids), self._connection(), url)
            self._calls.append(self._parsing)
        elif call.headers_complete:
            return  # see `resume_body`
        else:
            url = call.url = call.url + url
        if len(url) > self._max_line:
            self._refusal = self._refusal or (414, "the target of the request is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        call = self._parsing
        if call is None or call.headers_complete:  # trailers of a body: dropped (RFC 9110, section 6.5.1)
            return
        name = name.lower()
        if value[-1:] in (b" ", b"\t"):
            value = value.rstrip(b" \t")
        call.headers.append((name, value))
        if name in _SPECIAL:
            if name == b"host":
                call.hosts += 1
            elif name == b"content-length":
                call.length = int(value)
            elif name == b"transfer-encoding":
                call.chunked = True
                if value.lower() != b"chunked":
                    self._refusal = self._refusal or (501, "only the transfer coding 'chunked' is known")
            elif name == b"expect":
                call.expect = value.lower() == b"100-continue"
            else:
                call.forwarded = True
        if len(name) + len(value) > self._max_header:
            self._refusal = self._refusal or (431, f"the header {name[:60].decode('latin-1')!r} is too large")

    def on_headers_complete(self) -> None:
        call = self._parsing
        if call is None or call.headers_complete:
            return
        call.headers_complete = True
        parser = self._parser
        if parser.should_upgrade():
            call.upgrade = True
        method = parser.get_method()
        call.method = METHODS.get(method) or method.decode()
        version = parser.get_http_version()
        if version == "1.1":
            if call.hosts != 1:
                self._refusal = self._refusal or (400, "a request of HTTP/1.1 has one Host")
        elif version == "1.0":
            call.flags = HTTP10
            call.expect = False
            if call.hosts > 1 or call.chunked:
                self._refusal = self._refusal or (400, "not a request of HTTP/1.0")
        else:
            self._refusal = self._refusal or (505, "HTTP/1.1 is spoken here")
        if parser.should_keep_alive() and not self.front.draining:
            call.flags |= KEEP_ALIVE
        if len(call.headers) > self._max_headers or self._head > self._max_head:
            self._check_head(call)
        if method == b"CONNECT":
            self._refusal = self._refusal or (405, "there is no tunnel here")
        self._head = 0
        if self._refusal is None and (call.chunked or call.length):
            call.streamed = call.chunked or call.expect or (call.length or 0) > WHOLE
            if not call.upgrade:
                self._body_follows(call)

    def _check_head(self, call: HTTPCall) -> None:
        """The bytes that were read may hold more than this head: count."""
        size = sum(len(name) + len(value) + 4 for name, value in call.headers)
        if len(call.headers) > self._max_headers or size > self._max_head:
            self._refusal = self._refusal or (431, "the head of the request is too large")

    def on_body(self, body: bytes) -> None:
        call = self._parsing
        if call is None or self._refusal is not None:
            return
        call.size += len(body)
        if call.mount is not None and call.size > call.mount.max_body:
            self._refusal = (413, "the body of the request is too large")
            return
        call.parts.append(body)
        call.held += len(body)
        self._piece(call)

    def on_message_complete(self) -> None:
        call = self._parsing
        if call is None or self._refusal is not None or call.upgrade:
            return
        self._parsing = None
        call.complete = True
        self._request_over(call)


    def resume_body(self, call: HTTPCall) -> None:
        """Read on in a request whose upgrade is ignored (RFC 9110, section 7.8): a new parser reads its body, which
        gets a head that says no more than how long the body is."""
        call.upgrade = False
        self._parsing = call
        self._parser = httptools.HttpRequestParser(self)
        length = b"transfer-encoding: chunked" if call.chunked else b"content-length: %d" % (call.length or 0)
        self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: _\r\n" + length + b"\r\n\r\n")


def status_of(error: Exception) -> tuple[int, str]:
    """What to answer for what httptools raised."""
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return 400, "the method is not known"
    if isinstance(error, httptools.HttpParserInvalidURLError):
        return 400, "the target is not valid"
    return 400, f"not a request of HTTP/1.1: {error}"
