"""What two processes say to each other over a socket pair: JSON, one object a line.

From a guard to a server process: first its configuration and sockets (`Ward`), then `{"do", "id", ...}` with `do` one
of drain, reload, scale, recycle, reopen, status, operate (control socket and metrics are its own now) and told. Back:
`{"event", ...}`, one of ready, served (its first request came), fresh (another is wanted in its place), stop (all are
to end), failed (it did not start, and has said why), heard, and answer, both with the `id` of what was asked, and
answer with `value` or `error`; and ask, with an `id` of its own: a question to all server processes (`relay`), which
told answers. From a new guard to the one whose sockets it has: `{"event": "ready", "names"}`.
"""

from __future__ import annotations

import json
import socket
from typing import Any, Final

ROOM: Final = 1 << 20  # bytes beyond what the system takes that a side may have said and the other not heard

Message = dict[str, Any]


class Link:
    """One end. Where it is not `blocking`, what the system does not take at once is kept until `flush`."""

    def __init__(self, sock: socket.socket, blocking: bool) -> None:
        self.unsent = b""
        self._socket = sock
        self._read = b""
        self._broken = False
        sock.setblocking(blocking)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message) -> bool:
        """False if the other side has gone, or has not listened for so long that there is no room: it hears no more."""
        if not self._broken:
            self.unsent += json.dumps(message, separators=(",", ":")).encode() + b"\n"
            self.flush()
        return not self._broken

    def flush(self) -> None:
        """Send what was kept, as far as that goes."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self._socket.send(self.unsent) :]
        except (BlockingIOError, InterruptedError):
            self._broken = len(self.unsent) > ROOM
        except OSError:
            self._broken = True
        if self._broken:
            self.unsent = b""  # part of a line may have gone out

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
