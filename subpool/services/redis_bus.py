"""A bus over Redis or Valkey (PUBLISH and SUBSCRIBE), by the library `redis`. For hosts on asyncio.

Two connections (see `redis_link`): one publishes, one hears, and that one subscribes anew to all that is wanted when it
is made again. While Redis is away, processes hear nothing of each other; within a process nothing changes. What is
published meanwhile waits, at most 1000 messages and 4 MiB, the oldest dropped; what was on its way when a connection
broke may be lost. Redis keeps nothing of what it passes on. Messages are MessagePack there (`packing`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection

from ..plain import pack, unpack
from .packing import decode, encode
from .redis_link import RedisLink

log = logging.getLogger("subpool")

PREFIX: Final = "subpool:topic:"
ALIVE: Final = 10.0  # seconds of silence until a ping, and again until the connection counts as lost
COUNTS: Final = 1.0  # seconds that a subscriber waits for Redis
MOST: Final = 1000  # messages that wait
MOST_BYTES: Final = 4 * 1024 * 1024
BATCH: Final = 100  # messages sent together


class RedisBus:
    """See `bus.Bus`. `url`: redis://, rediss:// or unix://, as the library reads it."""

    def __init__(self, url: str, prefix: str = PREFIX) -> None:
        self._prefix = prefix.encode()
        self._own = os.urandom(8)  # begins what this process publishes, and is not to hear
        self._spread: Callable[[str, bytes], object] = lambda topic, message: None
        self._wanted: dict[str, list[Callable[[], None]]] = {}  # with who waits until it counts
        self._outbox: deque[tuple[bytes, bytes]] = deque()
        self._bytes = 0
        self._news = asyncio.Event()  # something is to be published
        self._changes: deque[tuple[bytes, str]] = deque()  # SUBSCRIBE or UNSUBSCRIBE, and a topic
        self._changed = asyncio.Event()
        self._link = RedisLink(url)
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<RedisBus {self._link!r}, {len(self._wanted)} topics, {len(self._outbox)} messages wait>"

    def status(self) -> dict[str, Any]:
        return {"up": self._link.up, "waiting": len(self._outbox), "dropped": self.dropped}

    async def start(self, spread: Callable[[str, bytes], object]) -> None:
        """Connect. A Redis that cannot be reached now is tried again, as one that is lost later."""
        self._spread = spread
        await self._link.start({"publish": self._publish, "hear": self._hear})

    async def close(self) -> None:
        await self._link.close()

    # what the hub asks

    def publish(self, topic: str, message: bytes) -> None:
        try:
            data = self._own + encode(unpack(message))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            log.error("a message to %r cannot leave this process: %s", topic, error)
            self.dropped += 1
            return
        self._outbox.append((self._channel(topic), data))
        self._bytes += len(data)
        while len(self._outbox) > MOST or (self._bytes > MOST_BYTES and len(self._outbox) > 1):
            self._bytes -= len(self._outbox.popleft()[1])
            self.dropped += 1
        self._news.set()

    def subscribe(self, topic: str, counts: Callable[[], None]) -> None:
        waiting = self._wanted.get(topic)
        if waiting is not None and not waiting:
            counts()
            return
        if waiting is None:
            waiting = self._wanted[topic] = []
            self._change(b"SUBSCRIBE", topic)
        waiting.append(counts)
        asyncio.get_running_loop().call_later(COUNTS, self._counts, topic, counts)

    def unsubscribe(self, topic: str) -> None:
        if self._wanted.pop(topic, None) is not None:
            self._change(b"UNSUBSCRIBE", topic)

    def _change(self, command: bytes, topic: str) -> None:
        self._changes.append((command, topic))
        self._changed.set()

    def _counts(self, topic: str, counts: Callable[[], None] | None = None) -> None:
        """The topic is heard; or who waits for that has waited for long enough."""
        waiting = self._wanted.get(topic, [])
        for one in list(waiting):
            if counts is None or one is counts:
                waiting.remove(one)
                one()

    def _channel(self, topic: str) -> bytes:
        return self._prefix + topic.encode("utf-8", "surrogatepass")

    # connections

    async def _publish(self, connection: AbstractConnection) -> None:
        while True:
            if not self._outbox:
                self._news.clear()
                try:
                    async with asyncio.timeout(ALIVE):
                        await self._news.wait()
                except TimeoutError:
                    await connection.send_command("PING")
                    await self._read(connection)
                    continue
            batch = [self._outbox.popleft() for _ in range(min(BATCH, len(self._outbox)))]
            self._bytes -= sum(len(data) for _, data in batch)
            try:
                commands = connection.pack_commands([("PUBLISH", *one) for one in batch])
                await connection.send_packed_command(commands)
                for _ in batch:
                    await self._read(connection)
            except BaseException:
                self.dropped += len(batch)  # as far as is known
                raise

    async def _read(self, connection: AbstractConnection) -> Any:
        response = await connection.read_response(timeout=ALIVE)
        if response is None:
            raise TimeoutError("no answer")
        return response

    async def _hear(self, connection: AbstractConnection) -> None:
        self._changes.clear()
        topics = list(self._wanted)
        if topics:
            await connection.send_command("SUBSCRIBE", *map(self._channel, topics))
        telling = asyncio.create_task(self._tell(connection))
        try:
            await self._listen(connection)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self, connection: AbstractConnection) -> None:
        """Say what is wanted now, and a ping from time to time."""
        while True:
            self._changed.clear()
            while self._changes:
                command, topic = self._changes.popleft()
                await connection.send_command(command.decode(), self._channel(topic))
            try:
                async with asyncio.timeout(ALIVE):
                    await self._changed.wait()
            except TimeoutError:
                await connection.send_command("PING")

    async def _listen(self, connection: AbstractConnection) -> None:
        while True:
            answer = await connection.read_response(timeout=2 * ALIVE)
            if answer is None:
                raise TimeoutError("it is silent")
            kind = answer[0]
            if kind not in (b"message", b"subscribe") or not answer[1].startswith(self._prefix):
                continue
            topic = answer[1][len(self._prefix) :].decode("utf-8", "surrogatepass")
            if kind == b"subscribe":
                self._counts(topic)
            elif not answer[2].startswith(self._own):
                self._arrived(topic, answer[2][len(self._own) :])

    def _arrived(self, topic: str, data: bytes) -> None:
        try:
            message = pack("a message", decode(data))
        except (ValueError, TypeError, RecursionError) as error:
            log.warning("a message to %r from Redis is none of ours: %s", topic, error)
            return
        self._spread(topic, message)
