"""What a WebSocket session has for its app: messages that the app is not near yet, and behind them the end.

Messages go to the worker before the app asks, at most `AHEAD` bytes that it has not taken: asking would cost a round
trip a message. The worker says how many were taken when they come to a quarter of that, in characters: a text of as
many has at most four times the bytes, so that the host never waits for a word that the worker does not owe.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..hostcall import SENT, STARTED, Call

if TYPE_CHECKING:
    from ..engine import Engine
    from ..member import Member

HELD: Final = 64 * 1024  # bytes that may wait
AHEAD: Final = 64 * 1024  # bytes that are sent before the app asks
OVERHEAD: Final = f.OVERHEAD


class Mailbox:
    """For the app that runs as `call`. `full`: the client should not be read for now."""

    __slots__ = ("_ahead", "_call", "_closed", "_end", "_engine", "_events", "_held", "_sizes", "_told")

    def __init__(self, engine: Engine, call: Call) -> None:
        self._engine = engine
        self._call = call
        self._events: deque[tuple[str | bytes, int]] = deque()
        self._held = 0
        self._sizes: deque[int] = deque()  # of what was sent and not taken
        self._ahead = 0  # their sum
        self._closed = False
        self._end: dict[str, Any] | None = None  # the `websocket.disconnect`
        self._told: Member | None = None  # the worker that it was sent to

    def __repr__(self) -> str:
        ahead = f"{len(self._sizes)} ahead"
        return f"<Mailbox: {len(self._events)} messages, {self._held} bytes, {ahead}{', ended' if self.ended else ''}>"

    @property
    def full(self) -> bool:
        return self._held > HELD

    @property
    def ended(self) -> bool:
        return self._end is not None

    def move(self, engine: Engine) -> None:
        """The app is another one; nothing was put in yet."""
        self._engine = engine

    def put(self, data: str | bytes, size: int) -> None:
        """A message for the app, of `size` bytes."""
        if self._closed:
            return
        size += OVERHEAD
        if self._ahead < AHEAD and not self._events:
            self._send(data, size)
        else:
            self._events.append((data, size))
            self._held += size

    def _send(self, data: str | bytes, size: int) -> None:
        self._sizes.append(size)
        self._ahead += size
        self._engine.send_event(self._call, None, data)

    def taken(self, count: int) -> None:
        """The app has taken so many messages."""
        for _ in range(count):
            self._ahead -= self._sizes.popleft()
        while self._events and self._ahead < AHEAD:
            data, size = self._events.popleft()
            self._held -= size
            self._send(data, size)

    def close(self) -> None:
        """The app takes no messages any more."""
        self._closed = True
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
        for data, size in self._events:
            self._send(data, size)
        self.close()
        engine.send_event(call, self._end.copy(), None)
        call.member.link.flow((f.GONE, call.id))  # from now on `send()` raises
