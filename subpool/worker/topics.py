"""A worker's subscribers. The host sends a message once a worker, and it is passed on here.

A subscriber has a queue with a bound, in messages and in bytes; one that is too slow loses the oldest and is told how
many. What was passed on is acknowledged (HEARD), so that a worker which holds its loop is sent no more than it can
keep: the host drops the oldest then.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..channels.frames import Frame
from ..errors import PoolClosed
from .inlet import Bell, Inlet

if TYPE_CHECKING:
    from .services import Services

MOST_BYTES: Final = 4 * 1024 * 1024  # of messages that wait for one subscriber
ACKNOWLEDGE: Final = 64 * 1024  # bytes; after so many the host hears of it

Key = tuple[str, int]  # topic, and `how` its frames come


class Mailbox:
    """The messages that wait for one subscriber. `put` is called on one thread, `take` on another perhaps: neither
    writes what the other does."""

    __slots__ = ("_given", "_taken", "bell", "key", "limit", "lost", "messages", "over")

    def __init__(self, key: Key, bell: Bell, limit: int) -> None:
        self.key = key
        self.bell = bell
        self.limit = limit
        self.messages: deque[bytes] = deque()
        self.lost = 0
        self.over = False
        self._given = self._taken = 0  # bytes

    def __repr__(self) -> str:
        return f"<Mailbox {self.key[0]!r}: {len(self.messages)} messages, {self.lost} lost>"

    def put(self, message: bytes, missed: int) -> None:
        """A message, behind so many that were dropped on their way."""
        messages = self.messages
        messages.append(message)
        self._given += len(message)
        self.lost += missed
        while len(messages) > self.limit or (self._given - self._taken > MOST_BYTES and len(messages) > 1):
            try:
                self._given -= len(messages.popleft())
            except IndexError:
                break  # taken meanwhile
            self.lost += 1
        self.bell.ring()

    def take(self) -> bytes:
        """The oldest message. `IndexError` if there is none."""
        message = self.messages.popleft()
        self._taken += len(message)
        return message

    def end(self) -> None:
        """Nothing will come any more."""
        self.over = True
        self.bell.ring()


class _Feed:
    __slots__ = ("boxes", "heard")

    def __init__(self) -> None:
        self.boxes: dict[Mailbox, None] = {}
        self.heard = 0  # bytes that were passed on, and not acknowledged


class Topics:
    """The feeds that come from the host, each with its subscribers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._feeds: dict[Key, _Feed] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Topics: {len(self)} subscribers of {len(self._feeds)} feeds>"

    def __len__(self) -> int:
        return sum(len(feed.boxes) for feed in self._feeds.values())

    def add(self, box: Mailbox, inlet: Inlet) -> int:
        """Begin a subscription; `inlet` hears when it counts."""
        services = self._services
        with services.whole(), self._lock:
            number = services.enter(inlet)
            feed = self._feeds.get(box.key)
            if feed is None:
                feed = self._feeds[box.key] = _Feed()
            feed.boxes[box] = None
            services.send((f.SUBSCRIBE, *box.key, len(feed.boxes), number), not inlet.in_task())
        return number

    def remove(self, box: Mailbox) -> None:
        """End a subscription. A second call does nothing."""
        services = self._services
        with services.whole(), self._lock:
            feed = self._feeds.get(box.key)
            if feed is None or box not in feed.boxes:
                return
            del feed.boxes[box]
            if not feed.boxes:
                del self._feeds[box.key]
            services.send((f.SUBSCRIBE, *box.key, len(feed.boxes), 0), not services.at_loop())
        box.end()

    def forget(self, box: Mailbox) -> None:
        """End the subscription, which nobody holds any more."""
        self._services.soon(self.remove, box)

    def on_news(self, frame: Frame) -> None:
        """A message: on the loop's thread, or the steward's."""
        _, topic, how, message, missed = frame
        key = topic, how
        with self._lock:
            feed = self._feeds.get(key)
            if feed is None:
                return
            boxes: list[Any] = list(feed.boxes)
            feed.heard += len(message) + f.OVERHEAD
            heard = feed.heard
            if heard >= ACKNOWLEDGE:
                feed.heard = 0
        for box in boxes:
            box.put(message, missed)
        if heard >= ACKNOWLEDGE:
            try:
                self._services.send((f.HEARD, *key, heard), False)
            except PoolClosed:
                pass  # and nothing more will come
