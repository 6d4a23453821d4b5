"""What joins the hubs of several processes: the seam between `hub` and, say, Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Bus(Protocol):
    """Nothing here waits: it is called on the host's loop, in the way of a message."""

    async def start(self, spread: Callable[[str, bytes], object]) -> None:
        """Connect. `spread(topic, message)` is called with what others publish. `SubpoolError` if that cannot be."""

    def publish(self, topic: str, message: bytes) -> None:
        """Tell the others. What cannot be sent for too long is dropped, oldest first, and logged."""

    def subscribe(self, topic: str, counts: Callable[[], None]) -> None:
        """Someone here wants the topic. `counts` is called when what others publish from then on is heard, or, while
        the bus is down, soon."""

    def unsubscribe(self, topic: str) -> None:
        """Nobody here wants it any more."""

    def status(self) -> dict[str, Any]:
        """What it is and does, as plain data."""

    async def close(self) -> None:
        """End it."""
