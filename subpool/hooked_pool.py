"""A pool whose requests have hooks: those of `run_asgi`, `run_wsgi` and `handle_asgi`, and so of `pool.asgi()`.

Hooks and app share the call's time. What a hook raises is raised to the caller. Streams, sessions and functions, which
a program opens itself (`stream_asgi`, `websocket`, `call`), have no hooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

import anyio

from .environ import add_headers, check_environ
from .errors import PoolTimeout, SubpoolError
from .hooks import Chain, Row, run
from .hostcall import numbers
from .pool import _UNSET, Pool
from .request import BODILESS, Request, ResponseHead
from .scope import ScopeTemplate, pack
from .types import Headers, Message, Receive, Response, Scope, Send, WSGIResponse


class HookedPool(Pool):
    """Made by `Pool(..., hooks=hooks)`."""

    async def run_asgi(
        self,
        scope: Mapping[str, Any] | ScopeTemplate,
        body: bytes = b"",
        *,
        app: str | None = None,
        runner: str | None = None,
        timeout: float | None = _UNSET,
        affinity: Any = None,
    ) -> Response:
        """See `Pool.run_asgi`."""
        fields: Mapping[str, Any] = scope.fields if isinstance(scope, ScopeTemplate) else scope
        pack(fields)  # what is wrong is told before hooks see it
        turn = _Turn(self._chain(), _of_scope(fields), self.options.timeout if timeout is _UNSET else timeout)
        answer = await turn.ask()
        if answer is None:
            try:
                answer = await super().run_asgi(
                    _scope(fields, turn.request), body, app=app, runner=runner, timeout=turn.left(), affinity=affinity
                )
            except SubpoolError as error:
                answer = await turn.ask_about(error)
        return await turn.respond(answer)

    async def run_wsgi(
        self,
        environ: Mapping[str, Any],
        *,
        app: str | None = None,
        runner: str | None = None,
        timeout: float | None = _UNSET,
        affinity: Any = None,
    ) -> WSGIResponse:
        """See `Pool.run_wsgi`."""
        check_environ(environ)
        turn = _Turn(self._chain(), _of_environ(environ), self.options.timeout if timeout is _UNSET else timeout)
        answer = await turn.ask()
        given = None
        if answer is None:
            try:
                given = await super().run_wsgi(
                    _environ(environ, turn.request), app=app, runner=runner, timeout=turn.left(), affinity=affinity
                )
                pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.headers]
                answer = Response(int(given.status[:3]), pairs, given.body)
            except SubpoolError as error:
                answer = await turn.ask_about(error)
        found = await turn.respond(answer)
        if given is not None and found is answer:
            return given
        same = given is not None and int(given.status[:3]) == found.status
        phrase = HTTPStatus(found.status).phrase if found.status in HTTPStatus else ""
        return WSGIResponse(
            given.status if given is not None and same else f"{found.status} {phrase}",
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in found.headers],
            found.body,
        )

    async def handle_asgi(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        app: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """See `Pool.handle_asgi`."""
        pack(scope)
        turn = _Turn(self._chain(), _of_scope(scope), timeout)
        answer = await turn.ask()
        if answer is None:
            sending = _Sending(turn, send)
            try:
                await super().handle_asgi(
                    {**_scope(scope, turn.request)}, receive, sending.send, app=app, timeout=turn.left()
                )
                return
            except SubpoolError as error:
                if sending.began:
                    raise
                answer = await turn.ask_about(error)
        if scope["type"] == "websocket":
            await _deny(scope, answer, send)
            return
        answer = await turn.respond(answer)
        await send({"type": "http.response.start", "status": answer.status, "headers": _sized(answer)})
        await send({"type": "http.response.body", "body": answer.body})

    def _chain(self) -> Chain:
        assert self.options.hooks is not None
        return self.options.hooks.chain() or Chain()


class _Turn:
    """The hooks of one request. `timeout`: seconds for them and the app, or None."""

    def __init__(self, chain: Chain, request: Request, timeout: float | None) -> None:
        self.chain = chain
        self.request = request
        self._timeout = timeout
        self._until = anyio.current_time() + timeout if timeout is not None else float("inf")

    async def _run(self, row: Row, *args: Any) -> Response | None:
        found = run(row, *args)
        if found is None or isinstance(found, Response):
            return found
        with anyio.CancelScope(deadline=self._until) as scope:
            return await found
        assert scope.cancelled_caught
        raise PoolTimeout(f"no answer within {self._timeout:.3g} s: a hook did not answer", False)

    def left(self) -> float | None:
        """Seconds that are left for the app."""
        return max(0.001, self._until - anyio.current_time()) if self._timeout is not None else None

    async def ask(self) -> Response | None:
        return await self._run(self.chain.on_request, self.request)

    async def ask_about(self, error: SubpoolError) -> Response:
        """What is answered for the error; it is raised if nothing is."""
        if self._timeout is not None:
            self._until = anyio.current_time() + self._timeout  # the call's own may be over
        answer = await self._run(self.chain.on_error, self.request, error)
        if answer is None:
            raise error
        return answer

    async def respond(self, answer: Response) -> Response:
        """The answer as hooks leave it."""
        row = self.chain.on_response
        if not row:
            return answer
        head = ResponseHead(answer.status, [(name.lower(), value) for name, value in answer.headers])
        await self._run(row, self.request, head)
        if head.unchanged:
            return answer
        pairs = head.checked(head=self.request.method == "HEAD")
        return Response(head.status, pairs, b"" if head.drops else answer.body)


class _Sending:
    """A server's `send`, behind the hooks of the response. `began`: it had a message."""

    def __init__(self, turn: _Turn, send: Send) -> None:
        self.began = False
        self._turn = turn
        self._send = send
        self._drops = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and message["status"] >= 200 and self._turn.chain.on_response:
            given = Response(message["status"], message["headers"], b"")
            found = await self._turn.respond(given)
            if found is not given:
                message = {**message, "status": found.status, "headers": found.headers}
                self._drops = found.status in BODILESS and given.status not in BODILESS
                if self._drops:
                    message["trailers"] = False
        elif self._drops and kind in ("http.response.body", "http.response.pathsend"):
            message = {"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)}
        elif self._drops and kind == "http.response.trailers":
            return
        self.began = True
        await self._send(message)


async def _deny(scope: Scope, answer: Response, send: Send) -> None:
    """Refuse a WebSocket (ASGI WebSocket Denial Response; without it, `websocket.close` is a 403)."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    start = {"type": "websocket.http.response.start", "status": answer.status, "headers": _sized(answer)}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": answer.body})


def _sized(answer: Response) -> Headers:
    if answer.status in BODILESS or any(name == b"content-length" for name, _ in answer.headers):
        return answer.headers
    return [*answer.headers, (b"content-length", b"%d" % len(answer.body))]


def _target(raw_path: bytes, query: bytes) -> bytes:
    return raw_path + b"?" + query if query else raw_path


def _of_scope(scope: Mapping[str, Any]) -> Request:
    kind = scope["type"]
    raw_path = scope.get("raw_path") or quote(scope["path"], safe="/:@!$&'()*+,;=~").encode()
    headers = [(name.lower(), value) for name, value in scope.get("headers") or ()]
    client = scope.get("client")
    return Request(
        next(numbers), scope.get("method", "GET").upper(), _target(raw_path, scope.get("query_string") or b""), headers,
        tuple(client) if client else None, scope.get("scheme") or ("http" if kind == "http" else "ws"),
        scope.get("http_version", "1.1"), kind,
    )  # fmt: skip


def _scope(scope: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
    """`scope` as the hooks have left it."""
    changes: dict[str, Any] = {"client": request.client, "scheme": request.scheme}
    if request.type == "http":
        changes["method"] = request.method
    if request.moved:
        changes |= {"path": request.path, "raw_path": request.raw_path, "query_string": request.query_string}
    headers = request.changed()
    if headers is not None:
        changes["headers"] = headers
    return {**scope, **changes}


def _of_environ(environ: Mapping[str, Any]) -> Request:
    headers = [
        (name.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
    ]
    path = (environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]).encode("latin-1")
    raw_path = quote_from_bytes(path, safe="/:@!$&'()*+,;=~").encode() or b"/"
    port = environ.get("REMOTE_PORT") or ""
    client = (environ["REMOTE_ADDR"], int(port) if port.isdecimal() else 0) if environ.get("REMOTE_ADDR") else None
    return Request(
        next(numbers), environ["REQUEST_METHOD"], _target(raw_path, environ.get("QUERY_STRING", "").encode("latin-1")),
        headers, client, environ["wsgi.url_scheme"], environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
    )  # fmt: skip


def _environ(environ: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """`environ` as the hooks have left it."""
    found = {**environ, "REQUEST_METHOD": request.method, "wsgi.url_scheme": request.scheme}
    if request.moved:
        path, root = unquote_to_bytes(request.raw_path).decode("latin-1"), environ.get("SCRIPT_NAME", "")
        found["PATH_INFO"] = path[len(root) :] if root and path.startswith((root + "/", root)) else path
        found["QUERY_STRING"] = request.query_string.decode("latin-1")
    if request.client is not None:
        found["REMOTE_ADDR"], port = request.client
        found["REMOTE_PORT"] = str(port)
    headers = request.changed()
    if headers is not None:
        for name in environ:
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                del found[name]
        add_headers(found, headers)
    return found
