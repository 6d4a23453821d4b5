"""A worker's side of HTTP: from the request as the front parsed it to the response as it goes onto the wire.

The front sends what it has without making anything of it (`Request`); the scope or environ is built here, and here the
response is checked and serialised (`h1`, `h2`). Every call ends with a frame that says DONE, with END, or with ERROR.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..environ import add_headers, complete, from_scope, ignore_hints
from ..types import Headers
from ..wire import HTTP2, HTTP10
from ..wsgi_io import ErrorStream, make_input
from .apps import App
from .h1 import H1Port
from .h1_wsgi import H1SyncPort
from .h2 import H2Port, H2SyncPort
from .interrupt import resume
from .wsgi import Serving

if TYPE_CHECKING:
    from .worker import Worker

SITES: Final = 64
HEADS: Final = 256  # blocks of header lines that a site remembers
SCOPE: Final = (
    *("type", "asgi", "http_version", "server", "client", "scheme", "method", "root_path", "path", "raw_path"),
    *("query_string", "headers", "state", "extensions"),
)


class Request(NamedTuple):
    """A request as the front parsed it; a plain tuple on its way."""

    site: bytes  # what all requests of a listener and mount have in common, marshalled: see `Site`
    method: str
    target: bytes  # origin form: path and query
    headers: Headers | bytes  # names in lower case; or the lines as they came, if they came before
    client: tuple[str, int] | None
    flags: int  # `wire.KEEP_ALIVE`, `wire.HTTP10`, `wire.HTTP2`


class Site:
    """`Request.site` as it is used."""

    __slots__ = ("_environ", "_heads", "date", "extensions", "extra", "mount", "server", "template")

    def __init__(self, blob: bytes, common: dict[str, Any]) -> None:
        fields = marshal.loads(blob, allow_code=False)
        # a scope with every key: a copy of it never has to grow
        scope = dict.fromkeys(SCOPE)
        self.template: dict[str, Any] = {**scope, "type": "http", "http_version": "1.1", **fields["scope"]}
        self.extensions: dict[str, Any] = fields["extensions"]  # besides those that all but HTTP/1.0 have
        self.date: bool = fields["date"]
        self.extra: bytes = fields["extra"]  # the `server` header as a line, or nothing
        self.server = self.extra.partition(b": ")[2].rstrip()
        self.mount: str = fields["mount"]  # prefix
        environ = from_scope({**self.template, "path": "", "method": "", "query_string": b"", "headers": ()})
        self._environ = {**complete(environ, stream=None, errors=None, multithread=False, worker=0), **common}
        self._heads: dict[bytes, tuple[Headers, dict[str, Any]]] = {}

    def __repr__(self) -> str:
        return f"<Site {self.mount or '/'}, {len(self._heads)} heads>"

    def _head(self, block: bytes) -> tuple[Headers, dict[str, Any]]:
        """Lines that this worker sees for the first time."""
        headers = split(block)
        if len(self._heads) >= HEADS:
            self._heads.clear()
        known = self._heads[block] = headers, self._with_headers(headers)
        return known

    def _with_headers(self, headers: Headers) -> dict[str, Any]:
        environ = self._environ.copy()
        add_headers(environ, headers)
        return environ

    def headers(self, block: bytes) -> Headers:
        """The headers of a request, all its own."""
        return (self._heads.get(block) or self._head(block))[0].copy()

    def environ(self, headers: Headers | bytes) -> dict[str, Any]:
        """What all requests with these headers have in common."""
        if type(headers) is bytes:
            return (self._heads.get(headers) or self._head(headers))[1].copy()
        return self._with_headers(headers)  # type: ignore[arg-type]


def split(block: bytes) -> Headers:
    """Header lines that the front has found good: names in lower case, values without white space around them."""
    lines = [line.partition(b":") for line in block.rstrip(b"\r\n").split(b"\r\n")]
    return [(name.lower(), value.strip(b" \t")) for name, _, value in lines]


class Sites(dict[bytes, Site]):
    """The sites that this worker knows, by `Request.site`; the oldest goes out first. `common`: for each environ."""

    __slots__ = ("_common",)

    def __init__(self, common: dict[str, Any]) -> None:
        super().__init__()
        self._common = common

    def __missing__(self, blob: bytes) -> Site:
        if len(self) >= SITES:
            del self[next(iter(self))]
        site = self[blob] = Site(blob, self._common)
        return site


def build_scope(site: Site, request: Request, state: dict[str, Any], worker: int) -> dict[str, Any]:
    """The ASGI scope of `request` (ASGI HTTP 2.5), all the request's own."""
    _, method, target, headers, client, flags = request
    query = b""
    if b"?" in target:
        target, _, query = target.partition(b"?")
    if b"%" in target or not target.isascii():
        from urllib.parse import unquote_to_bytes

        path = unquote_to_bytes(target).decode("utf-8", "replace")
    else:
        path = target.decode("ascii")
    scope = site.template.copy()
    scope["asgi"] = {"version": "3.0", "spec_version": "2.5"}
    scope["method"] = method
    scope["path"] = path
    scope["raw_path"] = target
    scope["query_string"] = query
    scope["headers"] = site.headers(headers) if type(headers) is bytes else headers
    scope["client"] = client
    scope["state"] = state.copy()
    scope["extensions"] = extensions = {
        "http.response.early_hint": {},
        "http.response.trailers": {},
        "http.response.pathsend": {},
        "subpool": {"worker": worker},
    }
    if site.extensions:
        for name, value in site.extensions.items():
            extensions[name] = value.copy()
    if flags & HTTP2:
        scope["http_version"] = "2"
    elif flags & HTTP10:
        scope["http_version"] = "1.0"
        del extensions["http.response.early_hint"], extensions["http.response.trailers"]
    return scope


def build_environ(site: Site, request: Request) -> dict[str, Any]:
    """The WSGI environ of `request` (PEP 3333), but for what depends on the worker."""
    _, method, target, headers, client, flags = request
    query = ""
    if b"?" in target:
        target, _, after = target.partition(b"?")
        query = after.decode("latin-1")
    if b"%" in target:
        from urllib.parse import unquote_to_bytes

        target = unquote_to_bytes(target)
    path = target.decode("latin-1")
    environ = site.environ(headers)
    for root in (environ["SCRIPT_NAME"], site.mount):
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]
            break
    environ["REQUEST_METHOD"] = method
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = query
    environ["SERVER_PROTOCOL"] = "HTTP/2" if flags & HTTP2 else "HTTP/1.0" if flags & HTTP10 else "HTTP/1.1"
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    return environ


class HTTPCalls:
    """Runs the requests of a server's front."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        threaded = worker.shared or worker.setup["threads"] > 1
        self._sites = Sites(
            {"wsgi.multithread": threaded, "wsgi.multiprocess": not worker.shared, "subpool.worker": worker.id}
        )

    def __repr__(self) -> str:
        return f"<HTTPCalls: {self._sites!r}>"

    async def asgi(self, call: int, app: App, request: Request, body: bytes | None) -> None:
        """Run an ASGI app. `body` None: it comes in pieces."""
        worker = self._worker
        port = None
        try:
            site = self._sites[request[0]]
            port = (H2Port if request[5] & HTTP2 else H1Port)(worker, call, request, site, body)
            coro: Any = app.app(build_scope(site, request, app.scopes.state, worker.id), port.receive, port.send)
            try:
                yielded = coro.send(None)
            except StopIteration:
                pass
            else:
                port.release()
                await resume(coro, yielded, worker.step, call)
            port.finish()
        except BaseException as error:
            if port is not None and port.done:
                port.release()  # the answer is whole; what happened behind it is for the log
            worker.calls.failed(call, error)
        finally:
            worker.calls.ended(call)
            if port is not None:
                port.close()

    def wsgi(self, call: int, app: App, request: Request, body: bytes | None) -> None:
        """Run a WSGI app, here or on a thread."""
        worker = self._worker
        threads = worker.calls.wsgi
        try:
            site = self._sites[request[0]]
            make = H2SyncPort if request[5] & HTTP2 else H1SyncPort
            port = make(worker, call, threads.threaded, request, site)
            errors = ErrorStream(call)
            environ = build_environ(site, request)
            environ["wsgi.input"] = make_input(b"", port.pull) if body is None else make_input(body, None)
            environ["wsgi.errors"] = errors
            environ["wsgi.early_hints"] = ignore_hints if request[5] & HTTP10 else port.early_hints
        except Exception as error:
            worker.calls.forget(call)
            worker.calls.failed(call, error)
            return

        threads.execute(call, Serving(call, app, environ, port, errors))
