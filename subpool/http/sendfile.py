"""Files sent by the kernel: `os.sendfile` from a descriptor that a worker gave away, to a duplicate of the socket's.

(`loop.sendfile` does not exist on uvloop; and a transport lets nobody watch its own descriptor.) Over TLS the bytes are
read and written.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Any, Final

TURN: Final = 4 << 20  # bytes in one turn of the loop
PIECE: Final = 256 * 1024  # bytes read at once where the kernel cannot send


class FileSender:
    """Sends `count` bytes of `fd`, which it owns and closes. `done` gets None, or the error, once; not after `stop`.
    `OSError` if there are no descriptors left: for the socket, or for the file when it was passed here (-1)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Any,
        file: tuple[int, int, int],
        done: Callable[[OSError | None], None],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._fd, self._offset, self.left = file
        self._done = done
        self._out = -1
        self._watching = False
        self._copying = False
        if self._fd < 0:
            raise OSError(errno.EMFILE, "the file was lost on its way from the worker")
        if transport.get_extra_info("ssl_object") is None:
            try:
                self._out = os.dup(transport.get_extra_info("socket").fileno())
            except OSError:
                self.stop()
                raise

    def __repr__(self) -> str:
        return f"<FileSender {self.left} bytes left>"

    def go_on(self) -> None:
        """The transport has nothing of its own to send: send, as long as there is room."""
        if self._fd < 0:
            return
        try:
            if self._out < 0:
                self._copy()
            else:
                self._send()
        except OSError as error:
            self._end(error)

    def _send(self) -> None:
        sent = 0
        while self.left and sent < TURN:
            try:
                count = os.sendfile(self._out, self._fd, self._offset, min(self.left, TURN))
            except BlockingIOError:
                if not self._watching:
                    self._watching = True
                    self._loop.add_writer(self._out, self.go_on)
                return
            if not count:
                raise OSError("the file became shorter while it was sent")
            sent += count
            self._offset += count
            self.left -= count
        if not self.left:
            self._end(None)
        elif not self._watching:
            self._watching = True
            self._loop.add_writer(self._out, self.go_on)

    def _copy(self) -> None:
        if self._copying:  # a transport of TLS may say that there is room from within `write`
            return
        self._copying = True
        while self.left and not self._transport.get_write_buffer_size():
            data = os.pread(self._fd, min(self.left, PIECE), self._offset)
            if not data:
                raise OSError("the file became shorter while it was sent")
            self._offset += len(data)
            self.left -= len(data)
            self._transport.write(data)
            if self._fd < 0:  # stopped meanwhile
                return
        self._copying = False
        if not self.left:
            self._end(None)

    def _end(self, error: OSError | None) -> None:
        self.stop()
        self._done(error)

    def stop(self) -> None:
        """Send no more. A second call does nothing."""
        if self._watching:
            self._watching = False
            self._loop.remove_writer(self._out)
        for fd in (self._fd, self._out):
            if fd >= 0:
                os.close(fd)
        self._fd = self._out = -1
