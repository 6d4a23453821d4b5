"""What the guard waits for, in one thread: descriptors that have something to say, and points in time."""

from __future__ import annotations

import heapq
import selectors
import time
from collections.abc import Callable
from typing import Any

from .link import Link


class Events:
    """`turn` again and again; what was registered is called from there."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0

    def watch(self, what: Any, does: Callable[[], object]) -> None:
        """Call `does` whenever `what` can be read, or written where it is a link with something unsent."""
        self._selector.register(what, selectors.EVENT_READ, does)

    def end(self, link: Link) -> None:
        """Watch it no more, and close it, unless that was done before."""
        if link.fileno() >= 0:
            self._selector.unregister(link)
            link.close()

    def later(self, seconds: float, does: Callable[[], None]) -> None:
        """Call `does` once, in that time."""
        self._numbers += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._numbers, does))

    def turn(self) -> None:
        """Wait for something, and do what is to be done about it."""
        self._want_room()
        wait = None if not self._timers else max(0.0, self._timers[0][0] - time.monotonic())
        for key, _ in self._selector.select(wait):
            key.data()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def _want_room(self) -> None:
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, Link):
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if key.fileobj.unsent else 0)
                if events != key.events:
                    self._selector.modify(key.fileobj, events, key.data)

    def close(self) -> None:
        self._selector.close()
