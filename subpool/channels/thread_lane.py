"""A lane between threads of one interpreter: a deque and a counted wake-up.

The batch is marshalled all the same: a worker must never share a list or dict with the host, and what one isolation
kind refuses to carry every kind refuses.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence

from .frames import Frame, decode, encode
from .lane import Buffer, Item, LaneClosed, Loan
from .wakeup import Wakeup

NO_LOANS: list[Loan] = []


class ThreadLane:
    """Both ends of the lane."""

    __slots__ = ("_items", "_wakeup")

    def __init__(self) -> None:
        self._items: deque[tuple[bytes, list[Loan]]] = deque()
        self._wakeup = Wakeup()

    def __repr__(self) -> str:
        return f"<ThreadLane {len(self._items)} items, {self._wakeup!r}>"

    def fileno(self) -> int:
        return self._wakeup.fileno()

    def send(self, frames: list[Frame], loans: Sequence[Buffer | int] = ()) -> None:
        lent = [loan if isinstance(loan, int) else memoryview(loan) for loan in loans]
        self._items.append((encode(frames), lent))
        try:
            self._wakeup.wake()
        except (OSError, ValueError) as error:  # closed: no descriptor any more
            for loan in lent:
                if isinstance(loan, int):
                    os.close(loan)
            raise LaneClosed(str(error)) from None

    def send_all(self, batches: Iterable[list[Frame]]) -> None:
        """Send items without loans, with one wake-up."""
        encoded = [(encode(frames), NO_LOANS) for frames in batches]
        self._items.extend(encoded)
        try:
            self._wakeup.wake(len(encoded))
        except (OSError, ValueError) as error:  # closed: no descriptor any more
            raise LaneClosed(str(error)) from None

    def clear(self) -> None:
        self._wakeup.take()

    def receive(self) -> Item | None:
        try:
            data, loans = self._items.popleft()
        except IndexError:
            return None
        return decode(data), loans

    def take_back(self) -> list[Frame]:
        taken: list[Frame] = []
        while True:
            try:
                taken += decode(self._items.popleft()[0])
            except IndexError:
                return taken

    def close(self) -> None:
        self._wakeup.close()
