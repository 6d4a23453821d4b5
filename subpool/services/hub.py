"""Topics on the host: who subscribes to what, and the way of a message to all of them.

The host puts the messages of a topic in order: every subscriber here gets them in the same one. A `Feed` is one
subscriber of the host, or all those of one worker. A `bus` joins the hubs of several processes and machines: what is
published here goes out on it, and what comes from it is spread here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from ..channels import frames as f
from ..hostloop import HostLoop, Waiter
from ..plain import unpack
from .bus import Bus

if TYPE_CHECKING:
    from .desk import Desk

WINDOW: Final = 256 * 1024  # bytes on their way to one worker that it has not passed on
MOST: Final = 1000  # messages that wait behind them, or for a subscriber of the host,
MOST_BYTES: Final = 4 * 1024 * 1024  # and their bytes; then the oldest is dropped


class Feed(Protocol):
    """Who is told of a topic's messages. `count`: how many subscribers that is; `dropped`: messages."""

    count: int

    @property
    def dropped(self) -> int: ...

    def put(self, message: bytes) -> None: ...


class Hub:
    """The topics of one process."""

    def __init__(self) -> None:
        self._topics: dict[str, dict[Feed, None]] = {}
        self.bus: Bus | None = None
        self.published = 0
        self._dropped = 0  # by feeds that have ended

    def __repr__(self) -> str:
        return f"<Hub: {self.subscribers()} subscribers of {len(self._topics)} topics>"

    def __len__(self) -> int:
        return len(self._topics)

    def subscribers(self) -> int:
        return sum(feed.count for feeds in self._topics.values() for feed in feeds)

    def dropped(self) -> int:
        return self._dropped + sum(feed.dropped for feeds in self._topics.values() for feed in feeds)

    def publish(self, topic: str, message: bytes) -> int:
        """Give all subscribers the message; how many there are in this process."""
        self.published += 1
        reached = self.spread(topic, message)
        if self.bus is not None:
            self.bus.publish(topic, message)
        return reached

    def spread(self, topic: str, message: bytes) -> int:
        """The same, to those of this process alone: what the bus has brought."""
        reached = 0
        for feed in self._topics.get(topic, ()):
            reached += feed.count
            feed.put(message)
        return reached

    def add(self, topic: str, feed: Feed, counts: Callable[[], None]) -> None:
        """Tell `feed` of a topic. `counts` is called when what others publish from then on reaches it."""
        feeds = self._topics.get(topic)
        if feeds is None:
            feeds = self._topics[topic] = {}
        feeds[feed] = None
        if self.bus is None:
            counts()
        else:
            self.bus.subscribe(topic, counts)

    def remove(self, topic: str, feed: Feed) -> None:
        """Tell it no more. A second call does nothing."""
        feeds = self._topics.get(topic)
        if feeds is None or feed not in feeds:
            return
        del feeds[feed]
        self._dropped += feed.dropped
        if not feeds:
            del self._topics[topic]
            if self.bus is not None:
                self.bus.unsubscribe(topic)


class Backlog:
    """Messages that wait, the oldest dropped when there are too many."""

    __slots__ = ("_bytes", "dropped", "messages", "missed")

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.missed = 0  # dropped since the last that was taken
        self.dropped = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.messages)

    def put(self, message: bytes) -> None:
        messages = self.messages
        messages.append(message)
        self._bytes += len(message)
        while len(messages) > MOST or (self._bytes > MOST_BYTES and len(messages) > 1):
            self._bytes -= len(messages.popleft())
            self.missed += 1
            self.dropped += 1

    def take(self) -> tuple[bytes, int]:
        """The oldest, and how many were dropped before it."""
        message = self.messages.popleft()
        self._bytes -= len(message)
        missed, self.missed = self.missed, 0
        return message, missed


class WorkerFeed:
    """All subscribers of a topic in one worker, whose messages come the same way (`how`): a message is one frame."""

    def __init__(self, desk: Desk, topic: str, how: int) -> None:
        self.count = 0
        self._desk = desk
        self._topic, self._how = topic, how
        self._backlog = Backlog()
        self._sent = 0  # bytes that were not passed on yet

    def __repr__(self) -> str:
        return f"<WorkerFeed {self._topic!r}: {self.count} subscribers, {len(self._backlog)} messages wait>"

    @property
    def dropped(self) -> int:
        return self._backlog.dropped

    def put(self, message: bytes) -> None:
        if not self._backlog and self._room():
            self._send(message, 0)
        else:
            self._backlog.put(message)

    def _room(self) -> bool:
        return self._sent < WINDOW

    def _send(self, message: bytes, missed: int) -> None:
        self._sent += len(message) + f.OVERHEAD
        self._desk.send(self._how, (f.NEWS, self._topic, self._how, message, missed))

    def heard(self, weight: int) -> None:
        """So much was passed on."""
        self._sent -= weight
        while self._backlog and self._room():
            self._send(*self._backlog.take())


class HostFeed:
    """One subscriber on the host."""

    def __init__(self) -> None:
        self.count = 1
        self.backlog = Backlog()
        self.waiter: Waiter | None = None
        self.over = False

    @property
    def dropped(self) -> int:
        return self.backlog.dropped

    def put(self, message: bytes) -> None:
        self.backlog.put(message)
        self.wake()

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class HostSubscription:
    """What `Pool.subscribe` gives: `async with`, then `async for`."""

    def __init__(self, hub: Hub, loop: HostLoop, topic: str) -> None:
        self.topic = topic
        self._hub, self._loop = hub, loop
        self._feed = HostFeed()
        self._begun = False

    def __repr__(self) -> str:
        return f"<HostSubscription {self.topic!r}: {len(self._feed.backlog)} messages wait>"

    @property
    def lost(self) -> int:
        """How many messages it has lost so far, because it was too slow."""
        return self._feed.dropped

    async def __aenter__(self) -> Self:
        if self._begun:
            raise RuntimeError("a subscription is entered once; subscribe again")
        self._begun = True
        counts = self._loop.waiter()

        def count() -> None:
            if not counts.done():
                counts.set_result(None)

        self._hub.add(self.topic, self._feed, count)
        try:
            await counts
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription. A second call does nothing."""
        self._hub.remove(self.topic, self._feed)
        self._feed.over = True
        self._feed.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if not self._begun:
            await self.__aenter__()
        feed = self._feed
        while not feed.backlog:
            if feed.over:
                raise StopAsyncIteration
            feed.waiter = self._loop.waiter()
            await feed.waiter
        return unpack(feed.backlog.take()[0])

    def __del__(self) -> None:
        if self._begun and not self._feed.over:
            self._loop.call_threadsafe(self._hub.remove, self.topic, self._feed)
