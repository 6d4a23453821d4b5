"""A lane between processes: a stream socket.

An item on the wire: `<II` (size of the batch, number of loans), a `<Q` for each loan's size, the batch, the loans.
Items may arrive in any number of pieces; a loan is received straight into a buffer of its own.

A descriptor among the loans is one byte, and goes with a `sendmsg` of its own (SCM_RIGHTS): a stream keeps a
descriptor with the first byte that it was sent with, and one byte goes whole or not at all. So when the byte is here,
its descriptor is, in their order; and no `recvmsg` gets more than one, so that MSG_CTRUNC (the receiver has no
descriptors left) says that exactly this one is lost. The byte tells whether a descriptor was sent with it.

The host's end never blocks: what the socket does not take is kept, and `on_blocked` is called so that the event loop
watches for room and calls `flush`. The worker's end waits instead (the host always reads). A lock makes both ends
usable from the worker's main thread and its steward.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .frames import Frame, decode, encode
from .lane import Buffer, Item, LaneClosed, Loan

_HEAD = struct.Struct("<II")
_SIZE = struct.Struct("<Q")
_READ = 256 * 1024  # bytes asked of the kernel at once
_PIECES = 64  # buffers given to one sendmsg()
_DESCRIPTOR = 2**64 - 1  # the "size" of a descriptor
_WITH, _WITHOUT = b"\1", b"\0"  # its byte: with the descriptor, or without one that could not be sent
_FD = struct.Struct("@i")
_RIGHTS = socket.CMSG_SPACE(_FD.size)
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # elsewhere (macOS) it is set afterwards


class SocketLane:
    """One end of the lane: a sender or a receiver, over a connected stream socket that it owns."""

    def __init__(self, sock: socket.socket, on_blocked: Callable[[], None] | None = None) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._on_blocked = on_blocked
        self._unsent: deque[Loan] = deque()
        self._read_into: memoryview | None = None
        self._buffer = bytearray()
        self._frames: list[Frame] | None = None
        self._sizes: list[int] = []
        self._loans: list[Loan] = []
        self._filling: tuple[memoryview, int] | None = None  # the loan under way, and how much of it is there
        self._fds: deque[int] = deque()  # descriptors that came, and whose bytes were not parsed yet
        self._ended = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = "ended" if self._ended else f"fd {self._socket.fileno()}"
        unsent = sum(1 if isinstance(piece, int) else len(piece) for piece in self._unsent)
        return f"<SocketLane {state}, {unsent} bytes unsent>"

    def fileno(self) -> int:
        return self._socket.fileno()

    # sending

    def send(self, frames: list[Frame], loans: Sequence[Buffer | int] = ()) -> None:
        batch = encode(frames)
        views = [loan if isinstance(loan, int) else memoryview(loan) for loan in loans]
        sizes = [_DESCRIPTOR if isinstance(view, int) else len(view) for view in views]
        head = _HEAD.pack(len(batch), len(views)) + b"".join(map(_SIZE.pack, sizes))
        with self._lock:
            blocked = bool(self._unsent)
            self._unsent.append(memoryview(head + batch))
            self._unsent.extend(view for view, size in zip(views, sizes, strict=True) if size)
            if not blocked:
                self._push()

    def send_all(self, batches: Iterable[list[Frame]]) -> None:
        """Send items without loans, in one go."""
        data = b""
        for frames in batches:
            batch = encode(frames)
            data += _HEAD.pack(len(batch), 0) + batch
        with self._lock:
            self._unsent.append(memoryview(data))
            if len(self._unsent) == 1:
                self._push()

    def flush(self) -> bool:
        """Send what waits, as far as the socket takes it. True when nothing is left."""
        with self._lock:
            self._push()
            return not self._unsent

    def _push(self) -> None:
        unsent = self._unsent
        while unsent:
            first = unsent[0]
            try:
                if isinstance(first, int):
                    self._give(first)
                    continue
                pieces = [first]
                for i in range(1, min(len(unsent), _PIECES)):
                    piece = unsent[i]
                    if isinstance(piece, int):
                        break
                    pieces.append(piece)
                sent = self._socket.sendmsg(pieces)
            except BlockingIOError:
                if self._on_blocked is not None:
                    self._on_blocked()
                    return
                select.select([], [self._socket], [])
                continue
            except OSError as error:
                _drop(unsent)
                raise LaneClosed(str(error)) from None
            for piece in pieces:
                if sent < len(piece):
                    unsent[0] = piece[sent:]
                    break
                sent -= len(piece)
                unsent.popleft()

    def _give(self, fd: int) -> None:
        """Send the descriptor that is first in the row."""
        try:
            self._socket.sendmsg([_WITH], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(fd))])
        except OSError as error:
            if error.errno not in (errno.ETOOMANYREFS, errno.EBADF):
                raise
            self._unsent[0] = memoryview(_WITHOUT)  # the lane lives; who was to have the file hears that there is none
        else:
            self._unsent.popleft()
        _drop([fd])

    # receiving

    def clear(self) -> None:
        """Nothing to do: a socket is readable until it is read."""

    def receive(self) -> Item | None:
        with self._lock:
            while True:
                item = self._parse()
                if item is not None:
                    return item
                if not self._read():
                    return None

    def take_back(self) -> list[Frame]:
        """The frames of all items that have arrived whole and were not received."""
        taken: list[Frame] = []
        while (item := self.receive()) is not None:
            taken += item[0]
            _drop(item[1])
        return taken

    def _read(self) -> bool:
        """Read once. False when there is nothing now."""
        try:
            if self._filling is not None:  # no byte of a descriptor is within a loan
                view, at = self._filling
                count = self._socket.recv_into(view[at:])
                self._filling = (view, at + count)
            else:
                view = self._read_into  # type: ignore[assignment]  # None at first
                if view is None:  # a new buffer of this size for each read costs more than all else
                    view = self._read_into = memoryview(bytearray(_READ))
                count, ancillary, flags, _ = self._socket.recvmsg_into([view], _RIGHTS, _CLOEXEC)
                if ancillary or flags & socket.MSG_CTRUNC:
                    self._take(ancillary)
                self._buffer += view[:count]
        except BlockingIOError:
            return False
        except OSError as error:
            raise LaneClosed(str(error)) from None
        if count == 0:
            raise LaneClosed("the other side has closed the channel")
        return True

    def _take(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        """Keep the descriptor that came, or -1 for one that is lost."""
        came = 0
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for (fd,) in _FD.iter_unpack(data[: len(data) // _FD.size * _FD.size]):
                    if not _CLOEXEC:
                        os.set_inheritable(fd, False)
                    self._fds.append(fd)
                    came += 1
        if not came:
            self._fds.append(-1)

    def _parse(self) -> Item | None:
        buffer = self._buffer
        if self._frames is None:
            if len(buffer) < _HEAD.size:
                return None
            size, count = _HEAD.unpack_from(buffer)
            start = _HEAD.size + count * _SIZE.size
            if len(buffer) < start + size:
                return None
            self._sizes = [_SIZE.unpack_from(buffer, _HEAD.size + i * _SIZE.size)[0] for i in range(count)]
            self._frames = decode(bytes(memoryview(buffer)[start : start + size]))
            del buffer[: start + size]
        while len(self._loans) < len(self._sizes):
            size = self._sizes[len(self._loans)]
            if size == _DESCRIPTOR:
                if not buffer:
                    return None
                with_one = buffer[:1] == _WITH
                del buffer[:1]
                self._loans.append(self._fds.popleft() if with_one and self._fds else -1)
                continue
            if self._filling is None:
                view = memoryview(bytearray(size))
                at = min(size, len(buffer))
                view[:at] = buffer[:at]
                del buffer[:at]
                self._filling = (view, at)
            view, at = self._filling
            if at < len(view):
                return None
            self._loans.append(view)
            self._filling = None
        item = (self._frames, self._loans)
        self._frames, self._sizes, self._loans = None, [], []
        return item

    def close(self) -> None:
        with self._lock:
            self._ended = True
            self._socket.close()
            for pieces in (self._unsent, self._loans, self._fds):
                _drop(pieces)


def _drop(pieces: deque[Loan] | deque[int] | list[Loan] | list[int]) -> None:
    """Close the descriptors among the pieces, of which none is left."""
    for piece in pieces:
        if isinstance(piece, int) and piece >= 0:
            try:
                os.close(piece)
            except OSError:
                pass  # no descriptor at all: it was the sender's mistake
    pieces.clear()
