"""The WSGI runner: calls an app as PEP 3333 says, whole (`run_wsgi`) or piece by piece (`serve_wsgi`).

Rules, all held by one class, `Response`:

- Status and headers leave at the first non-empty body byte, or at the end: until then `start_response` with
  `exc_info` may replace them. Afterwards it raises what `exc_info` holds.
- What `write()` got goes first. Each piece the application yields leaves before the next is asked for.
- `close()` of the returned iterable is called exactly once, whatever happens. If it fails while another error
  is on its way, that other error wins and the failure is logged.
- HEAD, 204 and 304 send no body. More or fewer bytes than `Content-Length` are an error of the application; but a file
  in `wsgi.file_wrapper` may be longer: it is sent from its position up to that length, by the kernel or copied.
- A mistake of the application raises TypeError (a wrong type), ValueError (a wrong value) or RuntimeError (a
  wrong order of steps), in the application where it can be.

The common case, `start_response` once and a list of one bytes, makes one Response and one copy of the header
list.
"""

from __future__ import annotations

import logging
import os
import re
import stat

from subpool.wsgi_io import FileWrapper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    type ExcInfo = tuple[type[BaseException], BaseException, object] | tuple[None, None, None]
    type Write = Callable[[bytes], None]
    type Headers = list[tuple[str, str]]

    class Sink(Protocol):
        """Where `serve_wsgi` sends an answer. Both methods raise OSError when the client has gone."""

        def start(self, status: str, headers: list[tuple[str, str]], /) -> object:
            """Send the status line ("200 OK") and the headers; called at most once, before any body."""

        def write(self, data: bytes, /) -> object:
            """Send a non-empty piece of the body; waits while the client reads slowly."""

        def whole(self, status: str, headers: list[tuple[str, str]], body: bytes, /) -> object:
            """In place of `start` and `write`: all at once."""

        def file(self, status: str, headers: list[tuple[str, str]], fd: int, offset: int, count: int, /) -> bool:
            """The same with a part of a file as the body; the descriptor stays the caller's. False: not possible."""


__all__ = ["FileWrapper", "Response", "check_headers", "run_wsgi", "serve_wsgi"]

_log = logging.getLogger("subpool.wsgi")

_STATUS = re.compile(r"[2-5][0-9]{2} [\t\x20-\x7e\x80-\xff]*", re.ASCII)
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*", re.ASCII)
# RFC 2616 section 13.5.1, which PEP 3333 ("Other HTTP Features") names.
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailers", "transfer-encoding", "upgrade"),
    }
)
_CACHE_LIMIT = 512  # entries of each cache: an application that makes up names cannot grow them further
_statuses: dict[str, int] = {}  # checked status lines -> code
_names: dict[str, bool] = {}  # checked header names -> is it Content-Length?
_checked: dict[tuple[tuple[str, str], ...], tuple[tuple[tuple[str, str], ...], int | None]] = {}  # whole lists


def run_wsgi(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], bytes]:
    """Call `app` with a complete `environ` and return its whole answer: (status, headers, body).

    The default handler, which custom runners call. Raises whatever the application raises, and TypeError,
    ValueError or RuntimeError where it breaks PEP 3333.
    """
    response = Response(None, environ.get("REQUEST_METHOD") == "HEAD")
    result = app(environ, response.start_response)
    if type(result) is list and len(result) == 1 and response.sink is None:
        body = result[0]
        status = response.status
        if type(body) is bytes and status is not None and not response.bodiless:
            left = response.left
            if left is None or left == len(body):
                return status, response.headers, body
    response.drain(result)
    buffer = response.sink
    assert isinstance(buffer, _Buffer)
    return buffer.status, buffer.headers, b"".join(buffer.chunks)


def serve_wsgi(app: WSGIApplication, environ: WSGIEnvironment, sink: Sink) -> None:
    """Call `app` with a complete `environ` and send its answer to `sink` as it comes.

    Returns when the answer is whole. Raises what `run_wsgi` raises, and what `sink` raises (OSError when the
    client has gone). After an error the caller looks at its sink: not started means an error page can be
    sent, started means the connection must be aborted.
    """
    response = Response(sink, environ.get("REQUEST_METHOD") == "HEAD")
    result = app(environ, response.start_response)
    if type(result) is list and len(result) == 1 and not response.sent and not response.bodiless:
        body = result[0]
        if type(body) is bytes and response.status is not None and response.left in (None, len(body)):
            response.sent = response.ended = True
            sink.whole(response.status, response.headers, body)
            return
    if type(result) is FileWrapper and _send_file(response, result, sink):
        return
    response.drain(result)


def _send_file(response: Response, result: FileWrapper, sink: Sink) -> bool:
    """Have a real file sent by the kernel (PEP 3333, "Optional Platform-Specific File Handling"). False: it is none."""
    if response.status is None or response.sent or response.bodiless:
        return False
    try:
        fd = result.filelike.fileno()
        offset = result.filelike.tell()
        found = os.fstat(fd)
    except (AttributeError, OSError, ValueError):
        return False
    count = found.st_size - offset
    if not stat.S_ISREG(found.st_mode) or (response.left is not None and response.left > count):
        return False
    if response.left is not None:
        count = response.left
    if count <= 0 or not sink.file(response.status, response.headers, fd, offset, count):
        return False
    response.sent = response.ended = True
    if (close := getattr(result, "close", None)) is not None:
        close()
    return True


class _Buffer:
    """A sink that keeps the answer."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.write = self.chunks.append

    def start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status = status
        self.headers = headers

    def whole(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.start(status, headers)
        self.write(body)

    def file(self, status: str, headers: list[tuple[str, str]], fd: int, offset: int, count: int) -> bool:
        return False


class Response:
    """One answer on its way from an application to a sink (None: a buffer, made when it is needed)."""

    # Defaults live on the class: an instance stores only what differs.
    status: str | None = None  # as the application gave it; None until start_response
    headers: Headers
    left: int | None = None  # bytes that Content-Length still allows; None without one
    sent = False  # have status and headers left?
    ended = False

    def __init__(self, sink: Sink | None, head: bool) -> None:
        """`head`: the request's method is HEAD, so that no body is sent whatever the application makes."""
        self.sink = sink
        self.head = self.bodiless = head

    def __repr__(self) -> str:
        state = "ended" if self.ended else "sent" if self.sent else "waiting"
        return f"<Response {self.status!r} {state}>"

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        """PEP 3333 `start_response`: check and keep status and headers; returns `write`."""
        if self.status is not None:
            self._restart(exc_info)
        code = _statuses.get(status) if type(status) is str else None
        if code is None:
            code = _check_status(status)
        self.headers, self.left = check_headers(headers)
        self.status = status
        self.bodiless = self.head or code == 204 or code == 304
        return self.write

    def write(self, data: bytes) -> None:
        """The callable of PEP 3333: send `data` at once."""
        if self.ended:
            raise RuntimeError("the WSGI application called write() after its response had ended")
        if type(data) is not bytes:
            data = _check_chunk(data, "write()")
        if data:
            self._send(data)

    def drain(self, result: Iterable[bytes]) -> None:
        """Send what the application returned, end the answer, and close `result` exactly once."""
        try:
            if result is None:
                raise TypeError("the WSGI application returned None, not an iterable of bytes")
            for chunk in result if type(result) is not FileWrapper else self._read(result):
                if type(chunk) is not bytes:
                    chunk = _check_chunk(chunk, "the response body")  # noqa: PLW2901  # same piece, exact type
                if chunk:
                    self._send(chunk)
                    if self.bodiless:
                        break  # nothing more can leave, and the body may never end
            self._finish()
        except BaseException:
            self.ended = True
            try:
                if (close := getattr(result, "close", None)) is not None:
                    close()
            except Exception:  # noqa: BLE001  # the first error is the one to tell
                _log.exception("close() of the WSGI response failed after another error")
            raise
        self.ended = True
        if (close := getattr(result, "close", None)) is not None:
            close()

    def _read(self, file: FileWrapper) -> Iterator[bytes]:
        """The blocks of a file, no more than Content-Length allows (PEP 3333, "Optional Platform-Specific File
        Handling")."""
        for block in file:
            yield block if self.left is None else block[: self.left]
            if self.left == 0:
                break

    def _send(self, data: bytes) -> None:
        if self.status is None:
            raise RuntimeError("the WSGI application sent a body before it called start_response")
        if not self.bodiless:
            left = self.left
            if left is not None:
                left = self.left = left - len(data)
                if left < 0:
                    raise RuntimeError(f"the WSGI application sent {-left} bytes over its Content-Length")
            if not self.sent:
                self._begin(self.status)
            self.sink.write(data)  # type: ignore[union-attr]  # _begin made one
        elif not self.sent:
            self._begin(self.status)

    def _begin(self, status: str) -> None:
        self.sent = True
        sink = self.sink
        if sink is None:
            sink = self.sink = _Buffer()
        sink.start(status, self.headers)

    def _finish(self) -> None:
        status = self.status
        if status is None:
            raise RuntimeError("the WSGI application did not call start_response")
        if self.left and not self.bodiless:
            raise RuntimeError(f"the WSGI application sent {self.left} bytes fewer than its Content-Length")
        if not self.sent:
            self._begin(status)

    def _restart(self, exc_info: ExcInfo | None) -> None:
        """A second start_response: allowed with exc_info, as long as nothing has left."""
        error = exc_info[1] if exc_info else None
        if error is None:
            raise RuntimeError("the WSGI application called start_response twice without exc_info")
        if self.sent:
            try:
                raise error
            finally:
                exc_info = error = None  # PEP 3333: no circular reference through the traceback


def check_headers(headers: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], int | None]:
    """Check an application's header list; returns a copy of it and its Content-Length in bytes, or None.

    Raises TypeError for anything but a list of (str, str) tuples, ValueError for a bad name (RFC 9110 section
    5.6.2), a control character or a character outside latin-1 in a value, a hop-by-hop header, and a wrong or
    second Content-Length. For `wsgi.early_hints` too.
    """
    if not isinstance(headers, list):
        raise TypeError(f"WSGI response headers must be a list, not {type(headers).__name__}")
    try:
        known = tuple(headers)
        found = _checked.get(known)
    except TypeError:  # not hashable: told below
        known, found = (), None
    if found is not None:
        return list(found[0]), found[1]
    length: int | None = None
    for item in headers:
        if type(item) is not tuple or len(item) != 2:
            raise TypeError(f"a WSGI response header must be a tuple of two str, not {item!r:.80}")
        name, value = item
        if type(name) is not str or type(value) is not str:
            return check_headers([_exact(pair) for pair in headers])
        is_length = _names.get(name)
        if is_length is None:
            is_length = _check_name(name)
        if (not value.isascii() or not value.isprintable()) and _VALUE.fullmatch(value) is None:
            raise ValueError(f"forbidden character in the WSGI response header {name!r}: {value!r:.80}")
        if is_length:
            if length is not None:
                raise ValueError("the WSGI application gave a second Content-Length header")
            if not value.isascii() or not value.isdigit():
                raise ValueError(f"Content-Length of the WSGI response is not a number: {value!r:.80}")
            length = int(value)
    if len(_checked) >= _CACHE_LIMIT:
        _checked.clear()
    _checked[known] = known, length
    return headers.copy(), length


def _exact(item: object) -> tuple[str, str]:
    """A header with parts of exactly str: a subclass (a lazy or "safe" string) does not travel."""
    if not isinstance(item, tuple) or len(item) != 2 or not all(isinstance(part, str) for part in item):
        raise TypeError(f"a WSGI response header must be a tuple of two str, not {item!r:.80}")
    return str.__str__(item[0]), str.__str__(item[1])


def _check_name(name: str) -> bool:
    """Check a header name and remember it; tells whether it is Content-Length."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"bad name of a WSGI response header: {name!r:.80}")
    lower = name.lower()
    if lower in _HOP_BY_HOP:
        raise ValueError(f"a WSGI application must not set the hop-by-hop header {name!r}")
    is_length = lower == "content-length"
    if len(_names) < _CACHE_LIMIT:
        _names[name] = is_length
    return is_length


def _check_status(status: str) -> int:
    """Check a status line ("200 OK") and remember it; returns its code."""
    if type(status) is not str:
        raise TypeError(f"a WSGI status must be a str such as '200 OK', not {type(status).__name__}")
    if _STATUS.fullmatch(status) is None:
        raise ValueError(f"a WSGI status must be a code from 200 to 599, a space and a reason: {status!r:.80}")
    code = int(status[:3])
    if len(_statuses) < _CACHE_LIMIT:
        _statuses[status] = code
    return code


def _check_chunk(chunk: object, where: str) -> bytes:
    """The slow way of a piece of the body that is not exactly bytes."""
    if isinstance(chunk, bytes):
        return bytes(chunk)
    hint = " (return a list of bytes, not bytes)" if isinstance(chunk, int) else ""
    raise TypeError(f"{where} of the WSGI application takes bytes, not {type(chunk).__name__}{hint}")
