"""The pool for synchronous programs: an event loop on a thread of its own, and calls into it from any thread."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from .errors import PoolClosed
from .stats import PoolStats
from .types import Response, WSGIResponse

if TYPE_CHECKING:
    from .pool import Pool
    from .state.space import Space


class BlockingPool:
    """What `Pool.blocking` makes. Same methods, same errors, no `await`; safe from many threads."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<BlockingPool of {self._pool!r}>"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            stack.enter_context(portal.wrap_async_context_manager(self._pool))
            self._portal = portal
            self._stack = stack.pop_all()
        atexit.register(self.close)  # a program may end without closing it
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the pool and its loop. A second call does nothing."""
        self._portal = None
        atexit.unregister(self.close)
        self._stack.close()

    def _call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        portal = self._portal
        if portal is None:
            raise PoolClosed("the pool is not open: use it in 'with'")
        return portal.call(partial(function, *args, **kwargs))

    @property
    def isolation(self) -> str:
        """The isolation kind that was chosen."""
        return self._pool.isolation

    def run_asgi(self, scope: Any, body: bytes = b"", **options: Any) -> Response:
        """See `Pool.run_asgi`."""
        return self._call(self._pool.run_asgi, scope, body, **options)  # type: ignore[no-any-return]

    def run_wsgi(self, environ: Mapping[str, Any], **options: Any) -> WSGIResponse:
        """See `Pool.run_wsgi`."""
        return self._call(self._pool.run_wsgi, environ, **options)  # type: ignore[no-any-return]

    def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """See `Pool.call`."""
        return self._call(self._pool.call, function, *args, **kwargs)

    def register(self, name: str, function: Any, *, inline: bool = False) -> None:
        """See `Pool.register`."""
        self._pool.register(name, function, inline=inline)

    def invoke(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """See `Pool.invoke`."""
        return self._call(self._pool.invoke, name, *args, **kwargs)

    def nodes(self) -> list[str]:
        """See `Pool.nodes`."""
        return self._call(self._pool.nodes)  # type: ignore[no-any-return]

    def publish(self, topic: str, message: Any) -> int:
        """See `Pool.publish`."""

        async def publish() -> int:
            return self._pool.publish(topic, message)

        return self._call(publish)  # type: ignore[no-any-return]

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[BlockingSubscription]:
        """See `Pool.subscribe`; a plain iterator."""

        async def subscribe() -> Any:
            return self._pool.subscribe(topic)

        subscription = self._call(subscribe)
        self._call(subscription.__aenter__)
        try:
            yield BlockingSubscription(self._call, subscription)
        finally:
            self._call(subscription.__aexit__)

    def recycle(self, worker: int | None = None) -> None:
        """See `Pool.recycle`."""
        self._call(self._pool.recycle, worker)

    @property
    def state(self) -> Space:
        """See `Pool.state`; usable from any thread."""
        return self._pool.state

    def stats(self) -> PoolStats:
        """See `Pool.stats`."""

        async def snapshot() -> PoolStats:
            return self._pool.stats()

        return self._call(snapshot)  # type: ignore[no-any-return]

    @contextmanager
    def stream_asgi(self, scope: Any, body_iterable: Any = b"", **options: Any) -> Iterator[BlockingStream]:
        """See `Pool.stream_asgi`; the answer is a plain iterator. `body_iterable` is read on the loop's thread."""
        if self._portal is None:
            raise PoolClosed("the pool is not open: use it in 'with'")
        manager: AbstractContextManager[Any] = self._portal.wrap_async_context_manager(
            self._pool.stream_asgi(scope, body_iterable, **options)
        )
        with manager as stream:
            yield BlockingStream(self._call, stream)

    @contextmanager
    def websocket(self, scope: Any, **options: Any) -> Iterator[BlockingWebSocket]:
        """See `Pool.websocket`."""
        if self._portal is None:
            raise PoolClosed("the pool is not open: use it in 'with'")
        manager: AbstractContextManager[Any] = self._portal.wrap_async_context_manager(
            self._pool.websocket(scope, **options)
        )
        with manager as session:
            yield BlockingWebSocket(self._call, session)


class BlockingStream:
    """See `subpool.exchanges.Stream`."""

    def __init__(self, call: Any, stream: Any) -> None:
        self._call = call
        self._chunks = aiter(stream)
        self.status: int = stream.status
        self.headers: list[tuple[bytes, bytes]] = stream.headers

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                yield self._call(self._next)
            except StopAsyncIteration:
                return

    async def _next(self) -> bytes:
        return await anext(self._chunks)

    def read(self) -> bytes:
        """The rest of the body, whole."""
        return b"".join(self)


class BlockingSubscription:
    """See `subpool.services.hub.HostSubscription`."""

    def __init__(self, call: Any, subscription: Any) -> None:
        self._call = call
        self._subscription = subscription

    @property
    def lost(self) -> int:
        return self._subscription.lost  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self._call(self._subscription.__anext__)
            except StopAsyncIteration:
                return


class BlockingWebSocket:
    """See `subpool.exchanges.WebSocketSession`."""

    def __init__(self, call: Any, session: Any) -> None:
        self._call = call
        self._session = session
        self.subprotocol: str | None = session.subprotocol
        self.headers: list[tuple[bytes, bytes]] = session.headers

    def send(self, data: str | bytes) -> None:
        self._call(self._session.send, data)

    def receive(self) -> str | bytes:
        return self._call(self._session.receive)  # type: ignore[no-any-return]

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._call(self._session.close, code, reason)
