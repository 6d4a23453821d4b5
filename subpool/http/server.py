"""The server: bound sockets, a pool for each kind of mount, connections; from its start to its last response.

Mounts that agree in everything that makes a pool (isolation, environment, workers, ...) share one. A pool is opened
before its address listens: who can connect is served.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from .. import hostloop
from ..config import bus_of
from ..errors import PoolClosed, SubpoolError
from ..pool import Pool
from ..restarts import BROKEN, FRESH
from .acceptor import Acceptor
from .access import AccessLog
from .binding import Binding, bind
from .front import Front, Listener, Mount
from .groups import groups
from .h1 import H1
from .operations import LONG, Operations
from .pools import Pools, describe, plain
from .signals import Signals

if TYPE_CHECKING:
    from ..hooks import Hooks
    from ..services import Services
    from ..worker_hooks import WorkerHooks
    from .config import ServerConfig
    from .watcher import Watcher

log = logging.getLogger("subpool")

PATIENCE: Final = 1.0  # seconds for a connection without a request, when the server ends


class Server:
    """`await server.serve()`, or `start` and `stop` to embed it. Not to be started twice."""

    def __init__(
        self, config: ServerConfig, bindings: Sequence[Binding] | None = None, *, hooks: Hooks | None = None
    ) -> None:
        """`bindings`: sockets that are bound already; without them those that `config` names are bound.

        `hooks`: behind those that `config` names; `hooks.at(prefix)` are those of a mount.
        """
        self.config = config
        self._hooks = hooks
        self._told: WorkerHooks | None = None
        self.state = "starting"  # then ready, then draining
        self.announce = True  # where it listens, and what it serves, in the log
        self._status = 0  # for the process to end with
        self.on_fresh: Callable[[], None] | None = None  # who is asked for a process in place of this one
        self.on_stop: Callable[[], None] | None = None  # who is asked to end it
        self.guard: int | None = None  # the pid of who watches this process
        self.place = 1  # among the server processes of a guard
        self.ask_all: Callable[[str, float, dict[str, Any]], Awaitable[dict[str, Any]]] | None = None
        self.worn = False  # a process in place of this one was asked for
        self.addresses: list[str] = []
        self.pools = Pools()
        self.front: Front | None = None
        self._acceptors: list[Acceptor] = []
        self._bindings = bindings
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._services: Services | None = None  # made when an app first uses them, or the configuration does
        self.operations = Operations(self)
        self._watcher: Watcher | None = None

    def __repr__(self) -> str:
        return f"<Server {', '.join(self.addresses) or 'not started'}>"

    # starting

    async def start(self, ready: Callable[[], None] | None = None) -> None:
        """Bind, start the pools, listen, call `ready`. Raises `SubpoolError` or `OSError`; then nothing is left
        behind."""
        loop = asyncio.get_running_loop()
        config = self.config
        access = AccessLog(config.access_log) if config.access_log != "off" else None
        front = self.front = Front(config, loop, access)
        hooks = self._load_hooks()
        try:
            await self.operations.start()
            if config.reload and self.place == 1:
                from .watcher import Watcher

                self._watcher = Watcher(config, self._reload_all)
                await self._watcher.start()
            if self._bindings is None:
                bindings: list[Binding] = []
                self._bindings = bindings
                bindings.extend(bind(name, config.unix_mode) for name in config.bind)
            context = None
            if config.certfile is not None:
                from . import tls

                context = tls.context(config)
            if config.functions or bus_of(config.bus, config.state) or self._services is not None:
                await self._start_services()
            front.set_mounts(await self._open_pools(hooks))
            for binding in self._bindings:
                self._listen(loop, binding.sock, binding.name, context)
        except BaseException:
            await self.stop(0.0)
            raise
        front.start()
        self.state = "ready"
        if ready is not None:  # before the log says so: who dies then has started
            ready()
        level = logging.INFO if self.announce else logging.DEBUG
        for address in self.addresses:
            log.log(level, "listening on %s", address)
        for pool in self.pools:
            log.log(level, "%s", describe(pool, config))
        if self._watcher is not None:
            self._watcher.begin()

    def _load_hooks(self) -> Hooks | None:
        """The hooks that there are. `ConfigError` if one that is named is not there."""
        config = self.config
        if self._hooks is None and config.hooks is None and all(mount.hooks is None for mount in config.mounts):
            return None
        from ..hostloop import AsyncioLoop
        from ..worker_hooks import WorkerHooks
        from .hook_names import collected

        hooks = collected(config, self._hooks)
        self._told = WorkerHooks(hooks, AsyncioLoop())
        assert self.front is not None
        self.front.hooks = hooks.chain()
        return hooks

    async def _open_pools(self, hooks: Hooks | None) -> list[Mount]:
        mounts: list[Mount] = []
        for group in groups(self.config):
            pool = Pool(group.specs[0].app, **group.options)
            pool.services_of = self._services_of
            pool.told = self._told
            await pool.__aenter__()
            self.pools.append(pool)
            pool.engine.on_broken = self._on_broken
            pool.engine.on_exhausted = self._on_exhausted
            for spec in group.specs:
                app = None if spec.app == pool.options.app else spec.app
                namespace = None if spec.namespace == pool.options.state_namespace else spec.namespace
                mount = Mount(spec.prefix, pool.engine, app, spec.timeout, spec.max_body, namespace)
                mounts.append(mount)
                own = hooks.mounts.get(spec.prefix) if hooks is not None else None
                if hooks is not None and own is not None and (chain := own.chain()) is not None:
                    mount.hooks = chain.within(hooks.chain())
        return mounts

    def register(self, name: str, function: Any, *, inline: bool = False) -> None:
        """As `Pool.register`, for the apps of all its pools; before the start or after."""
        self._services_of().registry.add(name, function, inline)

    def _services_of(self) -> Services:
        """Functions and topics: those of all its pools together."""
        if self._services is None:
            from ..services import Services

            self._services = Services.of(self.config)
        return self._services

    async def _start_services(self) -> None:
        services, config = self._services_of(), self.config
        services.bind(hostloop.current())
        for text in config.functions:
            name, _, spec = text.partition("=")
            services.registry.add(name, spec)
        await services.join(config)
        await services.start()

    def _listen(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, name: str, context: Any) -> None:
        front = self.front
        assert front is not None
        scheme = "https" if context is not None else "http"
        if sock.family == socket.AF_UNIX:
            path = sock.getsockname()
            listener = Listener(name, scheme, (path, None))
            address = f"unix:{path}"
        else:
            host, port = sock.getsockname()[:2]
            listener = Listener(name, scheme, (host, port))
            address = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        kind = h1_type(front)
        factory: Callable[[], asyncio.Protocol]
        if context is None:
            factory = lambda: kind(front, listener)  # noqa: E731
        else:
            from . import tls

            factory = tls.negotiated(front, listener, kind)
        acceptor = Acceptor(loop, sock, factory, context, self.config.head_timeout)
        acceptor.start(self.config.backlog)
        self._acceptors.append(acceptor)
        self.addresses.append(address)

    # serving

    async def serve(self) -> int:
        """Start, serve until `request_stop` or SIGTERM or SIGINT, drain, end; the status for the process to end with.

        See `signals` for the other signals."""
        signals = Signals(self)
        signals.install()
        try:
            return await self.run()
        finally:
            signals.remove()

    async def run(self, ready: Callable[[], None] | None = None) -> int:
        """`serve` without signals; calls `ready` once it has started."""
        self.operations.serving = True
        await self.start(ready)
        await self._stopping.wait()
        await self.stop(self.config.graceful_timeout)
        return self._status

    def request_stop(self) -> None:
        """Make `serve` drain and return."""
        self._stopping.set()

    def ask_stop(self) -> None:
        """The same, by whoever watches this process, if someone does."""
        if self.on_stop is not None:
            self.on_stop()
        else:
            self.request_stop()

    def _on_broken(self, error: SubpoolError) -> None:
        log.critical("the server ends: %s", error)
        self._status = BROKEN
        self.request_stop()

    def _on_exhausted(self, why: str) -> None:
        if not self.worn:
            self.worn = True
            log.warning("another process is to take the place of this one: %s", why)
            self.request_fresh()

    def request_fresh(self) -> None:
        """This process is worn out and another must take its place: whoever watches it is asked for one; where nobody
        does, `serve` drains and returns FRESH."""
        if self.on_fresh is not None:
            self.on_fresh()
        else:
            self._status = FRESH
            self.request_stop()

    async def stop(self, drain: float) -> None:
        """Listen no more; what is under way has `drain` seconds; then everything is cut and the pools end.

        A connection that has asked nothing yet may have a request on its way: it has a moment. An app that goes on
        behind its last response (background tasks) has what is left of the time, and not more than the pool allows.
        """
        self.state = "draining"
        if self._watcher is not None:
            await self._watcher.close()
        front = self.front
        now = asyncio.get_running_loop().time
        deadline = now() + drain
        patience = min(deadline, now() + PATIENCE)
        for acceptor in self._acceptors:
            acceptor.close()
        for binding in self._bindings or ():
            binding.close()
        if front is not None:
            front.draining = True
            for connection in list(front.connections):
                connection.drain()
            while (front.connections or (self._accepting() and now() < patience)) and now() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # once in a server's life
            for connection in list(front.connections):
                connection.abort()
            front.stop()
        left = max(0.0, deadline - now())
        await self.pools.close(left)
        if self._services is not None:
            await self._services.close()
        if self._told is not None:
            await self._told.settle()
        await self.operations.close()

    def _accepting(self) -> bool:
        return any(acceptor.busy for acceptor in self._acceptors)

    # while it runs

    def status(self) -> dict[str, Any]:
        """What it is and does at this moment, as plain data; of each pool its app and the fields of `PoolStats`."""
        front = self.front
        return {
            "pid": os.getpid(),
            "guard": self.guard,
            "state": self.state,
            "addresses": list(self.addresses),
            "connections": len(front.connections) if front is not None else 0,
            "requests": front.requests if front is not None else 0,
            "services": None if self._services is None else plain(dataclasses.asdict(self._services.stats())),
            "pools": self.pools.status(),
        }

    async def reload(self) -> str | None:
        """Fresh workers, with the code as it is now, take over; the old finish what they have. None, or what is wrong
        with the new code: then the old workers stay.

        Workers that are threads share this process's copy of the app: it takes a fresh process.
        """
        reason = await self._reload()
        if self._told is not None:
            from ..hooks import Reload

            fresh = reason is None and self.pools.threads()
            self._told.reloaded(Reload(reason, fresh))
        return reason

    async def _reload(self) -> str | None:
        async with self._reloading:
            if self.pools.threads():
                if self.on_fresh is not None:
                    self.on_fresh()
                    return None
                reason = "its workers are threads of this process, which no guard can replace"
                log.error("not reloaded: %s", reason)
                return reason
            wrong = await self.pools.renew()
            if wrong is None:
                log.info("reloaded: %s", self.pools.describe(self.config))
            return wrong

    async def _reload_all(self) -> None:
        """The server processes beside this one too."""
        if self.ask_all is not None:
            await self.ask_all("reload", LONG, {})
        else:
            await self.reload()

    async def recycle(self, worker: int) -> None:
        """Replace the workers of that number, one in each pool. `ValueError` if no pool has it."""
        await self.pools.recycle(worker)

    def workers(self) -> list[int]:
        """How many each pool has, or is about to have again."""
        return self.pools.workers()

    def size(self) -> list[int | None]:
        """How many each pool should have; None where it finds that by itself."""
        return self.pools.size()

    async def scale(
        self, count: int | None = None, *, delta: int = 0, counts: Sequence[int | None] = ()
    ) -> list[int]:
        """`count` workers in every pool, or `delta` more than there are, but one at least; how many each has then.

        `counts`: for each pool, where it is not None.
        """
        if self.state != "ready":
            raise PoolClosed(f"the server is {self.state}")
        return self.pools.scale(count, delta, counts)


def h1_type(front: Front) -> type[H1]:
    """What connections of HTTP/1.1 are: with hooks they go another way, so that without them they pay nothing."""
    if not front.hooked:
        return H1
    chains = (front.hooks, *(mount.hooks for mount in front.mounts))
    if any(chain is not None and chain.on_response for chain in chains):
        from .h1_responding import RespondingH1

        return RespondingH1
    from .h1_hooked import HookedH1

    return HookedH1


async def serve(config: ServerConfig, *, hooks: Hooks | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    await Server(config, hooks=hooks).serve()
