"""What a server has for whoever operates it, beside what it serves: a control socket, a listener for its metrics.

Both are there from before the pools start until they have ended, so that `starting` and `draining` can be seen.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from .. import __version__
from ..control import Control, Handler, own_path
from ..errors import SubpoolError

if TYPE_CHECKING:
    from .config import ServerConfig
    from .metrics import Metrics

log = logging.getLogger("subpool")

LOOK: Final = 0.2  # seconds between looks whether an address is free


class Operated(Protocol):
    """What is asked of a server. `reload` answers what is wrong with the new code, or None."""

    config: ServerConfig
    state: str
    guard: int | None  # the pid of who watches this process
    successor: bool  # of another process, which may still have addresses

    def status(self) -> dict[str, Any]: ...
    async def reload(self) -> str | None: ...
    async def scale(self, count: int) -> list[int]: ...
    async def recycle(self, worker: int) -> None: ...
    def ask_stop(self) -> None: ...


class Operations:
    """`serving`: the process is the server's own; embedded, it has a control socket only at a path that was given."""

    def __init__(self, server: Operated) -> None:
        self.serving = False
        self._server = server
        self._since = time.monotonic()
        self._control: Control | None = None
        self._metrics: Metrics | None = None
        self._waiting: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open what is configured. `OSError`, and `ConfigError` where prometheus_client is missing."""
        config = self._server.config
        if config.metrics_bind is not None:
            await self._open(self._open_metrics)
        if config.control_socket == "auto":
            if self.serving:
                await self._open_own_control()
        elif config.control_socket != "none":
            await self._open(lambda: self._open_control(config.control_socket))

    async def _open(self, opening: Callable[[], Awaitable[None]]) -> None:
        """A process that takes another's place has the addresses when that one has ended."""
        try:
            await opening()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not self._server.successor:
                raise
            self._waiting.append(asyncio.create_task(self._open_later(opening)))

    async def _open_later(self, opening: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await opening()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                log.error("%s", error)
            return

    async def _open_metrics(self) -> None:
        from .metrics import Metrics

        config = self._server.config
        assert config.metrics_bind is not None
        metrics = Metrics(config.metrics_bind, int(config.unix_mode, 8), self.status)
        await metrics.start()
        self._metrics = metrics
        log.info("metrics at %s", metrics.address)

    async def _open_own_control(self) -> None:
        """A server that cannot have one, as on a read-only system, runs without."""
        try:
            await self._open_control(own_path(self._server.guard or os.getpid()))
        except OSError as error:
            log.warning("there is no control socket: %s", error)

    async def _open_control(self, path: str) -> None:
        handlers: dict[str, Handler] = {
            "status": self.status,
            "reload": self.reload,
            "scale": self.scale,
            "recycle": self.recycle,
            "stop": self.stop,
        }
        control = Control(path, handlers)
        await control.start()
        self._control = control

    async def close(self) -> None:
        """End both; a `subpool stop` that waits sees the control socket close."""
        for task in self._waiting:
            task.cancel()
        if self._metrics is not None:
            await self._metrics.close()
        if self._control is not None:
            await self._control.close()

    # the commands

    async def status(self) -> dict[str, Any]:
        """The server's status, and what it runs on."""
        uptime = round(time.monotonic() - self._since, 3)
        python = ".".join(map(str, sys.version_info[:3]))
        return {"version": __version__, "python": python, "uptime": uptime, **self._server.status()}

    async def reload(self) -> None:
        """`SubpoolError` says why not."""
        self._check_ready()
        wrong = await self._server.reload()
        if wrong is not None:
            raise SubpoolError(wrong)

    async def scale(self, workers: int) -> list[int]:
        """How many workers each pool has then."""
        self._check_ready()
        return await self._server.scale(_whole(workers))

    async def recycle(self, worker: int) -> None:
        """`ValueError` if there is no such worker."""
        self._check_ready()
        await self._server.recycle(_whole(worker))

    async def stop(self) -> dict[str, float]:
        """Begin to drain. `limit`: seconds until the server has ended, come what may."""
        if not self.serving:
            raise SubpoolError("this server is embedded in a program, which alone can stop it")
        asyncio.get_running_loop().call_soon(self._server.ask_stop)
        config = self._server.config
        return {"limit": config.graceful_timeout + config.close_timeout + 5.0}

    def _check_ready(self) -> None:
        if self._server.state != "ready":
            raise SubpoolError(f"the server is {self._server.state}")


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise ValueError(f"{number!r} is no whole number")
    return number
