"""Whose turn it is to write: a lock between threads, interpreters and processes, on a file beside the store.

SQLite lets one write at a time, and who comes meanwhile sleeps by its busy handler: longer and longer, up to a second
under load. With a lock in front nobody meets a busy database. It is `flock(2)`: the kernel frees it when its holder
dies. It is asked for again and again with short naps, not waited for in the kernel: so a wait has an end (its holder
may be a stopped process), and a call that is interrupted leaves. A holder does a few microseconds' work; a queue that
hands the lock from one sleeper to the next makes each wait for a wake-up, three times as long in the median.
"""

from __future__ import annotations

import os
import time
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from functools import partial
from typing import Final

from ..errors import StateUnavailable

NAP: Final = 0.00005  # seconds; the system makes about 0.1 ms of it
_TRY: Final = LOCK_EX | LOCK_NB


class Turn:
    """A place in front of one store; each connection has its own.

        try:
            turn.take(seconds)
            ...
        finally:
            turn.give()

    In this order, since an interrupt may strike between the two: `give` without `take` does nothing.
    """

    __slots__ = ("_fd", "_path", "give", "try_to")

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.give = partial(flock, self._fd, LOCK_UN)  # one C call: no interrupt strikes before it is done
        self.try_to = partial(flock, self._fd, _TRY)

    def __repr__(self) -> str:
        return f"<Turn {self._path}>"

    def take(self, seconds: float) -> None:
        """Wait for the turn. `Waited` after so many seconds."""
        try:
            self.try_to()
        except BlockingIOError:
            self._queue(seconds)

    def _queue(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            time.sleep(NAP)
            try:
                self.try_to()
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Waited(f"another worker has been writing for {seconds:g} s; nothing was changed") from None
            else:
                return

    def close(self) -> None:
        """Leave for good."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class Waited(StateUnavailable):
    """The turn did not come in time."""
