"""One call between hosts: as the caller's host holds it (`FarCall`), and as the other does (`FarAsked`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..errors import AppError, BusUnavailable, PoolOverloaded, SubpoolError, to_wire
from .asked import Asked

if TYPE_CHECKING:
    from .nodes import Nodes

TEXT: Final = 64 * 1024  # characters of an error's text that go to another host


class FarCall:
    """What runs a call, for its `asked`: another host. It goes to the first of that name that hears it."""

    def __init__(self, nodes: Nodes, asked: Asked, node: str, number: int, how: int, data: bytes) -> None:
        self.asked = asked
        self.node = node
        self.number = number
        self.cast = bool(how & f.CAST)
        self.host: str | None = None  # which it was sent to
        self._nodes = nodes
        self._data: bytes | None = data  # until a host has it
        self._looked = False
        self._ahead, asked.credit = asked.credit, 0  # items that may come

    def __repr__(self) -> str:
        return f"<FarCall {self.number} {self.asked.name!r} on {self.node!r}>"

    @property
    def valued(self) -> bool:
        """Whether its answer is a value."""
        return not self.cast and not self.asked.stream

    def begin(self) -> None:
        """Send it; to another host if one does not hear."""
        nodes, data = self._nodes, self._data
        if self.asked.over or data is None:
            return
        host = nodes.choose(self.node, self.number)
        if host is not None:
            self.host = host
            if not nodes.post.send(host, data, self._sent, None):
                self._fail(PoolOverloaded("too much waits to be sent to other nodes"))
        elif not self._looked:
            self._looked = True
            nodes.look(self._seen)
        else:
            self._fail(nodes.unknown(self.node))

    def _sent(self, count: int) -> None:
        if count:
            self._data = None
            return
        host, self.host = self.host, None
        if host is not None:
            self._nodes.gone(host)
        self.begin()

    def _seen(self, names: list[str] | SubpoolError) -> None:
        if isinstance(names, SubpoolError):
            self._fail(BusUnavailable(f"{names}; nothing was sent"))
        else:
            self.begin()

    def _fail(self, error: SubpoolError) -> None:
        self._nodes.drop(self)
        self.asked.refuse(error)

    def takes_item(self) -> bool:
        """One more has come. False if that was not asked for."""
        self._ahead -= 1
        return self.asked.stream and self._ahead >= 0

    def cancel(self) -> None:
        self._nodes.unask(self)

    def more(self) -> None:
        count, self.asked.credit = self.asked.credit, 0
        self._ahead += count
        self._nodes.more(self, count)


class FarAsked(Asked):
    """By another host: told in messages."""

    def __init__(self, nodes: Nodes, host: str, number: int, name: str, how: int, credit: int) -> None:
        super().__init__(name, bool(how & f.STREAM), credit)
        self.host = host
        self.number = number
        self.how = how
        self._nodes = nodes

    def _end(self, data: bytes | None, error: SubpoolError | None) -> None:
        self.running = None
        nodes = self._nodes
        nodes.forget(self)
        if error is None:
            nodes.answer(self, data)
        else:
            nodes.services.failed += 1
            nodes.refuse(self, error)

    def _item(self, data: bytes) -> None:
        try:
            self._nodes.item(self, data)
        except AppError as error:
            running = self.running
            self.refuse(error)
            if running is not None:
                running.cancel()


def error_data(error: SubpoolError) -> list[Any]:
    """An error for another host, whatever it holds: see `errors.from_wire`."""
    name, *args = to_wire(error)
    if not all(isinstance(one, (str, bool, tuple)) for one in args):
        name, args = "SubpoolError", [str(error)]
    return [name, *(_text(one) if isinstance(one, str) else one for one in args)]


def _text(text: str) -> str:
    return text[:TEXT].encode("utf-8", "replace").decode()
