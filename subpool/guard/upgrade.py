"""SIGUSR2: a new guard, of the same command line and so of the code and configuration as they are now, on the sockets
of the running one. It says when it is ready; until then the old one serves, and afterwards it drains.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from .handover import VARIABLE, Socket
from .link import Link
from .size import Counts


class Upgrade:
    """A new guard on its way. `OSError` if it cannot be started."""

    def __init__(self, argv: Sequence[str], sockets: Sequence[Socket], size: Sequence[Counts]) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, *argv[1:]],
                    env={**os.environ, VARIABLE: json.dumps([theirs.fileno(), sockets, size])},
                    pass_fds=[theirs.fileno(), *(one.fd for one in sockets)],
                )
        except BaseException:
            ours.close()
            raise
        self.pid = self._process.pid
        self.link = Link(ours, blocking=False)
        self.names: list[str] | None = None  # of the sockets that it took, once it is ready

    def poll(self) -> int | None:
        return self._process.poll()

    def cancel(self) -> None:
        """End it: the guard that it was to follow ends."""
        if self.names is None:
            self._process.terminate()

    def release(self) -> None:
        """Never wait for it: it is on its own."""
        self.link.close()
        self._process.returncode = self._process.returncode or 0  # or Popen complains that it runs
