"""One call of a function, as the host holds it, from its arrival to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..channels import frames as f
from ..errors import SubpoolError, to_wire

if TYPE_CHECKING:
    from ..hostloop import HostLoop, Waiter
    from .desk import Desk


class Running(Protocol):
    """What runs it: the helper, or the host's loop."""

    def cancel(self) -> None:
        """Nobody waits for it any more."""

    def more(self) -> None:
        """The reader of a stream has room again."""


class Asked:
    """`credit`: so many items of a stream may come. Once it is `over` nothing is said any more."""

    def __init__(self, name: str, stream: bool, credit: int) -> None:
        self.name = name
        self.stream = stream
        self.credit = credit
        self.running: Running | None = None
        self.over = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{' over' if self.over else ''}>"

    def answer(self, data: bytes | None) -> None:
        """It has ended; of a stream, without data."""
        if not self.over:
            self.over = True
            self._end(data, None)

    def refuse(self, error: SubpoolError) -> None:
        """It has failed."""
        if not self.over:
            self.over = True
            self._end(None, error)

    def item(self, data: bytes) -> None:
        """An item of a stream; who calls this has taken the credit for it."""
        if not self.over:
            self._item(data)

    def more(self, count: int) -> None:
        """The reader took so many items."""
        self.credit += count
        if self.running is not None and not self.over:
            self.running.more()

    def cancel(self) -> None:
        """Nobody waits any more."""
        self.over = True
        running, self.running = self.running, None
        if running is not None:
            running.cancel()

    def _end(self, data: bytes | None, error: SubpoolError | None) -> None:
        raise NotImplementedError

    def _item(self, data: bytes) -> None:
        raise NotImplementedError


class WorkerAsked(Asked):
    """By a worker: told in frames."""

    def __init__(self, desk: Desk, number: int, name: str, how: int, credit: int) -> None:
        super().__init__(name, bool(how & f.STREAM), credit)
        self._desk = desk
        self._number = number
        self._how = how

    def _end(self, data: bytes | None, error: SubpoolError | None) -> None:
        self.running = None
        desk = self._desk
        desk.asked.pop(self._number, None)
        if error is not None:
            desk.services.failed += 1
        if error is None:
            desk.send(self._how, (f.ANSWER, self._number, None if self._how & f.CAST else data))
            return
        if self._how & f.CAST:
            desk.services.log_cast(self.name, error)
        desk.send(self._how, (f.REFUSED, self._number, to_wire(error)))

    def _item(self, data: bytes) -> None:
        self._desk.send(self._how, (f.PART, self._number, data))


class HostAsked(Asked):
    """By code on the host, that awaits `waiter`."""

    def __init__(self, name: str, loop: HostLoop) -> None:
        super().__init__(name, False, 0)
        self.waiter: Waiter = loop.waiter()

    def _end(self, data: bytes | None, error: SubpoolError | None) -> None:
        self.running = None
        if self.waiter.done():
            return
        if error is None:
            self.waiter.set_result(data)
        else:
            self.waiter.set_exception(error)

    def _item(self, data: Any) -> None:
        raise NotImplementedError
