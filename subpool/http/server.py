"""The server: bound sockets, a pool for each kind of mount, connections; from its start to its last response.

Mounts that agree in everything that makes a pool (isolation, environment, workers, ...) share one. A pool is opened
before its address listens: who can connect is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import PoolClosed, SubpoolError
from ..pool import Pool
from .acceptor import Acceptor
from .access import AccessLog
from .front import Front, Listener, Mount
from .groups import groups
from .h1 import H1
from .operations import Operations

if TYPE_CHECKING:
    from .config import ServerConfig

log = logging.getLogger("subpool")

_KINDS = {"subinterpreter": "sub-interpreter", "thread": "thread", "process": "process"}


class Server:
    """`await server.serve()`, or `start` and `stop` to embed it. Not to be started twice."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.state = "starting"  # then ready, then draining
        self.addresses: list[str] = []
        self.pools: list[Pool] = []
        self.front: Front | None = None
        self._acceptors: list[Acceptor] = []
        self._sockets: list[socket.socket] = []
        self._unix: list[tuple[str, int]] = []
        self._stopping: asyncio.Event = asyncio.Event()
        self._operations = Operations(self)

    def __repr__(self) -> str:
        return f"<Server {', '.join(self.addresses) or 'not started'}>"

    # starting

    async def start(self) -> None:
        """Bind, start the pools, listen. Raises `SubpoolError` or `OSError`; then nothing is left behind."""
        loop = asyncio.get_running_loop()
        config = self.config
        access = AccessLog(config.access_log) if config.access_log != "off" else None
        front = self.front = Front(config, loop, access)
        try:
            await self._operations.start()
            bound = [self._bind(name) for name in config.bind]
            context = None
            if config.certfile is not None:
                from . import tls

                context = tls.context(config)
            front.set_mounts(await self._open_pools())
            for sock, name in bound:
                self._listen(loop, sock, name, context)
        except BaseException:
            await self.stop(0.0)
            raise
        front.start()
        self.state = "ready"
        for address in self.addresses:
            log.info("listening on %s", address)
        for pool in self.pools:
            log.info("%s", describe(pool, config))

    async def _open_pools(self) -> list[Mount]:
        mounts: list[Mount] = []
        for group in groups(self.config):
            pool = Pool(group.specs[0].app, **group.options)
            await pool.__aenter__()
            self.pools.append(pool)
            for spec in group.specs:
                app = None if spec.app == pool.options.app else spec.app
                mounts.append(Mount(spec.prefix, pool.engine, app, spec.timeout, spec.max_body))
        return mounts

    def _bind(self, name: str) -> tuple[socket.socket, str]:
        if name.startswith("unix:"):
            sock = self._bind_unix(name[5:])
        elif name.startswith("fd://"):
            try:
                sock = socket.socket(fileno=os.dup(int(name[5:])))
            except OSError as error:
                raise OSError(error.errno, f"cannot listen on {name}: {error.strerror}") from None
        else:
            host, _, port = name.rpartition(":")
            host = host.strip("[]")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            if host and family == socket.AF_INET:
                family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, int(port)))
            except OSError as error:
                sock.close()
                raise OSError(error.errno, f"cannot listen on {name}: {error.strerror}") from None
        self._sockets.append(sock)
        sock.setblocking(False)
        return sock, name

    def _bind_unix(self, path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                    probe.connect(path)
                raise OSError(98, f"cannot listen on unix:{path}: another server does")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            sock.bind(path)
            os.chmod(path, int(self.config.unix_mode, 8))
        except OSError as error:
            sock.close()
            message = str(error) if "cannot listen" in str(error) else f"cannot listen on unix:{path}: {error.strerror}"
            raise OSError(error.errno, message) from None
        self._unix.append((path, os.stat(path).st_ino))
        return sock

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
        factory: Callable[[], asyncio.Protocol]
        if context is None:
            factory = lambda: H1(front, listener)  # noqa: E731
        else:
            from . import tls

            factory = tls.negotiated(front, listener)
        acceptor = Acceptor(loop, sock, factory, context, self.config.head_timeout)
        acceptor.start(self.config.backlog)
        self._acceptors.append(acceptor)
        self.addresses.append(address)

    # serving

    async def serve(self) -> None:
        """Start, serve until `request_stop` or SIGTERM or SIGINT, drain, end. A second signal ends at once."""
        loop = asyncio.get_running_loop()
        caught: list[int] = []

        def on_signal(number: int) -> None:
            if caught:
                log.warning("%s again: ending at once", signal.Signals(number).name)
                sys.stderr.flush()
                os._exit(128 + number)
            caught.append(number)
            log.info("%s: draining", signal.Signals(number).name)
            self._stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        self._operations.serving = True
        try:
            await self.start()
            await self._stopping.wait()
            await self.stop(self.config.graceful_timeout)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def request_stop(self) -> None:
        """Make `serve` drain and return."""
        self._stopping.set()

    async def stop(self, drain: float) -> None:
        """Listen no more; what is under way has `drain` seconds; then everything is cut and the pools end.

        An app that goes on behind its last response (background tasks) has what is left of that time, and not more
        than the pool allows.
        """
        self.state = "draining"
        front = self.front
        deadline = asyncio.get_running_loop().time() + drain
        for acceptor in self._acceptors:
            acceptor.close()
        for sock in self._sockets:
            sock.close()
        for path, inode in self._unix:
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        self._unix.clear()
        if front is not None:
            front.draining = True
            for connection in list(front.connections):
                connection.drain()
            while front.connections and front.loop.time() < deadline:  # noqa: ASYNC110  once in a server's life
                await asyncio.sleep(0.02)
            for connection in list(front.connections):
                connection.abort()
            front.stop()
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.gather(*(pool.close(left) for pool in self.pools), return_exceptions=True)
        await self._operations.close()

    # while it runs

    def status(self) -> dict[str, Any]:
        """What it is and does at this moment, as plain data; of each pool its app and the fields of `PoolStats`."""
        front = self.front
        return {
            "pid": os.getpid(),
            "state": self.state,
            "addresses": list(self.addresses),
            "connections": len(front.connections) if front is not None else 0,
            "requests": front.requests if front is not None else 0,
            "pools": [{"app": pool.options.app, **_plain(dataclasses.asdict(pool.stats()))} for pool in self.pools],
        }

    async def reload(self) -> str | None:
        """Fresh workers, with the code as it is now, take over; the old finish what they have. None, or what is wrong
        with the new code: then the old workers stay."""
        if any(pool.isolation == "thread" for pool in self.pools):
            return "its workers are threads, which share one copy of the app: start a new process"
        for pool in self.pools:
            try:
                await pool.recycle()
            except SubpoolError as error:
                log.error("not reloaded, the old workers stay: %s", error)
                return str(error)
        return None

    async def recycle(self, worker: int) -> None:
        """Replace the workers of that number, one in each pool. `ValueError` if no pool has it."""
        found = [pool for pool in self.pools if any(one.id == worker for one in pool.stats().workers)]
        if not found:
            raise ValueError(f"there is no worker {worker}")
        for pool in found:
            await pool.recycle(worker)

    async def scale(self, count: int) -> list[int]:
        """`count` workers in every pool; how many each has then."""
        if self.state != "ready":
            raise PoolClosed(f"the server is {self.state}")
        for pool in self.pools:
            pool.engine.crew.scale(count)
        return [count for _ in self.pools]


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: a NaN is None."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if value != value else value


def describe(pool: Pool, config: ServerConfig) -> str:
    """`2 sub-interpreters (auto), app myapp:app`."""
    workers = len(pool.stats().workers)
    kind = _KINDS[pool.isolation] + ("" if workers == 1 else "es" if pool.isolation == "process" else "s")
    chosen = " (auto)" if config.isolation == "auto" else ""
    return f"{workers} {kind}{chosen}, app {pool.options.app}"


async def serve(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    await Server(config).serve()
