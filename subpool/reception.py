"""Accepts connections for a small server of ours beside the big one, and runs a coroutine for each. Bounded.

It works on sockets, by what asyncio's loop and uvloop both have for them: who is cancelled leaves nothing behind, and
`send` returns when all was sent. (`asyncio.Server` loses a connection that it accepts in the turn in which it is
closed: its client waits for ever.)
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

log = logging.getLogger("subpool")

RETRY: Final = 0.5  # seconds, where the system cannot accept: no descriptors left

Converse = Callable[["Peer", bool], Awaitable[None]]


class Overlong(Exception):
    """The peer said more than it may at once."""


class Peer:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._data = b""

    async def until(self, mark: bytes, most: int) -> bytes:
        """What comes next, up to `mark` and with it. `EOFError` at the end, `Overlong` beyond `most` bytes."""
        while (found := self._data.find(mark)) < 0:
            if len(self._data) > most:
                raise Overlong
            got = await self._loop.sock_recv(self.sock, 4096)
            if not got:
                raise EOFError
            self._data += got
        end = found + len(mark)
        if end > most:
            raise Overlong
        text, self._data = self._data[:end], self._data[end:]
        return text

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self._loop.sock_sendall(self.sock, data)

    async def finish(self) -> None:
        """Say that nothing more comes, and wait until the peer has ended: closing on unread data cuts what was sent."""
        self.sock.shutdown(socket.SHUT_WR)
        while await self._loop.sock_recv(self.sock, 4096):
            pass


class Reception:
    """`converse(peer, full)` for each connection to `sock`, which listens; the connection is closed when that returns.

    `full`: `clients` are being served already, and this one has to be sent away.
    """

    def __init__(self, sock: socket.socket, converse: Converse, clients: int) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._converse = converse
        self._most = clients
        self._clients: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def __len__(self) -> int:
        return len(self._clients)

    def leave(self) -> None:
        """Accept no more."""
        self._accepting.cancel()

    async def close(self) -> None:
        """Accept no more, cut all connections. A second call does nothing."""
        tasks = [self._accepting, *self._clients]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                log.debug("cannot accept: %s", error)
                await asyncio.sleep(RETRY)
                continue
            task = loop.create_task(self._serve(Peer(sock), len(self._clients) >= self._most))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
            task.add_done_callback(lambda _, sock=sock: sock.close())  # type: ignore[misc]  # a default is no surprise

    async def _serve(self, peer: Peer, full: bool) -> None:
        try:
            await self._converse(peer, full)
        except (EOFError, OSError):
            pass  # it has gone, or is too slow (TimeoutError)
