"""Header lists of HTTP/2 (RFC 9113, section 8): what a request says, what a response may say. No I/O.

Two kinds of refusal: `Malformed` is answered with RST_STREAM, `Refused` with a response of our own.

Clients repeat themselves: what differs between requests is the path, seldom the rest. Lists that were found good are
remembered without it (`Familiar`), and their workers are sent lines, which they remember likewise (`worker.http.Site`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from ..types import Headers
from ..wire2 import fields
from .proxy import HEADERS as FORWARDED

if TYPE_CHECKING:
    from .config import ServerConfig

HEADS: Final = 256  # header lists of requests that are remembered
SMALL: Final = 4096  # bytes of such a list
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_AUTHORITY: Final = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:\[\]%]+")
_TARGET: Final = re.compile(rb"/[!\x24-\x7e\x22\x80-\xff]*")  # origin form: no space, no control, no "#"
_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_CONNECTION: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_PLAIN: Final = [(b"content-type", b"text/plain; charset=utf-8")]


class Malformed(Exception):
    """No request of HTTP/2 (RFC 9113, section 8.1.1)."""


class Refused(Exception):
    """A request that gets `status` from us."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class Request:
    """What the header list of a request says."""

    __slots__ = ("block", "expect", "forwarded", "headers", "length", "method", "protocol", "room", "target")

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.protocol: bytes | None = None  # of an extended CONNECT (RFC 8441)
        self.headers: Headers = []  # as in an ASGI scope: `host` first, one `cookie`
        self.length: int | None = None
        self.expect = False  # the client waits for 100 Continue
        self.forwarded = False  # there are headers of a proxy
        self.block: bytes | None = None  # `headers` as lines, of a request whose headers came before
        self.room = 0  # bytes that the target may have

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target!r:.60}>"

    def again(self, target: bytes) -> Request:
        """The same with another target. Both have the same list of headers: it is replaced, never changed."""
        if self.block is None:
            self.block = b"".join([b"%b: %b\r\n" % pair for pair in self.headers]) + b"\r\n"
        request = object.__new__(Request)
        request.method = self.method
        request.target = target
        request.protocol = self.protocol
        request.headers = self.headers
        request.length = self.length
        request.expect = self.expect
        request.forwarded = self.forwarded
        request.block = self.block
        return request


class Familiar:
    """Requests that were found good, by their header lists without the path."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Request] = {}

    def __repr__(self) -> str:
        return f"<Familiar with {len(self._known)} header lists>"

    def find(self, pairs: Iterable[Any]) -> Request | None:
        """What `parse` would make of `pairs`, if all but the path is known."""
        key, target = _without_path(pairs)
        known = self._known.get(key)
        if known is None or len(target) > known.room or not _TARGET.fullmatch(target):
            return None
        return known.again(target)

    def learn(self, pairs: Iterable[Any], request: Request) -> None:
        """`parse` has made that of `pairs`."""
        if request.protocol is None and sum(len(name) + len(value) for name, value in request.headers) <= SMALL:
            if len(self._known) >= HEADS:
                self._known.clear()
            self._known[_without_path(pairs)[0]] = request


def _without_path(pairs: Iterable[Any]) -> tuple[tuple[Any, ...], bytes]:
    """A header list with a mark in place of the path, and the path."""
    target = b""
    key: list[Any] = []
    for pair in pairs:
        if pair[0] == b":path":
            target = pair[1]
            key.append(None)
        else:
            key.append(pair)
    return tuple(key), target


def parse(pairs: Iterable[Any], request: Request, config: ServerConfig) -> None:
    """Fill `request` in. `Malformed`; `Refused` with 400, 405, 414 or 431."""
    pseudo: dict[bytes, bytes] = {}
    headers = request.headers
    hosts: list[bytes] = []
    cookies: list[bytes] = []
    count = size = largest = 0
    for name, value in pairs:
        count += 1
        both = len(name) + len(value)
        size += both
        largest = max(largest, both if name != b":path" else 0)
        if name[:1] == b":":
            if count > len(pseudo) + 1 or name in pseudo or name not in _PSEUDO or not _VALUE.fullmatch(value):
                raise Malformed(f"the pseudo-header {name[:60]!r} is unknown, twice, behind a header, or not valid")
            pseudo[name] = value
            continue
        check(name, value)
        if name == b"host":
            hosts.append(value)
            continue
        if name == b"cookie":
            cookies.append(value)
            continue
        if name == b"content-length":
            if request.length is not None:
                continue  # the same again: the library refuses others
            request.length = int(value)
        elif name == b"expect":
            request.expect = value.lower() == b"100-continue"
        elif name in FORWARDED:
            request.forwarded = True
        headers.append((name, value))
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))  # section 8.2.3
    _control(pseudo, request)
    request.method = pseudo[b":method"].decode()
    request.target = pseudo.get(b":path", b"")
    if len(request.target) > config.max_request_line:
        raise Refused(414, "the target of the request is too long")
    if largest > config.max_header or size > config.max_headers_size or count - len(pseudo) > config.max_headers:
        raise Refused(431, "the headers of the request are too large")
    host = _host(pseudo.get(b":authority"), hosts)
    if request.method == "CONNECT" and request.protocol is None:
        raise Refused(405, "there is no tunnel here")
    if not _TARGET.fullmatch(request.target) and not (request.target == b"*" and request.method == "OPTIONS"):
        raise Refused(400, "the target is not valid")
    headers.insert(0, (b"host", host))
    request.room = min(config.max_request_line, config.max_headers_size - size + len(request.target))


def _control(pseudo: dict[bytes, bytes], request: Request) -> None:
    """Whether the pseudo-headers are those that there must be (section 8.3.1; RFC 8441, section 4)."""
    method = pseudo.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise Malformed("there is no :method")
    request.protocol = pseudo.get(b":protocol")
    target = b":scheme" in pseudo and bool(pseudo.get(b":path"))
    if method == b"CONNECT" and request.protocol is None:
        if b":scheme" in pseudo or b":path" in pseudo or b":authority" not in pseudo:
            raise Malformed("CONNECT has an :authority and nothing else")
    elif not target or (request.protocol is not None and method != b"CONNECT"):
        raise Malformed("a request has :method, :scheme and :path")


def _host(authority: bytes | None, hosts: list[bytes]) -> bytes:
    """The authority, which Host may only repeat."""
    if authority is not None:
        hosts.append(authority)
    if not hosts:
        raise Refused(400, "a request has one authority")
    host = hosts[0]
    if any(other.lower() != host.lower() for other in hosts):
        raise Refused(400, "a request has one authority")
    if host and not _AUTHORITY.fullmatch(host):
        raise Refused(400, "the authority is not valid")
    return host


def check(name: bytes, value: bytes) -> None:
    """`Malformed` if the header, or trailer, may not be in HTTP/2 (sections 8.2.1 and 8.2.2)."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise Malformed(f"the header {name[:60]!r} is not valid")
    if name in _CONNECTION or (name == b"te" and value.lower() != b"trailers"):
        raise Malformed(f"the header {name!r} is not for HTTP/2")


def plain(status: int, text: str, more: Headers, server: bytes) -> tuple[Headers, bytes]:
    """A whole answer of the server itself, in plain text: its header list and its body."""
    body = text.encode() + b"\n"
    return fields([*_PLAIN, *more]).head(status, len(body), True, server), body
