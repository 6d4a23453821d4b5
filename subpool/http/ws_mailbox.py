"""What a WebSocket session has for its app: messages that the app has not asked for yet, and behind them the end.

When the app asks, it gets what is there, up to `AHEAD`: a round trip for each small message would cost more than the
message.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..call import PENDING, SENT, STARTED, Call
from ..channels import frames as f

if TYPE_CHECKING:
    from ..engine import Engine

HELD: Final = 64 * 1024  # bytes that may wait
AHEAD: Final = 16 * 1024  # bytes that one word of the app's is worth
OVERHEAD: Final = 64  # bytes that a message counts beyond its own


class Mailbox:
    """For the app that runs as `call`. `full`: the client should not be read for now."""

    __slots__ = ("_asked", "_call", "_end", "_engine", "_events", "_held", "_wants")

    def __init__(self, engine: Engine, call: Call) -> None:
        self._engine = engine
        self._call = call
        self._events: deque[tuple[dict[str, Any], bytes | None, int]] = deque()
        self._held = 0
        self._wants = False  # the app waits in `receive()`
        self._asked = False  # it has ever done so
        self._end: dict[str, Any] | None = None  # the `websocket.disconnect`, once it was sent

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
        self._asked = True
        if self._end is not None:  # it did not listen yet when it was told
            self._flush(self._end)
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
        """The client has gone. Told once; an app that has not begun is not run."""
        if self._end is not None:
            return
        self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        if self._call.state == PENDING or self._call.state == SENT:
            self._engine.give_up(self._call)
        else:
            self._flush(self._end)

    def _flush(self, end: dict[str, Any]) -> None:
        for message, data, _ in self._events:
            self._engine.send_event(self._call, message, data)
        if self._asked:  # else its worker may still import it, and what is sent now is lost: see `wanted`
            self.clear()
        self._engine.send_event(self._call, end.copy(), None)
        self.gone()

    def gone(self) -> None:
        """Let the app's `send()` raise, and its `receive()` wait no more."""
        call = self._call
        if call.state == STARTED and call.member is not None:
            call.member.link.flow((f.GONE, call.id))
