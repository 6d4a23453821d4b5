"""Signals as something to read: a handler may run at any moment, so that none here does anything.

Python notes a signal's number as a byte on a socket (`signal.set_wakeup_fd`), which a selector watches.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Final, Self

OURS: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


class Caught:
    """Within it the guard's signals, and the end of a child, wake whoever watches `fileno()`."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        leave_to_the_guard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(-1)
        self._ours.close()
        self._theirs.close()

    def fileno(self) -> int:
        return self._ours.fileno()

    def take(self) -> list[int]:
        """The numbers of those that came."""
        try:
            return list(self._ours.recv(4096))
        except BlockingIOError:
            return []


def leave_to_the_guard() -> None:
    """Signals mean nothing to this process: a terminal sends them to the whole group, and the guard decides.

    A handler, and not SIG_IGN, which programs that this one starts would inherit.
    """
    for number in OURS:
        signal.signal(number, _nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """What is started here gets no signal before it asks for them (`leave_to_the_guard`): none hits it half-made."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _nothing(number: int, frame: object) -> None:
    """The byte on the socket is all."""
