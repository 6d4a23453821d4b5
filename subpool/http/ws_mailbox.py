"""What a WebSocket session has for its app: messages that the app has not asked for yet, and behind them the end.

When the app asks, it gets what is there, up to `AHEAD`: a round trip for each small message would cost more than the
message.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..call import SENT, STARTED, Call
from ..channels import frames as f

if TYPE_CHECKING:
    from ..engine import Engine
    from ..member import Member

HELD: Final = 64 * 1024  # bytes that may wait
AHEAD: Final = 16 * 1024  # bytes that one word of the app's is worth
OVERHEAD: Final = 64  # bytes that a message counts beyond its own


class Mailbox:
    """For the app that runs as `call`. `full`: the client should not be read for now."""

    __slots__ = ("_call", "_end", "_engine", "_events", "_held", "_told", "_wants")

    def __init__(self, engine: Engine, call: Call) -> None:
        self._engine = engine
        self._call = call
        self._events: deque[tuple[dict[str, Any], bytes | None, int]] = deque()
        self._held = 0
        self._wants = False  # the app waits in `receive()`
        self._end: dict[str, Any] | None = None  # the `websocket.disconnect`
        self._told: Member | None = None  # the worker that it was sent to

    def __repr__(self) -> str:
        return f"<Mailbox: {len(self._events)} messages, {self._held} bytes{', ended' if self.ended else ''}>"

    @property
    def full(self) -> bool:
        return self._held > HELD

    @property
    def ended(self) -> bool:
        return self._end is not None

    def put(self, message: dict[str, Any], data: bytes | None = None, size: int = 0) -> None:
        """A message for the app; `size`: its bytes, `data`: those of them that are not in `message`."""
        if self._wants:
            self._wants = False
            self._engine.send_event(self._call, message, data)
        else:
            self._events.append((message, data, size + OVERHEAD))
            self._held += size + OVERHEAD

    def wanted(self) -> None:
        """The app waits in `receive()`."""
        if self.ended:
            self.retell()
        elif self._events:
            least = self._held - AHEAD
            while self._events and self._held > least:
                message, data, size = self._events.popleft()
                self._held -= size
                self._engine.send_event(self._call, message, data)
        else:
            self._wants = True

    def clear(self) -> None:
        """The app takes no messages any more."""
        self._events.clear()
        self._held = 0

    def end(self, code: int, reason: str) -> None:
        """The client has gone: the app hears of it, and may end as it likes. It is not run if it has not begun."""
        if self._end is not None:
            return
        self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        if not self._engine.recall(self._call):
            self.retell()

    def retell(self) -> None:
        """After the end: the worker that has the app now may not be the one that was told."""
        call, engine = self._call, self._engine
        if call.member is None or call.member is self._told or call.state not in (SENT, STARTED):
            return
        assert self._end is not None
        self._told = call.member
        for message, data, _ in self._events:
            engine.send_event(call, message.copy(), data)
        engine.send_event(call, self._end.copy(), None)
        call.member.link.flow((f.GONE, call.id))  # from now on `send()` raises
