"""A worker's channel as the host holds it: what goes out with the next flush, and the watch on what comes in.

Nothing is sent at once but words to the steward: all that one turn of the host's loop has for a worker goes out
together, with one wake-up a lane.
"""

from __future__ import annotations

from collections.abc import Callable

from .channels import frames as f
from .channels.frames import CALM, ITEM, UNTOLD, Frame
from .channels.lane import Buffer, LaneClosed
from .channels.socket_lane import SocketLane
from .hostloop import HostLoop
from .isolation.base import Handle


class Link:
    """The host's ends of one worker's lanes. `dirty` is called when there is something to flush."""

    __slots__ = (
        "_blocked", "_dirty", "_flow", "_handle", "_loans", "_loop", "_reading", "_returned", "_sent", "_since", "work",
    )  # fmt: skip

    def __init__(self, handle: Handle, loop: HostLoop, dirty: Callable[[Link], None]) -> None:
        self.work: list[Frame] = []  # calls for the next flush
        self._handle = handle
        self._loop = loop
        self._dirty = dirty
        self._flow: list[Frame] = []
        self._loans: list[Buffer] = []
        self._returned = 0
        self._reading = False
        self._sent = 0  # calls
        self._since = 0  # those since the last stall
        self._blocked: set[int] = set()  # descriptors of lanes that wait for room

    def __repr__(self) -> str:
        return f"<Link to {self._handle!r}: {self.unsent()} unsent>"

    def unsent(self) -> int:
        """Frames and loans that wait for the next flush."""
        return len(self.work) + len(self._flow) + len(self._loans)

    # sending

    def flow(self, frame: Frame, loan: Buffer | None = None) -> None:
        """Send a frame of a call under way, with the next flush."""
        self._flow.append(frame)
        if loan is not None:
            self._loans.append(loan)
        self._dirty(self)

    def credit(self, loans: int) -> None:
        """That many loans of the worker were released: it hears of it, and is awake for the release."""
        if loans:
            self._returned += loans
            self._dirty(self)

    def control(self, frame: Frame) -> None:
        """Tell the steward, at once."""
        try:
            self._handle.control.send([frame])
        except (LaneClosed, OSError):
            pass  # its end is on the way

    def flush(self) -> None:
        """Send everything."""
        work, flow = self.work, self._flow
        try:
            if self._returned:
                flow.append((f.RETURNED, self._returned))
                self._returned = 0
            if flow:
                loans, self._flow, self._loans = self._loans, [], []
                self._handle.flow.send(flow, loans)
            if work:
                self.work = []
                self._sent += len(work)
                self._since += len(work)
                item = ITEM if self._since > CALM else 1
                if len(work) <= item:
                    self._handle.work.send(work)
                else:
                    self._handle.work.send_all([work[i : i + item] for i in range(0, len(work), item)])
        except (LaneClosed, OSError):
            pass  # its end is on the way, and settles what it had

    def blocked(self, lane: SocketLane) -> None:
        """The lane's socket is full: flush it when there is room."""
        fd = lane.fileno()
        self._blocked.add(fd)

        def room() -> None:
            try:
                done = lane.flush()
            except LaneClosed:
                done = True
            if done and fd in self._blocked:
                self._blocked.discard(fd)
                self._loop.remove_writer(fd)

        self._loop.add_writer(fd, room)

    # taking back

    def stalled(self) -> None:
        """The worker holds calls and is silent: for a while each call goes in an item of its own."""
        self._since = 0

    def untold(self) -> int:
        """How many calls the worker may have begun without a word about any of them that has come here."""
        return 1 if self._sent < CALM else UNTOLD

    def take_work(self) -> list[int]:
        """The ids of the calls that were not sent; they will not be."""
        work, self.work = self.work, []
        return [frame[1] for frame in work]

    # watching

    def listen(self, on_out: Callable[[], object]) -> None:
        """Call `on_out` whenever the worker has sent something."""
        self._reading = True
        self._loop.add_reader(self._handle.out.fileno(), on_out)

    def unlisten(self) -> None:
        """Watch no descriptor any more: before they are closed. A second call does nothing."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._handle.out.fileno())
        while self._blocked:
            self._loop.remove_writer(self._blocked.pop())
