"""The control socket: commands to a running server, over a unix socket that only its user can reach.

Rules:

- A request is a line of JSON, `{"command": "scale", "arguments": {"workers": 3}}`, and so is its reply,
  `{"result": ...}` or `{"error": "text"}`. A connection may have any number of them, one after the other.
- Only the same user and root are heard: the default folder has mode 0700 and the socket 0600, and where the system
  tells who the peer is (Linux) it is asked.
- All is bounded: `CLIENTS` connections, `LINE` bytes a request, `PATIENCE` seconds until the next request is whole or a
  reply was taken. Behind the command `stop` a connection may wait: its end says that the server has ended.
- A handler is never cut because its client left. What it raises is the reply's error; a bug is logged too.

It needs nothing of the server, and runs on asyncio's loop and on uvloop, in whichever process has the handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from . import unix_sockets
from .errors import SubpoolError
from .reception import Overlong, Peer, Reception

log = logging.getLogger("subpool")

CLIENTS: Final = 16
LINE: Final = 4096
PATIENCE: Final = 10.0
SUFFIX: Final = ".sock"

Handler = Callable[..., Awaitable[Any]]  # takes the request's arguments by name; answers plain JSON data


class Control:
    """`handlers` by command, listening at `path` between `start` and `close`."""

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = handlers
        self._reception: Reception | None = None
        self._inode = 0

    def __repr__(self) -> str:
        return f"<Control {self.path}, {len(self._reception or ())} clients>"

    async def start(self, sock: socket.socket | None = None) -> None:
        """Listen, on `sock` where that does already: then its file is another's. `OSError` if that cannot be."""
        if sock is None:
            sock = listen(self.path, 0o600)
            self._inode = os.stat(self.path).st_ino
        self._reception = Reception(sock, self._serve, CLIENTS)

    def leave(self) -> None:
        """Accept nothing more, here; who is connected stays."""
        if self._reception is not None:
            self._reception.leave()

    async def close(self) -> None:
        """Listen no more, end all connections, remove the socket."""
        if self._reception is not None:
            await self._reception.close()
            unix_sockets.remove(self.path, self._inode)

    async def _serve(self, peer: Peer, full: bool) -> None:
        if peer_of(peer.sock)[1] not in (None, 0, os.geteuid()):
            log.warning("%s: refused another user's connection", self.path)
            await _reply(peer, {"error": "this server is another user's"})
        elif full:
            await _reply(peer, {"error": f"{CLIENTS} clients are connected already"})
        else:
            await self._talk(peer)

    async def _talk(self, peer: Peer) -> None:
        patience: float | None = PATIENCE
        while True:
            try:
                async with asyncio.timeout(patience):
                    line = await peer.until(b"\n", LINE)
            except Overlong:
                await _reply(peer, {"error": f"a request has at most {LINE} bytes"})
                return
            peer.busy = True
            command, answer = await self._answer(line)
            await _reply(peer, answer)
            peer.busy = False
            patience = None if command == "stop" and "result" in answer else PATIENCE

    async def _answer(self, line: bytes) -> tuple[str, dict[str, Any]]:
        try:
            request = json.loads(line)
            command, arguments = request["command"], request.get("arguments", {})
            handler = self._handlers.get(command)
            if handler is None:
                return "", {"error": f"there is no command {command!r}; there are {', '.join(self._handlers)}"}
            inspect.signature(handler).bind(**arguments)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return "", {"error": f"this is no request: {error}"}
        try:
            result = await handler(**arguments)
            json.dumps(result)
        except (SubpoolError, ValueError) as error:
            return command, {"error": str(error) or type(error).__name__}
        except Exception as error:
            log.exception("the command %r failed", command)
            return command, {"error": f"{type(error).__name__}; the server's log has more"}
        return command, {"result": result}


async def _reply(peer: Peer, answer: dict[str, Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        await peer.send(json.dumps(answer).encode() + b"\n")


def peer_of(sock: socket.socket) -> tuple[int, int | None]:
    """Process and user at the other end: 0 and None where the system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return 0, None
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, size))  # struct ucred of unix(7)
    return pid, uid


# paths


def folder() -> str:
    """Where servers of this user have their control sockets, unless they were given a path."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return os.path.join(runtime, "subpool")
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"subpool-{os.geteuid()}")


def check_folder(path: str) -> None:
    """`OSError` unless `path` is a folder of this user that nobody else can look into."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{path} is no folder")
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"{path} is another user's")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(errno.EPERM, f"{path} is open to others: its mode must be 0700")


def own_path(pid: int) -> str:
    """A path for a server that is known by `pid`, in the default folder, which is made. `OSError`."""
    where = folder()
    with contextlib.suppress(FileExistsError):
        os.mkdir(where, 0o700)
    check_folder(where)
    number = 1
    while unix_sockets.lives(path := os.path.join(where, f"{pid}{f'-{number}' if number > 1 else ''}{SUFFIX}")):
        number += 1
    return path


def listen(path: str, mode: int) -> socket.socket:
    """A unix socket that listens at `path`, as `unix_sockets.bind` binds it. `OSError` names the path."""
    sock = unix_sockets.bind(path, mode)
    sock.listen(CLIENTS)
    sock.setblocking(False)
    return sock
