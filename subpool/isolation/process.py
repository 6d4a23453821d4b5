"""Workers that are processes, for apps whose extension modules refuse sub-interpreters.

Started with `subprocess.Popen` from a fresh interpreter (never forked: the host has threads and event loops), joined by
four socket pairs. A thread that waits for the process turns its end into an event.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..channels import frames as f
from ..channels.frames import Frame
from ..channels.lane import LaneClosed
from ..channels.socket_lane import SocketLane
from .base import Kind

if TYPE_CHECKING:
    from .stock import Stock

_BOOT = """
import sys
sys.path[:] = eval(sys.argv.pop(1))
from subpool.worker.child import run
run()
"""


class Worker:
    """See `base.Handle`."""

    kind: Kind = "process"
    can_kill = True

    def __init__(
        self,
        setup: dict[str, Any],
        ended: Callable[[str | None], None],
        closed: Callable[[], None],
        blocked: Callable[[Any], None],
    ) -> None:
        self.setup = setup
        self._ended, self._closed = ended, closed
        self._process: subprocess.Popen[bytes] | None = None
        self._theirs: list[socket.socket] = []
        ours = []
        for _ in range(4):
            mine, theirs = socket.socketpair()
            ours.append(mine)
            self._theirs.append(theirs)
        lanes = [SocketLane(sock) for sock in ours]
        for lane in lanes[:3]:
            lane._on_blocked = _bind(blocked, lane)
        self.work, self.flow, self.control, self.out = lanes

    def __repr__(self) -> str:
        pid = self._process.pid if self._process else None
        return f"<process worker {self.setup['id']} pid {pid}>"

    def start(self, stock: Stock | None = None) -> None:
        fds = [sock.fileno() for sock in self._theirs]
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        command = [sys.executable, *flags, "-c", _BOOT, repr(list(sys.path)), *map(str, fds)]
        try:
            self._process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL)
        finally:
            for sock in self._theirs:
                sock.close()
        self.control.send([(f.SETUP, self.setup)])
        name = f"subpool-worker-{self.setup['id']}"
        threading.Thread(target=self._watch, args=(self._process,), name=name, daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        status = process.wait()
        cause = None
        if status:
            cause = (
                f"the process ended with status {status}"
                if status > 0
                else f"the process was killed by signal {-status}"
            )
        self._ended(cause)

    def take_back(self) -> list[Frame] | None:
        try:
            self.control.send([(f.GIVE_BACK,)])
        except LaneClosed:
            return []
        return None

    def discard(self) -> None:
        for sock in self._theirs:
            sock.close()
        self._close()

    def release(self) -> None:
        self._close()
        self._closed()

    def _close(self) -> None:
        for lane in (self.work, self.flow, self.control, self.out):
            lane.close()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def abandon(self) -> None:
        self.kill()
        self._close()

    def memory(self) -> int | None:
        if self._process is None:
            return None
        try:
            with open(f"/proc/{self._process.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return None


def _bind(blocked: Callable[[Any], None], lane: SocketLane) -> Callable[[], None]:
    return lambda: blocked(lane)
