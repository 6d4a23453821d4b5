"""Reading requests of HTTP/1.1: httptools' callbacks, and everything that is refused.

httptools parses, strictly. What it lets pass and we do not: other codings than `chunked` (501), no or several `Host`,
other versions, what is too large. `_refusal` says what is wrong with the request that is being read; nothing behind it
is believed.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

import httptools

from ..wire import HTTP10, KEEP_ALIVE
from .call import HTTPCall
from .front import Front
from .proxy import HEADERS as FORWARDED
from .target import SLASH

if TYPE_CHECKING:
    from .h1 import H1

KNOWN: Final = 256  # values of Host that were found good and are remembered
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+;=%]*|\[[0-9A-Fa-fvV:.]+\])(?::[0-9]*)?")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]")
_OTHERS: Final = frozenset(  # of RTSP and ICE, which httptools knows too
    b"DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH SOURCE".split()
)
WHOLE: Final = 16 * 1024  # bytes: smaller bodies are awaited and sent to the worker with the head
METHODS: Final = {name.encode(): name for name in ("GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")}
_SPECIAL: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", *FORWARDED})


class Reader:
    """The reading half of a connection. What becomes of what was read, the other half says."""

    front: Front
    _parser: Any
    _good_hosts: ClassVar[set[bytes]] = set()

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
        """Whether the head that has no end yet is too large."""
        call = self._parsing
        if self._head > self._max_head + self._max_line:
            return True
        known = 0 if call is None else len(call.url) + sum(len(name) + len(value) + 4 for name, value in call.headers)
        return self._head - known > 2 * max(self._max_header, self._max_line)

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
        if len(url) > self._max_line - 20 and len(url) + len(self._parser.get_method()) + 10 > self._max_line:
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
                if value not in self._good_hosts:
                    self._check_host(value)
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
        if len(call.headers) > self._max_headers:
            self._refusal = self._refusal or (431, "the request has too many headers")
        if len(name) + len(value) + 2 > self._max_header:
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
        if self._head > self._max_head or not self._head:  # it came behind another one, in the same read
            self._check_head(call)
        if method not in METHODS:
            self._check_method(method)
        if call.url[0] != SLASH:
            self._check_target(call)
        if b"#" in call.url:
            self._refusal = self._refusal or (400, "the target has a fragment")
        self._head = 0
        if self._refusal is None and (call.chunked or call.length):
            call.streamed = call.chunked or call.expect or (call.length or 0) > WHOLE
            if not call.upgrade:
                self._body_follows(call)

    def _check_host(self, value: bytes) -> None:
        """A name or address, perhaps with a port (RFC 9110, section 7.2)."""
        if _HOST.fullmatch(value) is None:
            self._refusal = self._refusal or (400, "Host is no name or address")
        elif len(self._good_hosts) < KNOWN:
            self._good_hosts.add(value)

    def _check_method(self, method: bytes) -> None:
        if method == b"CONNECT":
            self._refusal = self._refusal or (405, "there is no tunnel here")
        elif method in _OTHERS:
            self._refusal = self._refusal or (501, "that method is not of HTTP")

    def _check_target(self, call: HTTPCall) -> None:
        """Asterisk form is for OPTIONS; absolute form has an authority (RFC 9112, section 3.2)."""
        if call.url == b"*":
            if call.method != "OPTIONS":
                self._refusal = self._refusal or (400, "the target is not valid")
        elif _ABSOLUTE.match(call.url) is None and call.method != "CONNECT":
            self._refusal = self._refusal or (400, "the target is not valid")

    def _check_head(self, call: HTTPCall) -> None:
        """The bytes that were read may hold more than this head: count."""
        size = sum(len(name) + len(value) + 4 for name, value in call.headers)
        if size > self._max_head:
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
    if "version" in str(error) and "Invalid HTTP" in str(error):
        return 505, "HTTP/1.1 is spoken here"
    return 400, f"not a request of HTTP/1.1: {error}"
