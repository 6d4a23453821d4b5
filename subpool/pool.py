"""The public face: a pool of isolated workers for an ASGI or WSGI app, on asyncio and on trio."""

from __future__ import annotations

import marshal
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import anyio

from . import config
from .channels import frames as f
from .environ import check_environ
from .exchanges import Exchange, Stream, WebSocketSession
from .hostcall import Call, StreamCall
from .open_pool import OpenPool
from .scope import ScopeTemplate, pack
from .types import Receive, Response, Scope, Send, WSGIResponse

if TYPE_CHECKING:
    from .asgi import PoolApp
    from .blocking import BlockingPool

_UNSET: Any = object()
BODY_INLINE = f.LOAN_SIZE


class Pool(OpenPool):
    """`async with Pool("myapp:app", workers=4) as pool: await pool.run_asgi(scope, body)`.

    Options: see `subpool.config.PoolOptions`. A wrong option is a `TypeError` or `ValueError` here; an app that does
    not start is an `AppLoadError` when the pool is entered.
    """

    def __new__(cls, app: str | None = None, **options: Any) -> Self:
        """A pool whose requests have hooks is of another class, so that the others pay nothing for them."""
        hooks = options.get("hooks")
        if cls is Pool and hooks is not None:
            from .hooked_pool import HookedPool

            return object.__new__(HookedPool)  # type: ignore[return-value]
        return object.__new__(cls)

    @staticmethod
    def blocking(app: str | None = None, **options: Any) -> BlockingPool:
        """The same pool for synchronous programs, safe from many threads: `with Pool.blocking(...) as pool:`."""
        from .blocking import BlockingPool

        return BlockingPool(Pool(app, **options))

    # calls

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
        """Run an ASGI app on one HTTP request; its whole answer.

        `scope`: fields and defaults as in ASGI HTTP 2.5, `type` and `path` required; or a template of `build_scope`.
        `app`: another app than the pool's. `runner`: a module with `async def run_asgi(app, scope, body)`. `timeout`:
        seconds (default: the pool's). `affinity`: calls of one key prefer one worker.

        Raises `AppError`, `AppLoadError`, `RunnerError`, `PoolTimeout`, `PoolOverloaded`, `PoolClosed`, `WorkerLost`,
        `NotIsolatable`; `TypeError` and `ValueError` for bad input, before anything is sent.
        """
        if type(scope) is ScopeTemplate:
            head, kind = scope.head, scope.type
        else:
            head, kind = pack(scope), scope["type"]  # type: ignore[arg-type,index]
        if kind != "http":
            raise ValueError(f"scope['type'] is {kind!r}; run_asgi takes 'http' (see `websocket`)")
        if type(body) is not bytes:
            body = _bytes(body, "body")
        reply = await self._answer(self._submit(f.CALL_ASGI, app, runner, head, body, timeout, affinity))
        return Response(reply[2], reply[3], reply[4])

    async def run_wsgi(
        self,
        environ: Mapping[str, Any],
        *,
        app: str | None = None,
        runner: str | None = None,
        timeout: float | None = _UNSET,
        affinity: Any = None,
    ) -> WSGIResponse:
        """Run a WSGI app on one request (PEP 3333); its whole answer, the status as in "200 OK".

        `wsgi.input` is bytes or something readable. `runner`: a module with `def run_wsgi(app, environ)`. The rest as
        in `run_asgi`.
        """
        head, body = check_environ(environ)
        if type(body) is not bytes:
            body = await _read(body)
        reply = await self._answer(self._submit(f.CALL_WSGI, app, runner, head, body, timeout, affinity))
        return WSGIResponse(reply[2], reply[3], reply[4])

    async def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call "module:function" in a worker; its answer. Arguments and answer are plain data (what `marshal` carries).

        Raises `AppError` with the type name, message and remote traceback of what the function raised; `TypeError` for
        arguments that are no plain data.
        """
        if function not in self._functions:
            config.check_name("function", function)
            self._functions[function] = True
        try:
            arguments = marshal.dumps((args, kwargs), allow_code=False)
        except (ValueError, TypeError) as error:
            raise TypeError(f"the arguments of {function!r} are no plain data: {error}") from None
        engine = self._open()
        call_id = next(engine.ids)
        frame = (f.CALL_FUNCTION, call_id, function, arguments)
        call = Call(call_id, frame, None, self.options.timeout, None, engine.loop.waiter())
        engine.submit(call)
        reply = await self._answer(call)
        return marshal.loads(reply[4], allow_code=False)

    def _submit(
        self,
        op: int,
        app: str | None,
        runner: str | None,
        head: Any,
        body: bytes,
        timeout: float | None,
        affinity: Any,
    ) -> Call:
        engine = self._engine
        if engine is None:
            engine = self._open()
        call_id = next(engine.ids)
        large = len(body) >= BODY_INLINE
        frame = (op, call_id, app, runner, head, None if large else body)
        if timeout is _UNSET:
            timeout = self.options.timeout
        else:
            config.check_timeout(timeout)
        if app is not None:
            config.check_name("app", app)
        if runner is not None and type(runner) is not str:
            raise TypeError(f"runner is {runner!r}; it must be the name of a module")
        call = Call(call_id, frame, body if large else None, timeout, affinity, engine.loop.waiter())
        engine.submit(call)
        return call

    async def _answer(self, call: Call) -> f.Frame:
        try:
            return await call.waiter  # type: ignore[no-any-return]
        except BaseException:
            self._open().give_up(call)
            raise

    # streams

    def _exchange(
        self, scope: Mapping[str, Any] | ScopeTemplate, app: str | None, timeout: float | None, affinity: Any,
        websocket: bool = False,
    ) -> Exchange:  # fmt: skip
        head = scope.head if isinstance(scope, ScopeTemplate) else pack(scope)
        config.check_timeout(timeout)
        if app is not None:
            config.check_name("app", app)
        engine = self._open()
        call_id = next(engine.ids)
        frame = (f.CALL_WEBSOCKET if websocket else f.CALL_EXCHANGE, call_id, app, None, head, None)
        call = StreamCall(call_id, frame, timeout, affinity, engine.loop)
        if websocket:
            call.websocket = True
        engine.submit(call)
        return Exchange(engine, call)

    @asynccontextmanager
    async def stream_asgi(
        self,
        scope: Mapping[str, Any] | ScopeTemplate,
        body_iterable: bytes | Iterable[bytes] | AsyncIterable[bytes] = b"",
        *,
        app: str | None = None,
        timeout: float | None = None,
        affinity: Any = None,
    ) -> AsyncIterator[Stream]:
        """`async with pool.stream_asgi(scope, pieces) as answer: async for chunk in answer: ...`

        Both bodies are streamed, with back-pressure: a piece is taken from `body_iterable` when the app asks for it,
        and the app waits while 256 KiB of its answer were not read. `timeout` (seconds; default none) is for the whole.
        Leaving the block before the end cancels the app. Raises what `run_asgi` raises.
        """
        async with Stream(self._exchange(scope, app, timeout, affinity), body_iterable) as stream:
            yield stream

    @asynccontextmanager
    async def websocket(
        self,
        scope: Mapping[str, Any] | ScopeTemplate,
        *,
        app: str | None = None,
        timeout: float | None = None,
        affinity: Any = None,
    ) -> AsyncIterator[WebSocketSession]:
        """A session with a WebSocket app. `scope["type"]` may be left out. `WebSocketDenied` if the app refuses."""
        if not isinstance(scope, ScopeTemplate):
            extensions = {"websocket.http.response": {}, **(scope.get("extensions") or {})}
            scope = {**scope, "type": scope.get("type", "websocket"), "extensions": extensions}
            if scope["type"] != "websocket":
                raise ValueError(f"scope['type'] is {scope['type']!r}; it must be 'websocket'")
        async with WebSocketSession(self._exchange(scope, app, timeout, affinity, True)) as session:
            yield session

    async def handle_asgi(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        app: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """One full ASGI exchange, HTTP or WebSocket, between a server's `receive`/`send` and the app in a worker.

        Raises what `run_asgi` raises; what `send` raises ends the exchange, and the app is cancelled.
        """
        websocket = scope["type"] == "websocket"
        await self._exchange(scope, app, timeout, None, websocket).drive(receive, send)

    def asgi(self) -> PoolApp:
        """The pool as an ASGI 3 app whose lifespan opens and closes it, for any ASGI server."""
        from .asgi import PoolApp

        return PoolApp(self)


def _bytes(body: Any, field: str) -> bytes:
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"{field} is {type(body).__name__}, not bytes")
    return bytes(body)


async def _read(readable: Any) -> bytes:
    """All of a readable, on a thread: it may wait."""
    data = await anyio.to_thread.run_sync(readable.read)
    return _bytes(data, "what wsgi.input.read() gave")
