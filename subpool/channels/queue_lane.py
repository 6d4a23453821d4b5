"""A lane between interpreters of one process: an interpreter queue and a counted wake-up.

An item is one marshalled batch, then its loans as `memoryview` items (descriptors as ints). How many loans follow says
the batch's last frame. An item without loans is a bytes object alone, so that the work lane, which carries no loans,
can be emptied from both ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from .. import _interpreters
from .frames import Frame, decode, encode
from .lane import Buffer, Item, LaneClosed, Loan
from .wakeup import Wakeup

Address = tuple[int, int, int]
_LOANS = 0  # opcode of that frame


class QueueLane:
    """One end of the lane; which end it is, its use decides. The end made without an address owns the queue."""

    __slots__ = ("_due", "_empty", "_get", "_lock", "_put", "_wakeup", "owner", "queue")

    def __init__(self, address: Address | None = None) -> None:
        self.owner = address is None
        self.queue = _interpreters.create_queue() if address is None else address[0]
        self._wakeup = Wakeup() if address is None else Wakeup(address[1], address[2])
        self._due = 0  # pieces that were announced and not taken; a get that finds nothing costs an exception
        self._lock = threading.Lock()  # an item and its loans stay together
        self._put, self._get, self._empty = _interpreters.queue_calls()

    def __repr__(self) -> str:
        return f"<QueueLane queue {self.queue}, {self._wakeup!r}>"

    def address(self) -> Address:
        """What the other end is made of, in whichever interpreter."""
        return (self.queue, *self._wakeup.fds())

    def fileno(self) -> int:
        return self._wakeup.fileno()

    def send(self, frames: list[Frame], loans: Sequence[Buffer | int] = ()) -> None:
        if not loans:  # every request's way
            batch = encode(frames)
            try:
                with self._lock:
                    self._put(self.queue, batch)
                self._wakeup.wake()
            except Exception as error:
                raise LaneClosed(str(error)) from None
            return
        batch = encode([*frames, (_LOANS, len(loans))])
        put = 0
        try:
            with self._lock:
                self._put(self.queue, batch)
                for loan in loans:
                    self._put(self.queue, loan if type(loan) is int else memoryview(loan))  # type: ignore[arg-type]
                    put += 1
            self._wakeup.wake(1 + len(loans))
        except Exception as error:
            for loan in loans[put:]:
                if type(loan) is int:
                    os.close(loan)
            raise LaneClosed(str(error)) from None

    def send_all(self, batches: Iterable[list[Frame]]) -> None:
        """Send items without loans, with one wake-up."""
        encoded = [encode(frames) for frames in batches]
        try:
            with self._lock:
                for batch in encoded:
                    self._put(self.queue, batch)
            self._wakeup.wake(len(encoded))
        except Exception as error:
            raise LaneClosed(str(error)) from None

    def clear(self) -> None:
        self._due += self._wakeup.take()

    def receive(self) -> Item | None:
        if self._due <= 0:
            return None
        try:
            data = self._get(self.queue)[0]
        except self._empty:  # taken back
            self._due = 0
            return None
        except Exception as error:
            raise LaneClosed(str(error)) from None
        if type(data) is not bytes:  # its interpreter ended: UNBOUND
            return [], []
        self._due -= 1
        frames = decode(data)
        if frames and frames[-1][0] == _LOANS:
            loans = frames.pop()[1]
            self._due -= loans
            return frames, self._loans(loans)
        return frames, []

    def _loans(self, count: int) -> list[Loan]:
        loans: list[Loan] = []
        while len(loans) < count:
            try:
                loan: Any = self._get(self.queue)[0]
            except self._empty:  # the sender is between its puts
                continue
            loans.append(loan if loan is not None else memoryview(b""))
        return loans

    def take_back(self) -> list[Frame]:
        taken: list[Frame] = []
        while True:
            try:
                data = self._get(self.queue)[0]
            except self._empty:
                return taken
            if type(data) is bytes:
                taken += decode(data)

    def close(self) -> None:
        if self.owner:
            self.owner = False
            _interpreters.destroy_queue(self.queue)
            self._wakeup.close()
