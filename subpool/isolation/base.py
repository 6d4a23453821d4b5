"""The seam between the pool and an isolation kind.

A `Handle` is one worker as the host holds it: the host's ends of its lanes, and the few things that differ between
kinds. Its life, in the order in which the pool sees it:

    start -> `ended` (the worker's main has returned, or it died) -> release -> `closed` (nothing of it is left)

`ended` and `closed` are called on any thread. Between them the pool empties the `out` lane and gives back every loan;
an interpreter must not be destroyed before that (on 3.13 it crashes). A worker that does not come to `ended`, or from
there to `closed`, is abandoned: left running, never freed, counted.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

from ..channels.frames import Frame
from ..channels.lane import Receiver, Sender

if TYPE_CHECKING:
    from .stock import Stock

Kind = Literal["subinterpreter", "thread", "process"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)


class Handle(Protocol):
    """One worker of some kind, as the host holds it."""

    kind: Kind
    can_kill: bool  # whether `kill` ends a worker that does not answer
    work: Sender
    flow: Sender
    control: Sender
    out: Receiver

    def __init__(
        self,
        setup: dict[str, Any],
        ended: Callable[[str | None], None],
        closed: Callable[[], None],
        blocked: Callable[[Any], None],
    ) -> None:
        """`ended(cause)`: see above, None for a good end. `blocked(lane)`: that lane waits for room in its socket."""

    def start(self, stock: Stock | None = None) -> None:
        """Start it, in an interpreter of that stock if the kind has some. `OSError` or `RuntimeError` if the system
        refuses."""

    def discard(self) -> None:
        """Instead of a life: `start` has failed, free what was made for it."""

    def take_back(self) -> list[Frame] | None:
        """The calls that the worker has not begun; None where the worker itself answers (frame GIVEN_BACK)."""

    def release(self) -> None:
        """After `ended`: all loans are back, free the rest. Leads to `closed`."""

    def kill(self) -> None:
        """End it at once, where that can be done."""

    def abandon(self) -> None:
        """Never wait for it again: kill it where that can be done, else free nothing before it ends by itself."""

    def memory(self) -> int | None:
        """Resident bytes, where the worker has memory of its own; else None."""


def load(kind: str) -> type[Handle]:
    """The class of that kind."""
    module = importlib.import_module(f".{kind}", __package__)
    return module.Worker  # type: ignore[no-any-return]
