"""What signals ask of a server that nobody guards.

SIGTERM and SIGINT drain it, a second one ends the process at once; SIGHUP reloads; SIGTTIN and SIGTTOU add and remove a
worker; SIGUSR1 opens the log files again. The event loop calls, so that nothing happens inside a signal's handler.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..errors import SubpoolError
from .logs import reopen

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger("subpool")


class Signals:
    """Of the process's main thread, while `server` runs there."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False
        self._does = {
            signal.SIGTERM: self._end,
            signal.SIGINT: self._end,
            signal.SIGHUP: lambda number: self._begin(server.reload()),
            signal.SIGTTIN: lambda number: self._begin(server.scale(delta=1)),
            signal.SIGTTOU: lambda number: self._begin(server.scale(delta=-1)),
            signal.SIGUSR1: lambda number: reopen(),
        }

    def install(self) -> None:
        for number, does in self._does.items():
            self._loop.add_signal_handler(number, does, number)

    def remove(self) -> None:
        for number in self._does:
            self._loop.remove_signal_handler(number)

    def _end(self, number: signal.Signals) -> None:
        if self._ending:
            log.warning("%s again: ending at once", number.name)
            sys.stderr.flush()
            os._exit(128 + number)
        self._ending = True
        log.info("%s: draining", number.name)
        self._server.request_stop()

    def _begin(self, coroutine: Coroutine[Any, Any, object]) -> None:
        task = self._loop.create_task(self._guarded(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, coroutine: Coroutine[Any, Any, object]) -> None:
        try:
            await coroutine
        except (SubpoolError, OSError, RuntimeError, ValueError) as error:
            log.error("%s", error)
