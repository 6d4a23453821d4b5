"""What two processes say to each other over a socket pair: JSON, one object a line.

From a guard to a server process: first `{"config", "sockets", "announce"}`, then `{"do", "id", ...}` with `do` one of
drain, reload, scale, recycle, reopen, status. Back: `{"event", ...}`, one of ready, served (its first request came),
fresh (another is wanted in its place), stop (all are to end), failed (it did not start, and has said why), and answer,
with the `id` of what was asked, and `value` or `error`. From a new guard to the one whose sockets it has:
`{"event": "ready", "names"}`.
"""

from __future__ import annotations

import json
import socket
from typing import Any, Final

ROOM: Final = 1 << 20  # bytes that a side may have said and the other not heard

Message = dict[str, Any]


class Link:
    """One end. What `blocking` says holds for `receive`; nobody waits to send more than the system takes."""

    def __init__(self, sock: socket.socket, blocking: bool) -> None:
        self._socket = sock
        self._read = b""
        self._broken = False
        sock.setblocking(blocking)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message) -> bool:
        """False if the other side has gone, or has not listened for so long that there is no room: it hears no more."""
        if self._broken:
            return False
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            self._socket.sendall(data)
        except OSError:
            self._broken = True  # part of a line may have gone out
        return not self._broken

    def receive(self) -> list[Message] | None:
        """What has come, perhaps nothing; None when the other side has gone."""
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._read = (self._read + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self._socket.close()
