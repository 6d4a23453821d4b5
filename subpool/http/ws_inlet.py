"""What the client of a WebSocket sends, on its way to the app's mailbox.

The client is read as fast as the app keeps up: when enough whole messages wait, frames behind them are not even looked
at. One that sends more frames than messages takes no more than its turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .ws_mailbox import HELD, Mailbox
from .ws_messages import BINARY, PIECE, PONG, TEXT, Messages

if TYPE_CHECKING:
    import asyncio

    from .ws_carrier import Carrier
    from .ws_session import Session

FRAMES: Final = 256  # of one client, that are looked at in one turn of the loop


class Inlet:
    """`session` hears of everything that is no message. `holding`: the client is not read."""

    __slots__ = ("_booked", "_carrier", "_early", "_loop", "_mailbox", "_messages", "_over", "_session", "holding")

    def __init__(self, loop: asyncio.AbstractEventLoop, carrier: Carrier, mailbox: Mailbox, session: Session) -> None:
        self._loop = loop
        self._carrier = carrier
        self._mailbox = mailbox
        self._session = session
        self._messages: Messages | None = None  # from the accept on
        self._early = b""  # what came before it
        self._over = False
        self._booked = False  # `_take` will go on in the loop's next turn
        self.holding = False

    def __repr__(self) -> str:
        return f"<Inlet {self._messages!r}{', holding' if self.holding else ''}>"

    def receive(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._over:
            return
        if self._messages is None:
            self._early += data
            if len(self._early) > HELD:
                self.hold(True)
            return
        self._messages.feed(data)
        if not self.holding:
            self._take()

    def open(self, messages: Messages) -> None:
        """The app has accepted."""
        self._messages = messages
        early, self._early = self._early, b""
        if early:
            messages.feed(early)
            self._take()

    def end(self, lost: bool = False) -> None:
        """Nothing more is taken in: what still comes is read and dropped. `lost`: the carrier is gone."""
        self._over = True
        self._early = b""
        if not lost:
            self.hold(False)

    def _take(self) -> None:
        """Take in what came, as far as the app keeps up, and not for too long at once."""
        messages, mailbox = self._messages, self._mailbox
        assert messages is not None
        for number, (kind, data, size) in enumerate(messages, 1):
            if kind is TEXT or kind is BINARY:
                mailbox.put(data, size)
            elif kind is not PIECE and kind is not PONG:
                self._session.hear(kind, data, size)
                if self._over:
                    return
            if mailbox.full or number == FRAMES:
                self.hold(True)
                self.take_soon()
                return
        if self.holding:
            self.hold(False)

    def take_soon(self) -> None:
        """Go on where `_take` stopped, if the app keeps up."""
        if self.holding and not self._booked and not self._mailbox.full:
            self._booked = True
            self._loop.call_soon(self._take_on)

    def _take_on(self) -> None:
        self._booked = False
        if self.holding and not self._over and self._messages is not None and not self._mailbox.full:
            self._take()

    def hold(self, holding: bool) -> None:
        if self.holding is not holding:
            self.holding = holding
            self._carrier.read_on(not holding)
            self._session.heard()
