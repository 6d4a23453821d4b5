"""A lane between processes: a stream socket.

An item on the wire: `<II` (size of the batch, number of loans), a `<Q` for each loan's size, the batch, the loans.
Items may arrive in any number of pieces; a loan is received straight into a buffer of its own.

The host's end never blocks: what the socket does not take is kept, and `on_blocked` is called so that the event loop
watches for room and calls `flush`. The worker's end waits instead (the host always reads). A lock makes both ends
usable from the worker's main thread and its steward.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .frames import Frame, decode, encode
from .lane import Buffer, Item, LaneClosed

_HEAD = struct.Struct("<II")
_SIZE = struct.Struct("<Q")
_READ = 256 * 1024  # bytes asked of the kernel at once
_PIECES = 64  # buffers given to one sendmsg()


class SocketLane:
    """One end of the lane: a sender or a receiver, over a connected stream socket that it owns."""

    def __init__(self, sock: socket.socket, on_blocked: Callable[[], None] | None = None) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._on_blocked = on_blocked
        self._unsent: deque[memoryview] = deque()
        self._buffer = bytearray()
        self._frames: list[Frame] | None = None
        self._sizes: list[int] = []
        self._loans: list[memoryview] = []
        self._filling: tuple[memoryview, int] | None = None  # the loan under way, and how much of it is there
        self._ended = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = "ended" if self._ended else f"fd {self._socket.fileno()}"
        return f"<SocketLane {state}, {sum(map(len, self._unsent))} bytes unsent>"

    def fileno(self) -> int:
        return self._socket.fileno()

    # sending

    def send(self, frames: list[Frame], loans: Sequence[Buffer] = ()) -> None:
        batch = encode(frames)
        views = [memoryview(loan) for loan in loans]
        head = _HEAD.pack(len(batch), len(views)) + b"".join(_SIZE.pack(len(view)) for view in views)
        with self._lock:
            blocked = bool(self._unsent)
            self._unsent.append(memoryview(head + batch))
            self._unsent.extend(view for view in views if len(view))
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
            try:
                sent = self._socket.sendmsg([unsent[i] for i in range(min(len(unsent), _PIECES))])
            except BlockingIOError:
                if self._on_blocked is not None:
                    self._on_blocked()
                    return
                select.select([], [self._socket], [])
                continue
            except OSError as error:
                unsent.clear()
                raise LaneClosed(str(error)) from None
            while sent:
                if sent < len(unsent[0]):
                    unsent[0] = unsent[0][sent:]
                    break
                sent -= len(unsent.popleft())

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
        return taken

    def _read(self) -> bool:
        """Read once. False when there is nothing now."""
        try:
            if self._filling is not None:
                view, at = self._filling
                count = self._socket.recv_into(view[at:])
                self._filling = (view, at + count)
            else:
                data = self._socket.recv(_READ)
                count = len(data)
                self._buffer += data
        except BlockingIOError:
            return False
        except OSError as error:
            raise LaneClosed(str(error)) from None
        if count == 0:
            raise LaneClosed("the other side has closed the channel")
        return True

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
            if self._filling is None:
                size = self._sizes[len(self._loans)]
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
        self._ended = True
        self._socket.close()
