"""The public face: a pool of isolated workers for an ASGI or WSGI app, on asyncio and on trio."""

from __future__ import annotations

import marshal
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import anyio

from . import config, here, hostloop
from .channels import frames as f
from .engine import Engine
from .environ import check_environ
from .errors import PoolClosed, SubpoolError
from .exchanges import Exchange, Stream, WebSocketSession
from .hostcall import Call, StreamCall
from .scope import ScopeTemplate, pack
from .state import place
from .stats import PoolStats
from .types import Receive, Response, Scope, Send, WSGIResponse

if TYPE_CHECKING:
    from .asgi import PoolApp
    from .blocking import BlockingPool
    from .services import Services
    from .services.hub import HostSubscription
    from .state.space import Space
    from .worker_hooks import WorkerHooks

_UNSET: Any = object()
BODY_INLINE = f.LOAN_SIZE


class Pool:
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

    def __init__(self, app: str | None = None, **options: Any) -> None:
        self.options = config.make(app, options)
        self._engine: Engine | None = None
        self._functions: dict[str, bool] = {}  # names that were checked
        self.internal = False  # it serves another pool; code on the host does not mean it
        self._services: Services | None = None
        self.services_of: Callable[[], Services] = self._own_services  # or a server's, which its pools share
        self._setup: dict[str, Any] | None = None  # while it is open: what its workers are told
        self.told: WorkerHooks | None = None  # who hears of workers

    def __repr__(self) -> str:
        state = "not open" if self._engine is None else repr(self._engine)
        return f"<Pool {self.options.app!r} {state}>"

    @staticmethod
    def blocking(app: str | None = None, **options: Any) -> BlockingPool:
        """The same pool for synchronous programs, safe from many threads: `with Pool.blocking(...) as pool:`."""
        from .blocking import BlockingPool

        return BlockingPool(Pool(app, **options))

    async def __aenter__(self) -> Self:
        if self._engine is not None:
            raise RuntimeError("this pool is or was open; make another one")
        engine = Engine(self.options, hostloop.current(), self.services_of)
        self._open_state(engine)
        if self.options.hooks is not None:
            from .worker_hooks import WorkerHooks

            self.told = WorkerHooks(self.options.hooks, engine.loop)
        if self.told is not None:
            engine.on_worker = self.told.worker
        try:
            if self.services_of == self._own_services and config.bus_of(self.options.bus, self.options.state):
                services = self.services_of()
                services.bind(engine.loop)
                await services.join(self.options)
            await engine.crew.open()
            engine.upkeep.start()
        except BaseException:
            await engine.close(0.0)
            if self._services is not None:
                await self._services.close()
            self._close_state()
            raise
        self._engine = engine
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self, drain: float | None = None) -> None:
        """End the pool: what runs has `drain` seconds (default 0.7 `close_timeout`), then it is cut. A second call
        does nothing. Over within `close_timeout`, come what may."""
        if self._engine is not None:
            try:
                await self._engine.close(self.options.close_timeout if drain is None else drain)
            finally:
                self._close_state()
            if self.options.hooks is not None and self.told is not None:
                await self.told.settle()
        if self._services is not None:
            await self._services.close()

    def _own_services(self) -> Services:
        if self._services is None:
            from .services import Services

            self._services = Services.of(self.options)
        return self._services

    def _open_services(self) -> Services:
        engine, services = self._open(), self.services_of()
        services.bind(engine.loop)
        return services

    def _open_state(self, engine: Engine) -> None:
        self._setup = setup = self.options.setup(engine.id, 0, "host", 0)
        if setup["state"]["place"] is not None:
            place.hold(setup["state"]["place"])
        if not self.internal:
            here.opened(setup)

    def _close_state(self) -> None:
        setup, self._setup = self._setup, None
        if setup is None:
            return
        here.closed(setup["pool"])
        if (spaces := sys.modules.get("subpool.state.spaces")) is not None:
            spaces.close(setup)
        if setup["state"]["place"] is not None:
            place.release(setup["state"]["place"])

    def _open(self) -> Engine:
        engine = self._engine
        if engine is None:
            raise PoolClosed("the pool is not open: use it in 'async with'")
        return engine

    @property
    def engine(self) -> Engine:
        """The engine of an open pool, for what is built upon it (the server)."""
        return self._open()

    @property
    def isolation(self) -> str:
        """The isolation kind that was chosen."""
        return self._open().crew.kind

    @property
    def state(self) -> Space:
        """What the workers share, as they have it: `pool.state.get(key)` and the other functions of `subpool.state`.
        They wait for the store (a Redis, a disk) on the thread that calls them."""
        self._open()
        if self._setup is None:
            raise PoolClosed("the pool is closed")
        from .state import spaces

        return spaces.of(self._setup)

    def stats(self) -> PoolStats:
        """A frozen snapshot."""
        stats = self._open().stats()
        return stats if self._services is None else replace(stats, services=self._services.stats())

    async def recycle(self, worker: int | None = None) -> None:
        """Replace one worker (by its id), or all, one after another; each replacement is ready first.

        `AppLoadError` if a replacement does not start: then the old one stays.
        """
        engine = self._open()
        if self.options.hooks is None or self.told is None or worker is not None:
            await engine.crew.recycle(worker)
            return
        from .hooks import Reload

        try:
            await engine.crew.recycle(None)
        except SubpoolError as error:
            self.told.reloaded(Reload(str(error)))
            raise
        self.told.reloaded(Reload())

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

    # functions and topics of the host

    def register(self, name: str, function: Any, *, inline: bool = False) -> None:
        """Let the code in the workers call `function` by `name` (`subpool.call`), before the start or after.

        A function, a class (made once, its methods are `name.method`), or "module:object". It runs in a helper process,
        which imports it; `async def` functions, and any with `inline`, run on this loop, and must not hold it.
        `TypeError` for what the helper could not import, `ValueError` for a name that is none, or is taken.
        """
        self.services_of().registry.add(name, function, inline)

    async def invoke(self, name: str, /, *args: Any, node: str | None = None, **kwargs: Any) -> Any:
        """Call a registered function from here, or one of another host, as workers do; its answer. Errors are those of
        `subpool.acall`."""
        return await self._open_services().call(name, node, args, kwargs)

    async def nodes(self) -> list[str]:
        """The names of the hosts that live and can be called. See `subpool.nodes`."""
        return await self._open_services().names()

    def publish(self, topic: str, message: Any) -> int:
        """Publish to all subscribers; how many there are in this process. See `subpool.pubsub`."""
        from .pubsub import check_topic, pack_message

        check_topic(topic)
        return self._open_services().hub.publish(topic, pack_message(topic, message))

    def subscribe(self, topic: str) -> HostSubscription:
        """`async with pool.subscribe(topic) as messages: async for message in messages: ...` See `subpool.pubsub`."""
        from .pubsub import check_topic

        check_topic(topic)
        return self._open_services().subscribe(topic)

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
