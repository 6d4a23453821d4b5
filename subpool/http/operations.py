"""What a server has for whoever operates it, beside what it serves: a control socket, a listener for its metrics.

Both are there from before the pools start until they have ended, so that `starting` and `draining` can be seen.

Under a guard the sockets are the guard's, and all its server processes accept from them: whichever does asks the others
by way of the guard, and answers for all (`siblings`). So they outlive a process that dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from .. import __version__
from ..control import Control, Handler, own_path
from ..errors import SubpoolError
from . import siblings

if TYPE_CHECKING:
    from .config import ServerConfig
    from .metrics import Metrics

log = logging.getLogger("subpool")

STATUS_TIME: Final = 3.0  # seconds until all server processes must have told their status
SHORT: Final = 10.0  # until they must have scaled
LONG: Final = 590.0  # until they must have started their workers anew; the command waits a little longer


class Given(NamedTuple):
    """A socket that listens already. `ours`: not yet another guard's, which this one's is to follow."""

    name: str
    sock: socket.socket
    ours: bool


class Operated(Protocol):
    """What is asked of a server. `reload` answers what is wrong with the new code, or None. `ask_all(do, seconds,
    arguments)` asks every server process of the guard: see `guard.relay`."""

    config: ServerConfig
    state: str
    announce: bool
    guard: int | None  # the pid of who watches this process
    ask_all: Callable[[str, float, dict[str, Any]], Awaitable[dict[str, Any]]] | None

    def status(self) -> dict[str, Any]: ...
    async def reload(self) -> str | None: ...
    async def scale(self, count: int) -> list[int]: ...
    async def recycle(self, worker: int) -> None: ...
    def ask_stop(self) -> None: ...


class Operations:
    """`serving`: the process is the server's own; embedded, it has a control socket only at a path that was given.
    `given`: the sockets of a guard, by their use."""

    def __init__(self, server: Operated) -> None:
        self.serving = False
        self.given: dict[str, Given] | None = None
        self._server = server
        self._since = time.monotonic()
        self._control: Control | None = None
        self._metrics: Metrics | None = None

    async def start(self) -> None:
        """Open what is configured. `OSError`, and `ConfigError` where prometheus_client is missing."""
        config = self._server.config
        if self.given is not None:
            for use, given in self.given.items():
                if given.ours:
                    await self._open(use, given)
            return
        if config.metrics_bind is not None:
            await self._open_metrics()
        if config.control_socket == "auto":
            if self.serving:
                await self._open_own_control()
        elif config.control_socket != "none":
            await self._open_control(config.control_socket)

    async def _open(self, use: str, given: Given) -> None:
        if use == "metrics":
            await self._open_metrics(given.sock)
        else:
            await self._open_control(given.name.removeprefix("unix:"), given.sock)

    async def take_over(self) -> None:
        """The guard before this process's has no more use of its sockets."""
        for use, given in (self.given or {}).items():
            if not given.ours:
                try:
                    await self._open(use, given)
                except (SubpoolError, OSError) as error:
                    log.error("%s", error)

    def leave(self, kept: Sequence[str]) -> None:
        """Accept nothing more from the guard's sockets but those in `kept`: another guard goes on with them."""
        if self._control is not None and "control" not in kept:
            self._control.leave()
        if self._metrics is not None and "metrics" not in kept:
            self._metrics.leave()

    async def _open_metrics(self, sock: socket.socket | None = None) -> None:
        from .metrics import Metrics

        config = self._server.config
        assert config.metrics_bind is not None
        metrics = Metrics(config.metrics_bind, int(config.unix_mode, 8), self.status_of_each)
        await metrics.start(sock)
        self._metrics = metrics
        log.log(logging.INFO if self._server.announce else logging.DEBUG, "metrics at %s", metrics.address)

    async def _open_own_control(self) -> None:
        """A server that cannot have one, as on a read-only system, runs without."""
        try:
            await self._open_control(own_path(os.getpid()))
        except OSError as error:
            log.warning("there is no control socket: %s", error)

    async def _open_control(self, path: str, sock: socket.socket | None = None) -> None:
        handlers: dict[str, Handler] = {
            "status": self.status,
            "reload": self.reload,
            "scale": self.scale,
            "recycle": self.recycle,
            "stop": self.stop,
        }
        control = Control(path, handlers)
        await control.start(sock)
        self._control = control

    async def close(self) -> None:
        """End both; a `subpool stop` that waits sees the control socket close."""
        if self._metrics is not None:
            await self._metrics.close()
        if self._control is not None:
            await self._control.close()

    # the commands

    def own_status(self) -> dict[str, Any]:
        """This process's status, and what it runs on."""
        uptime = round(time.monotonic() - self._since, 3)
        python = ".".join(map(str, sys.version_info[:3]))
        return {"version": __version__, "python": python, "uptime": uptime, **self._server.status()}

    async def status(self) -> dict[str, Any]:
        """The server's status, of all its processes."""
        found = await self.status_of_each()
        found.pop("each", None)
        return found

    async def status_of_each(self) -> dict[str, Any]:
        """The same; where there are several processes, `each` has the status of each that answers, by its place."""
        if self._server.ask_all is None:
            return self.own_status()
        told = await self._server.ask_all("status", STATUS_TIME, {})
        for answer in told["answers"]:
            if answer["pid"] == os.getpid():
                answer["value"] = self.own_status()  # also while it starts
        if self._server.config.processes == 1:
            (one,) = siblings.shown(told["answers"]) or [{"value": self.own_status()}]
            return dict(one.get("value") or self.own_status())
        return siblings.together(told["answers"], self._server.config.processes, self._server.guard, told["uptime"])

    async def reload(self) -> None:
        """`SubpoolError` says why not."""
        if self._server.ask_all is not None:
            await self._of_all("reload", LONG)
            return
        self._check_ready()
        wrong = await self._server.reload()
        if wrong is not None:
            raise SubpoolError(wrong)

    async def scale(self, workers: int) -> list[int]:
        """How many workers each pool has then."""
        count = _whole(workers)
        if self._server.ask_all is not None:
            scaled: list[list[int]] = await self._of_all("scale", SHORT, count=count)
            return scaled[0]
        self._check_ready()
        return await self._server.scale(count)

    async def recycle(self, worker: int) -> None:
        """`ValueError` if there is no such worker."""
        number = _whole(worker)
        if self._server.ask_all is None:
            self._check_ready()
            await self._server.recycle(number)
        elif not any(await self._of_all("recycle", LONG, worker=number)):
            raise ValueError(f"there is no worker {number}")

    async def _of_all(self, do: str, seconds: float, **more: Any) -> list[Any]:
        """What each server process answered. `SubpoolError` if one did not do it, or if none is there for it."""
        assert self._server.ask_all is not None
        told = (await self._server.ask_all(do, seconds, more))["answers"]
        if not told:
            raise SubpoolError(f"the server is {'starting' if self._server.state == 'ready' else self._server.state}")
        wrong = siblings.wrong(told)
        if wrong is not None:
            raise SubpoolError(wrong)
        return [answer["value"] for answer in told]

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
