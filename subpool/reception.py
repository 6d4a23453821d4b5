"""Accepts connections for a small server of ours beside the big one, and runs a coroutine for each. Bounded.

It works on sockets, by what asyncio's loop and uvloop both have for them: who is cancelled leaves nothing behind, and
`send` returns when all was sent. Accepting is a callback, since a `sock_accept` that is cancelled may have accepted.
(`asyncio.Server` loses a connection that it accepts in the turn in which it is closed: its client waits for ever.)
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

log = logging.getLogger("subpool")

RETRY: Final = 0.5  # seconds, where the system cannot accept: no descriptors left
MOMENT: Final = 0.5  # seconds for those who wait for a reply, when all ends

Converse = Callable[["Peer", bool], Awaitable[None]]


class Overlong(Exception):
    """The peer said more than it may at once."""


class Peer:
    """One connection. `busy`: a reply is owed, or may be, as nothing was asked yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.busy = True
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

    `full`: `clients` are being served already, and this one has to be sent away. Other processes may accept from the
    same socket: what one of them has taken is no error.
    """

    def __init__(self, sock: socket.socket, converse: Converse, clients: int) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._converse = converse
        self._most = clients
        self._clients: dict[asyncio.Task[None], Peer] = {}
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._listen()

    def __len__(self) -> int:
        return len(self._clients)

    def leave(self) -> None:
        """Accept no more. What was accepted is served."""
        if self._retry is not None:
            self._retry.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)

    async def close(self) -> None:
        """Accept no more; who waits for a reply has `MOMENT`; then cut all. A second call does nothing."""
        self.leave()
        end = self._loop.time() + MOMENT
        while any(peer.busy for peer in self._clients.values()) and self._loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # once in a server's life
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._sock.close()

    def _listen(self) -> None:
        self._retry = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            log.debug("cannot accept: %s", error)
            self.leave()
            self._retry = self._loop.call_later(RETRY, self._listen)
            return
        sock.setblocking(False)
        peer = Peer(sock)
        task = self._loop.create_task(self._serve(peer, len(self._clients) >= self._most))
        self._clients[task] = peer
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._clients.pop(task).sock.close()

    async def _serve(self, peer: Peer, full: bool) -> None:
        try:
            await self._converse(peer, full)
        except (EOFError, OSError):
            pass  # it has gone, or is too slow (TimeoutError)
