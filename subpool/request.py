"""What hooks of requests are given: a request as its app will see it, and how its response begins.

What is set is checked where it is set, so that a mistake is the hook's own error. Lists of headers, which may be
changed in any way, are checked behind the hooks. Framing is the server's: `content-length`, `transfer-encoding` and
what is about the connection stay what they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_to_bytes

from .channels.exchange import check_headers, check_status
from .types import Headers, Response

PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")
BODILESS: Final = frozenset({204, 304})
_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})
FRAMING: Final = _BODY | {b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"trailer"}
KEYS: Final = 256  # names of headers that are remembered
_keys: dict[str, bytes] = {}
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_RAW_PATH: Final = re.compile(rb"/[!\x24-\x3e\x40-\x7e\x22\x80-\xff]*")  # no space, no control, no "#" or "?"
_PATH: Final = re.compile(r"/.*", re.DOTALL)
_QUERY: Final = re.compile(rb"[!\x24-\x7e\x22\x80-\xff]*")


def _matched[T: (str, bytes)](value: object, kind: type[T], pattern: re.Pattern[T], name: str, must: str) -> T:
    """`value`, if it is of that kind and form."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r:.60}, which is no {kind.__name__}")
    if not pattern.fullmatch(value):
        raise ValueError(f"{name} is {value!r:.60}; {must}")
    return kind(value)


class _Fields:
    """What has headers: pairs of bytes in `headers`, names in lower case."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def headers(self) -> Headers: ...

        @headers.setter
        def headers(self, value: Headers) -> None: ...

    def get(self, name: str) -> str | None:
        """The first value of a header, as latin-1; None if there is none."""
        wanted = _keys.get(name) or _key(name)
        for other, value in self._read():
            if other == wanted:
                return value.decode("latin-1")
        return None

    def _read(self) -> Headers:
        return self.headers

    def set(self, name: str, value: str | bytes) -> None:
        """Set a header, in place of all of that name. `ValueError` for CR, LF, NUL, or a name that is none."""
        key, data = _keys.get(name) or _key(name), _data(name, value)
        self.headers = [*[pair for pair in self.headers if pair[0] != key], (key, data)]

    def add(self, name: str, value: str | bytes) -> None:
        """Add a header beside those of the same name: one more `set-cookie`, say."""
        self.headers = [*self.headers, (_keys.get(name) or _key(name), _data(name, value))]

    def remove(self, name: str) -> None:
        """Take away all headers of that name."""
        key = _keys.get(name) or _key(name)
        self.headers = [pair for pair in self.headers if pair[0] != key]


class Request(_Fields):
    """A request, as its app will see it. What is changed here reaches the app; what cannot be is read-only.

    `type`: "http" or "websocket". `id`: the number that the log has. `http_version`: "1.0", "1.1" or "2". `mount`: the
    prefix that it came in by, None before that is known. `context`: a dict for the hooks of this request themselves.
    """

    __slots__ = (
        "_client",
        "_headers",
        "_method",
        "_query",
        "_raw_path",
        "_scheme",
        "_target",
        "context",
        "given",
        "http_version",
        "id",
        "mount",
        "type",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        method: str,
        target: bytes,
        headers: Headers,
        client: tuple[str, int] | None,
        scheme: str,
        http_version: str,
        kind: str = "http",
    ) -> None:
        """`headers` may be shared with others: they are copied when they are changed."""
        self.id = number
        self.type = kind
        self.http_version = http_version
        self.mount: str | None = None
        self.context: dict[str, Any] = {}
        self._method = method
        self._target = target
        self._raw_path: bytes | None = None
        self._query: bytes | None = None
        self.given = headers
        self._headers: Headers | None = None
        self._client = client
        self._scheme = scheme

    def __repr__(self) -> str:
        return f"<Request {self.id} {self._method} {self.target!r:.60}>"

    @property
    def method(self) -> str:
        return self._method

    @method.setter
    def method(self, value: str) -> None:
        value = _matched(value, str, _METHOD, "method", "it must be a token, as 'PUT'")
        if value != self._method and (self.type != "http" or "HEAD" in (value, self._method)):
            raise ValueError(f"the method {self._method} cannot become {value}: its response has another form")
        self._method = value

    @property
    def moved(self) -> bool:
        """Whether path or query were set."""
        return self._raw_path is not None or self._query is not None

    @property
    def target(self) -> bytes:
        """Path and query, as in a request line."""
        if self._raw_path is None and self._query is None:
            return self._target
        query = self.query_string
        return self.raw_path + b"?" + query if query else self.raw_path

    @property
    def raw_path(self) -> bytes:
        """The path, percent-encoded."""
        return self._target.partition(b"?")[0] if self._raw_path is None else self._raw_path

    @raw_path.setter
    def raw_path(self, value: bytes) -> None:
        self._raw_path = _matched(value, bytes, _RAW_PATH, "raw_path", "it must be a percent-encoded path, from '/' on")

    @property
    def path(self) -> str:
        """The path, decoded, the mount's prefix included."""
        return unquote_to_bytes(self.raw_path).decode("utf-8", "replace")

    @path.setter
    def path(self, value: str) -> None:
        value = _matched(value, str, _PATH, "path", "it must begin with '/'")
        self._raw_path = quote(value, safe="/:@!$&'()*+,;=~").encode()

    @property
    def query_string(self) -> bytes:
        """The query, percent-encoded, without "?"."""
        return self._target.partition(b"?")[2] if self._query is None else self._query

    @query_string.setter
    def query_string(self, value: bytes) -> None:
        self._query = _matched(value, bytes, _QUERY, "query_string", "it must be percent-encoded, without a '?'")

    @property
    def headers(self) -> Headers:
        """A list of its own: change it in any way."""
        if self._headers is None:
            self._headers = list(self.given)
        return self._headers

    @headers.setter
    def headers(self, value: Headers) -> None:
        self._headers = value

    def _read(self) -> Headers:
        return self.given if self._headers is None else self._headers

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of who asks, as trusted proxies say; None over a unix socket."""
        return self._client

    @client.setter
    def client(self, value: tuple[str, int] | None) -> None:
        if value is not None:
            given: Any = value
            if type(given) is not tuple or list(map(type, given)) != [str, int]:
                raise TypeError(f"client is {given!r:.60}; it must be a tuple (str, int), or None")
        self._client = value

    @property
    def scheme(self) -> str:
        """ "http" or "https"; "ws" or "wss"."""
        return self._scheme

    @scheme.setter
    def scheme(self, value: str) -> None:
        if value not in (("http", "https") if self.type == "http" else ("ws", "wss")):
            raise ValueError(f"scheme is {value!r:.60}, which is none of {self.type}")
        self._scheme = value

    # behind the hooks

    def changed(self) -> Headers | None:
        """The headers, if hooks have changed them, checked; None if not. What frames the body stays as it was."""
        if self._headers is None or self._headers == self.given:
            return None
        found = check_headers(self._headers)[0]
        kept = [pair for pair in self.given if pair[0] in _BODY]
        return [(name.lower(), value) for name, value in found if name.lower() not in _BODY] + kept


class ResponseHead(_Fields):
    """How a response begins. `status` may be any final one; what `headers` say of framing stays what it is."""

    __slots__ = ("_framing", "_status", "_was", "given", "headers")

    def __init__(self, status: int, headers: Headers) -> None:
        self._status = self._was = status
        self.given = headers
        self._framing = [pair for pair in headers if pair[0] in FRAMING]
        self.headers = list(headers)

    def __repr__(self) -> str:
        return f"<ResponseHead {self._status} {self.headers!r:.60}>"

    @property
    def status(self) -> int:
        return self._status

    @status.setter
    def status(self, value: int) -> None:
        if check_status(value) < 200:
            raise ValueError(f"status is {value}; a response that is changed has a final one, 200 to 599")
        self._status = int(value)

    @property
    def unchanged(self) -> bool:
        return self._status == self._was and self.headers == self.given

    @property
    def drops(self) -> bool:
        """Whether the new status has no body, as the old one had."""
        return self._status in BODILESS and self._was not in BODILESS

    def checked(self, *, head: bool) -> Headers:
        """The headers as they go out. `head`: of an answer to HEAD."""
        found = [(name.lower(), value) for name, value in check_headers(self.headers)[0]]
        framing = self._framing
        if self._status in BODILESS and self._was not in BODILESS:
            framing = [pair for pair in framing if pair[0] not in _BODY]
        elif self._was in BODILESS and self._status not in BODILESS and not head:
            framing = [*(pair for pair in framing if pair[0] not in _BODY), (b"content-length", b"0")]
        return [pair for pair in found if pair[0] not in FRAMING] + framing


def page(status: int, text: str, more: Headers | None = None) -> Response:
    """An answer of the server's own, in plain text."""
    return Response(status, [PLAIN, *(more or [])], text.encode() + b"\n" if text else b"")


def _key(name: str) -> bytes:
    """A name as headers have it. Those that were found good are remembered."""
    key = name.lower().encode("latin-1")
    check_headers([(key, b"0")])
    if len(_keys) < KEYS:
        _keys[name] = key
    return key


def _data(name: str, value: str | bytes) -> bytes:
    data: Any = value.encode("latin-1") if isinstance(value, str) else value
    if not isinstance(data, bytes) or b"\r" in data or b"\n" in data or b"\0" in data:
        raise ValueError(f"the header {name!r} is {data!r:.60}; it must be text or bytes, without CR, LF and NUL")
    return bytes(data)
