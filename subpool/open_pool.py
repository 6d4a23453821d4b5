"""A pool besides the calls that it takes: how it opens and ends, its workers, and what it does for the code in them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from . import config, here, hostloop
from .engine import Engine
from .errors import PoolClosed, SubpoolError
from .state import place
from .stats import PoolStats

if TYPE_CHECKING:
    from .services import Services
    from .services.hub import HostSubscription
    from .state.space import Space
    from .worker_hooks import WorkerHooks


class OpenPool:
    """The half of `Pool` that is not about calls."""

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
