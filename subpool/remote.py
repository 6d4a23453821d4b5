"""A running server, seen by a command through its control socket: found, asked, waited for. Blocking, with limits."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from typing import Any, Final, Self

from . import control, unix_sockets
from .errors import SubpoolError

REPLY: Final = 1 << 24  # bytes of a reply
CONNECT_TIME: Final = 5.0
REPLY_TIME: Final = 600.0  # a reload starts worker after worker


class RemoteError(SubpoolError):
    """A server cannot be reached, or refused the command; the text says why."""


class Remote:
    """A connection to the control socket at `path`. `RemoteError` if there is none to be had."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_TIME)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise RemoteError(f"no server answers at {path}: {error.strerror or error}") from None
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, command: str, seconds: float = REPLY_TIME, /, **arguments: Any) -> Any:
        """The server's answer to `command`. `RemoteError` if it refuses, or does not answer in time."""
        request = json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"
        self._socket.settimeout(seconds)
        try:
            self._socket.sendall(request)
            line = self._file.readline(REPLY)
        except TimeoutError:
            raise RemoteError(f"the server at {self.path} did not answer within {seconds:g} s") from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise RemoteError(f"the server at {self.path} ended before it answered")
        answer = json.loads(line)
        if "error" in answer:
            raise RemoteError(answer["error"])
        return answer["result"]

    def wait_for_end(self, seconds: float) -> None:
        """Wait until a server that was told to stop has ended, its process too. `RemoteError` if not in time."""
        end = time.monotonic() + seconds
        process = self._process()
        self._socket.settimeout(seconds)
        try:
            self._file.read(1)
            if process is not None:
                gone = select.poll()
                gone.register(process, select.POLLIN)
                if not gone.poll(max(0.0, end - time.monotonic()) * 1000):
                    raise TimeoutError
        except TimeoutError:
            raise RemoteError(f"the server at {self.path} has not ended within {seconds:g} s") from None
        except OSError:
            pass  # that is an end too
        finally:
            if process is not None:
                os.close(process)

    def _process(self) -> int | None:
        """A descriptor of the process that listens, where the system (Linux) tells."""
        pid = control.peer_of(self._socket)[0]
        try:
            return os.pidfd_open(pid) if pid else None
        except (AttributeError, OSError):
            return None


def live_servers() -> list[str]:
    """The control sockets in this user's default folder that a server listens at. Dead servers' are removed."""
    folder = control.folder()
    try:
        control.check_folder(folder)
        names = sorted(name for name in os.listdir(folder) if name.endswith(control.SUFFIX))
    except OSError:
        return []
    found = []
    for name in names:
        path = os.path.join(folder, name)
        try:
            inode = os.stat(path).st_ino
        except OSError:
            continue
        if unix_sockets.lives(path):
            found.append(path)
        else:
            unix_sockets.remove(path, inode)
    return found


def the_server(path: str | None) -> Remote:
    """The server at `path`, or the one server of this user. `RemoteError` where that is none or several."""
    if path is not None:
        return Remote(path)
    found = live_servers()
    if len(found) == 1:
        return Remote(found[0])
    if not found:
        raise RemoteError("no server of yours runs here; --socket PATH names one whose control_socket is its own")
    raise RemoteError("\n".join(["several servers run; name one with --socket PATH:", *map(_described, found)]))


def _described(path: str) -> str:
    try:
        with Remote(path) as remote:
            status = remote.ask("status", CONNECT_TIME)
        return f"{path}  pid {status['pid']}, {', '.join(status['addresses']) or status['state']}"
    except (RemoteError, KeyError, TypeError) as error:
        return f"{path}  ({error})"
