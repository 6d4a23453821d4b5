"""A server process: the server, and a thread that listens to the guard, and ends the process with it.

The configuration comes as plain data, already judged: what judges it (pydantic) is not loaded here.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from ..cli import report
from ..errors import SubpoolError
from ..http.binding import Binding
from ..http.logs import reopen, set_up_logging
from ..http.loops import loop_factory
from ..http.operations import Given
from ..worker.tether import die_with_parent
from .caught import leave_to_the_guard
from .link import Link, Message

if TYPE_CHECKING:
    from ..http.config import ServerConfig
    from ..http.server import Server

LOOK: float = 0.1  # seconds between looks whether a request came
MARGIN: float = 3.0  # seconds in which the guard says what it has


class Served:
    """The server of this process, under a guard."""

    def __init__(self, link: Link, given: Message, more: Sequence[Message]) -> None:
        """`given`: the guard's first message; `more`: what it has said since."""
        from ..http.server import Server

        self._link = link
        self._given = given
        self._more = more
        self._config = plain(given["config"])
        self._bindings = [Binding(name, _socket(fd)) for name, fd in given["sockets"]]
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._numbers = itertools.count()
        self._make = Server
        self._server: Server
        self._loop: asyncio.AbstractEventLoop
        self._ready: asyncio.Event
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self) -> int:
        """Serve until the guard says otherwise; the status."""
        set_up_logging(self._config)
        with asyncio.Runner(loop_factory=loop_factory(self._config.loop)) as runner:
            return runner.run(self._serve())

    async def _serve(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        server = self._server = self._make(self._config, self._bindings)
        server.announce = self._given["announce"]
        server.guard = os.getppid()
        server.place = self._given["place"]
        server.ask_all = self._ask_all
        server.on_fresh = lambda: self._tell("fresh", worn=server.worn)
        server.on_stop = lambda: self._tell("stop")
        server.operations.given = {
            use: Given(name, _socket(fd), ours) for use, (name, fd, ours) in self._given["operations"].items()
        }
        for message in self._more:
            self._obey(message)
        threading.Thread(target=self._listen, name="subpool-guard", daemon=True).start()
        return await server.run(self._on_ready)

    def _on_ready(self) -> None:
        self._tell("ready", size=self._server.size())
        self._ready.set()
        self._begin(self._watch_requests())

    async def _watch_requests(self) -> None:
        front = self._server.front
        while front is not None and not front.requests:  # noqa: ASYNC110  counting is all that a request should cost
            await asyncio.sleep(LOOK)
        self._tell("served")

    # what the guard says, and is told

    def _tell(self, event: str, **more: Any) -> None:
        self._link.send({"event": event, **more})

    def _listen(self) -> None:
        """On its own thread: the loop may be blocked when the guard goes."""
        while True:
            messages = self._link.receive()
            if messages is None:
                os.kill(os.getpid(), signal.SIGKILL)
                return
            try:
                for message in messages:
                    self._loop.call_soon_threadsafe(self._obey, message)
            except RuntimeError:
                pass  # the loop is closed: this process is ending already

    def _obey(self, message: Message) -> None:
        if message["do"] == "told":
            asked = self._asked.pop(message["id"], None)
            if asked is not None and not asked.done():
                asked.set_result(message)
        elif message["do"] == "drain":
            self._server.operations.leave(message["operations"])
            self._server.request_stop()
        else:
            self._tell("heard", id=message["id"])
            self._begin(self._answer(message))

    async def _ask_all(self, do: str, seconds: float, more: dict[str, Any]) -> Message:
        """`Server.ask_all`, by way of the guard."""
        number = next(self._numbers)
        asked: asyncio.Future[Message] = self._loop.create_future()
        self._asked[number] = asked
        self._tell("ask", id=number, what=do, seconds=seconds, more=more)
        try:
            async with asyncio.timeout(seconds + MARGIN):
                return await asked
        except TimeoutError:
            raise SubpoolError("the guard does not answer") from None
        finally:
            self._asked.pop(number, None)

    def _begin(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message) -> None:
        if message["do"] not in ("status", "operate"):
            await self._ready.wait()
        try:
            value = await self._do(message)
        except (SubpoolError, OSError, RuntimeError, ValueError) as error:
            self._tell("answer", id=message["id"], error=str(error))
        else:
            self._tell("answer", id=message["id"], value=value)

    async def _do(self, message: Message) -> Any:
        server, do = self._server, message["do"]
        if do == "status":
            return server.operations.own_status()
        if do == "operate":
            await server.operations.take_over()
        elif do == "reload":
            reason = await server.reload()
            if reason is not None:
                raise SubpoolError(reason)
        elif do == "scale":
            return await server.scale(message.get("count"), delta=message.get("delta", 0), counts=message["counts"])
        elif do == "recycle":
            if not any(message["worker"] == one["id"] for pool in server.status()["pools"] for one in pool["workers"]):
                return False  # another process may have one
            await server.recycle(message["worker"])
            return True
        elif do == "reopen":
            reopen()
        else:
            raise ValueError(f"a server does not know {do!r}")
        return None


def plain(config: dict[str, Any]) -> ServerConfig:
    """What stands for a `ServerConfig` here: its fields, as attributes."""
    mounts = [SimpleNamespace(**mount) for mount in config["mounts"]]
    return cast("ServerConfig", SimpleNamespace(**{**config, "mounts": mounts}))


def _socket(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def main(arguments: Sequence[str]) -> int:
    """Serve, joined to the guard by the descriptor, and of the pid, in `arguments`."""
    fd, guard = map(int, arguments)
    die_with_parent(guard)
    leave_to_the_guard()
    link = Link(_socket(fd), blocking=True)
    messages: list[Message] | None = []
    while not messages:
        messages = link.receive()
        if messages is None:
            return 1
    try:
        return Served(link, messages[0], messages[1:]).run()
    except (SubpoolError, OSError, ModuleNotFoundError) as error:
        status = report(error)
        link.send({"event": "failed"})
        return status
