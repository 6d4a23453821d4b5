"""A call: one request as the host holds it, from acceptance to its end.

    PENDING (waits on the host) -> SENT (with a worker, may not have begun) -> STARTED -> DONE
                 ^-------------- taken back --------------'

`GIVEN_UP` is a call whose caller no longer waits while a worker still has it: it holds its place until the worker lets
go of it, so that nothing is leaked or counted twice.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from .channels.frames import Frame
from .hostloop import HostLoop, Waiter

if TYPE_CHECKING:
    from .hearing import Hearing
    from .member import Member

PENDING: Final = 0
SENT: Final = 1
STARTED: Final = 2
DONE: Final = 3
GIVEN_UP: Final = 4
numbers: Final = itertools.count(1)  # of calls in this process: an id means one call, whoever made it
_NAMES = ("pending", "sent", "started", "done", "given up")


class Call:
    """One request whose answer comes in one piece: `waiter` gets the REPLY frame (its body as bytes) or the error."""

    # Defaults live on the class: an instance stores only what differs.
    body: Any = None  # what the worker asks for with WANT: bytes, or None
    timeout: float | None = None
    affinity: Any = None
    at_once = False  # begun when it is sent: its worker does not say so
    websocket = False  # lasts as long as its client likes: counted apart
    state = PENDING
    member: Member | None = None
    accepted = 0.0
    deadline = 0.0

    def __init__(
        self, call: int, frame: Frame, body: Any, timeout: float | None, affinity: Any, waiter: Waiter
    ) -> None:
        self.id = call
        self.frame = frame
        if body is not None:
            self.body = body
        self.timeout = timeout
        if affinity is not None:
            self.affinity = affinity
        self.waiter = waiter

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {_NAMES[self.state]}{f' at {self.member!r}' if self.member else ''}>"

    def finish(self, frame: Frame) -> None:
        """The answer is there."""
        if not self.waiter.done():
            self.waiter.set_result(frame)

    def fail(self, error: BaseException) -> None:
        if not self.waiter.done():
            self.waiter.set_exception(error)

    def wanted(self) -> Any:
        """What the app asks for: the body, once."""
        body, self.body = self.body, None
        return body

    def message(self, message: Any, data: Any) -> None:
        """A MESSAGE frame: only streams have them."""

    def taken(self, count: int) -> None:
        """A TAKEN frame: only the server's WebSockets have them."""

    def flush(self) -> None:
        """All that its worker has said for now was passed on. For calls that put themselves into its `speaking`."""

    def whole(self, member: Hearing, frame: Frame, body: Any) -> None:
        """A WIRE frame that is a whole response (`wire.WHOLE`)."""

    def wire(self, member: Hearing, frame: Frame, body: Any) -> None:
        """A WIRE frame, its body bytes, a loan, or None: only the server's calls have them."""


class StreamCall(Call):
    """One request whose answer comes as events. Its reader takes `next_event`, its feeder waits for `asked`."""

    def __init__(self, call: int, frame: Frame, timeout: float | None, affinity: Any, loop: HostLoop) -> None:
        super().__init__(call, frame, None, timeout, affinity, loop.waiter())
        self._loop = loop
        self._asked: Waiter | None = None
        self.events: deque[tuple[dict[str, Any], Any]] = deque()
        self.wants = 0
        self.ended = False
        self.error: BaseException | None = None

    def finish(self, frame: Frame) -> None:
        self.ended = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        self.ended = True
        self.error = error
        self._wake()

    def message(self, message: dict[str, Any], data: Any) -> None:
        self.events.append((message, data))
        self._wake()

    def _wake(self) -> None:
        if not self.waiter.done():
            self.waiter.set_result(None)
        if self.ended:
            self._wake_feeder()

    def _wake_feeder(self) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)

    def wanted(self) -> Any:
        self.wants += 1
        self._wake_feeder()
        return None

    async def asked(self) -> bool:
        """Wait until the app asks for an event. False when it never will again."""
        while not self.wants:
            if self.ended:
                return False
            self._asked = self._loop.waiter()
            await self._asked
        self.wants -= 1
        return True

    async def next_event(self) -> tuple[dict[str, Any], Any] | None:
        """The app's next event and its body; None at the end. Raises the error that ended it."""
        while not self.events:
            if self.ended:
                if self.error is not None:
                    raise self.error
                return None
            self.waiter = self._loop.waiter()
            await self.waiter
        return self.events.popleft()

    def detach(self) -> int:
        """Turn the loans that were not read into copies, and release them; how many there were."""
        loans = 0
        for at, (message, data) in enumerate(self.events):
            if isinstance(data, memoryview):
                self.events[at] = (message, bytes(data))
                data.release()
                loans += 1
        return loans
