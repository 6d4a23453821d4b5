"""What a lane is: one direction of a channel, with one sender and one receiver.

A channel between the host and a worker has three: `work` (new calls, small items, which the host may take back while
the worker is busy), `flow` (what belongs to calls under way) and `out` (everything from the worker). The kinds of lane
(`queue_lane`, `thread_lane`, `socket_lane`) pass one conformance suite.

Rules:

1. An item is a batch of frames with the large bodies ("loans") that its frames speak of, in their order.
2. Items arrive whole, once, and in order; those taken back never arrive.
3. `send` does not block and `receive` does not wait: the receiver's event loop watches `fileno()`.
4. A loan is a `memoryview`: the sender's buffer itself where memory is shared (interpreters, threads), a copy made by
   the kernel where it is not (processes). The receiver releases it with `release()` on the view, and then owes the
   sender one credit for it (frames `RETURNED`, `LENT_BACK`): the release runs in the owner as a pending call, and only
   a frame wakes an owner that waits.
5. An int among the loans is a descriptor that the sender gives away: it is the receiver's from then on, to be closed by
   it, or the lane closes it if nobody can receive it any more. Between processes the receiver gets a duplicate, never
   inherited by programs that it starts, and -1 in place of one that the system could not pass (no descriptors left).
   No credit is owed for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from .frames import Frame

Buffer = bytes | memoryview
Loan = memoryview | int
Item = tuple[list[Frame], list[Loan]]


class LaneClosed(Exception):
    """The other side has gone. What was sent and not received is lost."""


class Sender(Protocol):
    """The sending end."""

    def send(self, frames: list[Frame], loans: Sequence[Buffer | int] = ()) -> None:
        """Send one item. `LaneClosed` if the receiver has gone; `ValueError` if a frame cannot be encoded: then its
        descriptors are still the sender's."""

    def send_all(self, batches: Iterable[list[Frame]]) -> None:
        """Send an item for each batch, without loans, with one wake-up. Raises what `send` raises."""

    def close(self) -> None:
        """Give up what this end owns. A second call does nothing."""


class Receiver(Protocol):
    """The receiving end."""

    def fileno(self) -> int:
        """A descriptor that is readable while `receive` may have something."""

    def clear(self) -> None:
        """Take what the descriptor tells: call it before the `receive`s that empty the lane, which find no more than
        was told."""

    def receive(self) -> Item | None:
        """The next item, or None when there is none now. `LaneClosed` when the sender has gone and all is taken."""

    def close(self) -> None:
        """Give up what this end owns. A second call does nothing."""
