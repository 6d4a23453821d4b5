"""A question of one server process to all: whichever has the operator's connection answers for the whole server.

Bounded: one that takes no note of the question within `HEARD` seconds hangs, and is not waited for; one that ends has
no more to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from .link import Message
from .ward import Ward

HEARD: Final = 2.0  # seconds in which a loop that runs takes note of a message
SILENT: Final = "it does not answer"


class Relay:
    """`wards` are asked to `do` something; `done` is called once, with an answer of each: `pid`, `place`, `state`, and
    `value` or `error`, or neither while it starts."""

    def __init__(self, do: str, more: dict[str, Any], wards: Iterable[Ward], done: Callable[[list[Message]], None],
                 ) -> None:  # fmt: skip
        self._answers: list[Message] = []
        self._open: dict[Ward, int] = {}
        self._done = done
        for ward in wards:
            if do == "status" and ward.state == "starting":
                self._take(ward, {})
            elif do == "status" and ward.silent:  # what it has not heard would fill the link
                self._take(ward, {"error": SILENT})
            else:
                self._open[ward] = ward.ask(do, partial(self._answer, ward), **more)
        self._finish()

    def _take(self, ward: Ward, message: Message) -> None:
        told: Message = {key: message[key] for key in ("value", "error") if key in message}
        self._answers.append({"pid": ward.pid, "place": ward.place, "state": ward.state, **told})

    def _answer(self, ward: Ward, message: Message) -> None:
        if self._open.pop(ward, None) is not None:
            self._take(ward, message)
            self._finish()

    def _finish(self) -> None:
        if not self._open:
            done, self._done = self._done, _nothing
            done(self._answers)

    def look(self) -> None:
        """`HEARD` seconds have passed."""
        for ward, number in list(self._open.items()):
            if ward.heard < number:
                ward.silent = True
                self._answer(ward, {"error": SILENT})

    def end(self) -> None:
        """The time is over."""
        for ward in list(self._open):
            self._answer(ward, {"error": "it has not ended this in time"})


def _nothing(answers: list[Message]) -> None:
    """It was told already."""
