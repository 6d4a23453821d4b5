"""The host's services, of one pool or of all pools of a server."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..config import bus_of
from ..errors import AppLoadError, BusUnavailable, ConfigError, PoolClosed, SubpoolError
from ..hostloop import AsyncioLoop, HostLoop
from ..plain import check_target, pack_arguments, unpack
from ..stats import ServiceStats
from ..worker.importer import method_of
from .asked import Asked, HostAsked
from .helper import Helper, HelperStream, InHelper, options_of
from .hub import HostSubscription, Hub
from .onloop import OnLoop
from .registry import Function, Registry

if TYPE_CHECKING:
    from .desk import Desk
    from .nodes import Nodes
    from .redis_nodes import RedisPost

log = logging.getLogger("subpool")

NO_BUS: Final = (
    "there is no bus, by which hosts reach each other: set the option bus to a Redis, as in bus: redis://HOST:6379/0"
    " (--bus, SUBPOOL_BUS, Pool(bus=...))"
)
LOG_EVERY: Final = 1.0  # seconds between casts that failed and are logged


class Services:
    """Functions may be registered at any time; all else begins with `bind`.

    `options`: of the helper's pool."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.registry = Registry()
        self.hub = Hub()
        self._options = dict(options)
        self._loop: HostLoop | None = None
        self._helper: Helper | None = None
        self._onloop: OnLoop | None = None
        self._nodes: Nodes | None = None  # where there is a bus
        self._post: RedisPost | None = None
        self.no_nodes = NO_BUS
        self._closed = False
        self._calls = self.failed = 0
        self._log_at = 0.0
        self._unlogged = 0

    @classmethod
    def of(cls, options: Any) -> Services:
        """With a helper that imports as the workers of a pool, or a server, with these options do."""
        return cls(options_of(options))

    def __repr__(self) -> str:
        return f"<Services: {self.registry!r}, {self.hub!r}, {self._helper!r}>"

    def bind(self, loop: HostLoop) -> None:
        """This is the loop that they run on."""
        if self._loop is None:
            self._loop = loop
            self._onloop = OnLoop(loop)

    @property
    def loop(self) -> HostLoop:
        if self._loop is None or self._closed:
            raise PoolClosed("the pool is not open: use it in 'async with'")
        return self._loop

    def desk(self, link: Any) -> Desk:
        """For a worker that uses them."""
        from .desk import Desk

        return Desk(self, link)

    @property
    def helper(self) -> Helper:
        if self._helper is None:
            self._helper = Helper(self, self.loop, self._options)
        return self._helper

    # functions

    def ask(self, asked: Asked, arguments: bytes) -> None:
        """Have a function called; `asked` hears of its end, perhaps at once."""
        self._calls += 1
        try:
            if self._closed:
                raise PoolClosed("the pool is closed")
            function, method = self.registry.find(asked.name)
            if function.object is not None:
                self.at_home(asked, function, method, arguments)
            elif asked.stream:
                HelperStream(self.helper, asked, function, method, arguments)
            else:
                InHelper(self.helper, asked, function, method, arguments)
        except SubpoolError as error:
            asked.refuse(error)

    def at_home(self, asked: Asked, function: Function, method: str | None, arguments: bytes) -> None:
        """Run it on the host's loop."""
        if asked.over or self._onloop is None:
            return
        try:
            target = method_of(function.bring_home(), function.name, method)
        except SubpoolError as error:
            asked.refuse(error)
        else:
            self._onloop.run(asked, target, arguments)

    def ask_node(self, asked: Asked, node: str, arguments: bytes, how: int) -> None:
        """The same on another host, by its name."""
        try:
            self.nodes.ask(asked, node, arguments, how)
        except SubpoolError as error:
            asked.refuse(error)

    @property
    def nodes(self) -> Nodes:
        """The other hosts. `BusUnavailable` without a bus."""
        if self._nodes is None:
            raise BusUnavailable(self.no_nodes)
        return self._nodes

    async def names(self) -> list[str]:
        """Of the hosts that live now."""
        waiter = self.loop.waiter()

        def seen(names: list[str] | SubpoolError) -> None:
            if waiter.done():
                return
            if isinstance(names, SubpoolError):
                waiter.set_exception(names)
            else:
                waiter.set_result(names)

        self.nodes.look(seen)
        return await waiter  # type: ignore[no-any-return]

    async def call(self, name: str, node: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same for code on the host: the answer."""
        asked = HostAsked(name, self.loop)
        arguments = pack_arguments(name, args, kwargs)
        check_target(node)
        if node is None:
            self.ask(asked, arguments)
        else:
            self.ask_node(asked, node, arguments, 0)
        try:
            return unpack(await asked.waiter)
        except BaseException:
            asked.cancel()
            raise

    def log_cast(self, name: str, error: SubpoolError) -> None:
        """A cast failed, and nobody waits for it: say so, but not a thousand times a second."""
        now = self._loop.time() if self._loop is not None else 0.0
        if now < self._log_at:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more since the last one)" if self._unlogged else ""
        self._log_at, self._unlogged = now + LOG_EVERY, 0
        log.error("a cast to function %r failed: %s%s", name, error, more)

    # topics

    def subscribe(self, topic: str) -> HostSubscription:
        """A subscriber on the host."""
        return HostSubscription(self.hub, self.loop, topic)

    # life

    async def join(self, options: Any) -> None:
        """Join other hosts by the bus of a pool's or a server's options, if there is one: their topics, and calls.
        `ConfigError` if that cannot be."""
        url = bus_of(options.bus, options.state)
        if url is None:
            return
        if not isinstance(self.loop, AsyncioLoop):
            if options.bus is None:
                self.no_nodes = "hosts reach each other only where asyncio runs, and this program runs on trio"
                return
            raise ConfigError(["bus: it needs asyncio, and this program runs on trio"])
        try:
            from .redis_bus import RedisBus
            from .redis_nodes import RedisPost
        except ModuleNotFoundError as error:
            raise ConfigError([f"bus: {error.name} is not installed: pip install 'subpool[redis]'"]) from None
        from .nodes import Nodes

        bus = RedisBus(url)
        nodes = Nodes(self, options.node or own_name())
        nodes.post = post = RedisPost(url, nodes)
        self.hub.bus, self._nodes, self._post = bus, nodes, post
        await asyncio.gather(bus.start(self.hub.spread), post.start())

    async def start(self) -> None:
        """Start the helper and load every function, so that what is wrong is known now. `AppLoadError` names it."""
        for name in self.registry.names():
            function, _ = self.registry.find(name)
            if function.spec is None or function.object is not None:
                continue
            loaded = self.loop.waiter()
            self.helper.call("load", loaded.set_result, loaded.set_exception, name, function.spec)
            try:
                if await loaded:
                    function.bring_home()
            except SubpoolError as error:
                detail = getattr(error, "remote_traceback", "")
                raise AppLoadError(f"function {name!r}: {_first_line(error)}", detail) from error

    async def close(self) -> None:
        """End what runs, and the helper."""
        if self._closed:
            return
        if self._nodes is not None and self._post is not None:
            self._nodes.close()
            await self._post.close()
        self._closed = True
        if self._onloop is not None:
            self._onloop.cancel()
        if self._helper is not None:
            await self._helper.close()
        if self.hub.bus is not None:
            await self.hub.bus.close()

    def stats(self) -> ServiceStats:
        """A frozen snapshot."""
        helper = self._helper.stats() if self._helper is not None else None
        under_way = (len(self._onloop) if self._onloop is not None else 0) + (helper.in_flight if helper else 0)
        return ServiceStats(
            len(self.registry), self._calls, self.failed, under_way, helper, len(self.hub), self.hub.subscribers(),
            self.hub.published, self.hub.dropped(), None if self.hub.bus is None else self.hub.bus.status(),
            None if self._nodes is None else self._nodes.status(),
        )  # fmt: skip


def own_name() -> str:
    """Of a host that was given none: HOSTNAME-PID, and a number from the second of a process on."""
    name = f"{socket.gethostname().partition('.')[0] or 'host'}-{os.getpid()}"
    number = next(_hosts)
    return name if number == 1 else f"{name}-{number}"


_hosts: Final = itertools.count(1)


def _first_line(error: SubpoolError) -> str:
    return str(error).partition("\n")[0]
