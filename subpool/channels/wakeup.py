"""A counted wake-up between threads, interpreters or event loops.

The standard library's queues poll every 10 ms when they block (gh-143017), so nothing here ever blocks on a queue: the
sender puts its items and then adds their number to a counter; the receiver's event loop sees the counter's descriptor
become readable, takes the count, and takes that many items without blocking.

On Linux the counter is an eventfd (one descriptor, 8 bytes, adds up by itself). Elsewhere it is a non-blocking pipe:
one byte an item; when the pipe is full the receiver is awake anyway and empties the lane until it is dry, so a byte
that does not fit is no loss.

The descriptor has one owner, the side that made it; the other side knows its number only, and the owner closes it
after the other side has ended.
"""

from __future__ import annotations

import os
import sys

PIPE_FULL = 4096  # bytes; a pipe holds no fewer (POSIX: PIPE_BUF is at least 512, pipes at least one page)
HAS_EVENTFD = hasattr(os, "eventfd")


class Wakeup:
    """`fileno()` is readable while a count is pending. Not inherited by child processes."""

    __slots__ = ("_read", "_write")

    def __init__(self, read: int = -1, write: int = -1) -> None:
        if read < 0:
            if HAS_EVENTFD:
                read = write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            else:
                read, write = os.pipe()
                os.set_blocking(read, False)
                os.set_blocking(write, False)
        self._read, self._write = read, write

    def __repr__(self) -> str:
        return f"<Wakeup {'closed' if self._read < 0 else f'fd {self._read}'}>"

    def fds(self) -> tuple[int, int]:
        """The descriptors' numbers, for `Wakeup(*fds)` in another interpreter of this process."""
        return self._read, self._write

    def fileno(self) -> int:
        return self._read

    if HAS_EVENTFD:

        def wake(self, count: int = 1) -> None:
            """Add `count` and wake the receiver."""
            os.eventfd_write(self._write, count)

        def take(self) -> int:
            """The count since the last call, 0 if nothing is pending."""
            try:
                return os.eventfd_read(self._read)
            except BlockingIOError:
                return 0
    else:

        def wake(self, count: int = 1) -> None:
            """Add `count` and wake the receiver."""
            try:
                os.write(self._write, b"x" * count)
            except BlockingIOError:
                pass

        def take(self) -> int:
            """At least the count since the last call, 0 if nothing is pending."""
            count = 0
            while True:
                try:
                    count += len(os.read(self._read, 65536))
                except BlockingIOError:
                    return count if count < PIPE_FULL else sys.maxsize  # bytes may be missing: look until it is dry

    def close(self) -> None:
        """Close the descriptors. A second call does nothing."""
        read, write = self._read, self._write
        self._read = self._write = -1
        if read >= 0:
            os.close(read)
            if write != read:
                os.close(write)
