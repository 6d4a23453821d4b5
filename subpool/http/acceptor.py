"""Accepting connections on a bound socket, through whichever event loop.

asyncio's own servers answer a lack of descriptors (EMFILE) with a storm of retries. Here accepting pauses, says so
once, and resumes; meanwhile open connections are served.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger("subpool")

TURN: Final = 64  # connections accepted in one turn of the loop
PAUSE: Final = 0.5  # seconds
QUIET: Final = 60.0  # seconds before the same is said again
_LACK: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """`factory` makes the protocol of a connection; `context` is for TLS."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        context: Any,
        handshake: float,
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._factory = factory
        self._context = context
        self._handshake = handshake  # seconds that TLS may take
        self._tasks: set[asyncio.Task[None]] = set()
        self._said = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._open = False

    def __repr__(self) -> str:
        return f"<Acceptor {self._socket}{'' if self._open else ' paused'}>"

    @property
    def busy(self) -> bool:
        """Whether connections were accepted that have no protocol yet."""
        return bool(self._tasks)

    def start(self, backlog: int) -> None:
        self._socket.setblocking(False)
        self._socket.listen(backlog)
        self._resume()

    def _resume(self) -> None:
        self._timer = None
        self._open = True
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(TURN):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _LACK:
                    raise
                self._pause(error)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is None:
                await self._loop.connect_accepted_socket(self._factory, connection)
            else:
                await self._loop.connect_accepted_socket(
                    self._factory, connection, ssl=self._context, ssl_handshake_timeout=self._handshake
                )
        except (OSError, TimeoutError) as error:  # the client left, or its handshake failed (ssl.SSLError)
            connection.close()
            log.debug("a connection was not made: %s", error)

    def _pause(self, error: OSError) -> None:
        self.close()
        self._timer = self._loop.call_later(PAUSE, self._resume)
        now = self._loop.time()
        if now - self._said > QUIET:
            self._said = now
            log.error("no connections are accepted for the moment: %s", error.strerror)

    def close(self) -> None:
        """Accept no more. A second call does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket.fileno())
