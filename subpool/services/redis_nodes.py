"""Calls between hosts over Redis or Valkey: see `nodes`. For hosts on asyncio.

Every host hears a channel of its own; a message is a PUBLISH, whose answer says whether it was heard. A sorted set
holds the hosts with the time, by the clock of Redis, until which they live; each puts its own `LIFE` seconds ahead once
in `BEAT`, and is told in the same step who lives: who is in the set, and hears. So one that was killed is missed at
once, and one whose machine lost its power after `LIFE`.

Two connections (see `redis_link`). One sends commands and takes their answers in order, in batches. Redis has
`PATIENCE` seconds for a batch; then the connection counts as broken. So does the one that hears, if a ping is not
answered for so long. What breaks ends all calls (`Nodes.broken`), and what was not sent by then is not sent later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection

from .nodes import Living, Nodes
from .redis_link import CONNECT, RedisLink

KEY: Final = b"subpool:nodes"
CHANNEL: Final = b"subpool:host:"
BEAT: Final = 1.0  # seconds
LIFE: Final = 4.0
PATIENCE: Final = 5.0
MOST: Final = 20_000  # messages that wait to be sent
MOST_BYTES: Final = 64 * 1024 * 1024
BATCH: Final = 100  # commands sent together, and their bytes
BATCH_BYTES: Final = 1024 * 1024
ID: Final = 16  # characters of a host's id

# Whom the set holds, and who hears. ARGV: the caller's id and name, or "" if it is not to be one of them; seconds to
# live; the channel.
_LOOK: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.3f', now))
if ARGV[1] ~= '' then
    redis.call('ZADD', KEYS[1], string.format('%.3f', now + ARGV[2]), ARGV[1])
end
local living = {}
for _, host in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if redis.call('PUBSUB', 'NUMSUB', ARGV[3] .. string.sub(host, 1, 16))[2] > 0 then
        living[#living + 1] = host
    end
end
return living
"""


class Parcel:
    """A command on its way. `done` has its answer; `lost`: the connection broke before that."""

    __slots__ = ("command", "done", "instead", "lost", "size")

    def __init__(self, command: tuple[Any, ...], done: Callable[[Any], None] | None) -> None:
        self.command = command
        self.done = done
        self.lost: Callable[[], None] | None = None
        self.instead: Parcel | None = None
        self.size = len(command[-1])


class RedisPost:
    """See `nodes.Post`."""

    def __init__(self, url: str, nodes: Nodes) -> None:
        self._nodes = nodes
        self._link = RedisLink(url)
        self._own = nodes.own.encode() + nodes.name.encode()
        self._channel = CHANNEL + nodes.own.encode()
        self._outbox: deque[Parcel] = deque()
        self._bytes = 0
        self._news = asyncio.Event()  # something is to be sent
        self._heard = False
        self._beat_at = 0.0
        self._first = asyncio.Event()
        self._empty = asyncio.Event()
        self.up = False

    def __repr__(self) -> str:
        return f"<RedisPost {'up' if self.up else 'down'}, {len(self._outbox)} commands wait>"

    async def start(self) -> None:
        """Connect, and be known to others. A Redis that cannot be reached now is tried again."""
        await self._link.start({"call other nodes": self._send, "be called by them": self._hear})
        if not self._link.up:
            return
        try:
            async with asyncio.timeout(CONNECT):
                await self._first.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """Say what is to be said yet, and be known no more."""
        if self.up:
            self._put(Parcel(("ZREM", KEY, self._own), None))
            try:
                async with asyncio.timeout(CONNECT):
                    await self._empty.wait()
            except TimeoutError:
                pass
        await self._link.close()

    # what `Nodes` asks

    def send(self, to: str, data: bytes, sent: Callable[[int], None] | None, instead: bytes | None) -> bool:
        if (len(self._outbox) >= MOST or self._bytes + len(data) > MOST_BYTES) and instead is not data:
            return False
        channel = CHANNEL + to.encode()
        parcel = Parcel(("PUBLISH", channel, data), sent)
        if instead is not None:
            parcel.instead = again = parcel if instead is data else Parcel(("PUBLISH", channel, instead), None)
            again.instead = again
        self._put(parcel)
        return True

    def look(self, seen: Callable[[Living | None], None]) -> None:
        self._ask_who_lives(lambda answer: seen(_living(answer)), lambda: seen(None))

    def _ask_who_lives(self, done: Callable[[Any], None], lost: Callable[[], None] | None = None) -> None:
        own = self._own if self._heard else b""
        parcel = Parcel(("EVAL", _LOOK, 1, KEY, own, LIFE, CHANNEL), done)
        parcel.lost = lost
        self._put(parcel)

    def _put(self, parcel: Parcel) -> None:
        self._outbox.append(parcel)
        self._bytes += parcel.size
        self._empty.clear()
        self._news.set()

    # connections

    async def _send(self, connection: AbstractConnection) -> None:
        time = asyncio.get_running_loop().time
        self._beat_at = 0.0
        batch: list[Parcel] = []
        try:
            while True:
                if time() >= self._beat_at:
                    self._beat_at = time() + BEAT
                    self._ask_who_lives(self._beaten)
                if not self._outbox:
                    self._empty.set()
                    await self._until_news(self._beat_at - time())
                    continue
                batch = self._batch()
                async with asyncio.timeout(PATIENCE):
                    await connection.send_packed_command(connection.pack_commands([one.command for one in batch]))
                    for at, parcel in enumerate(batch):
                        answer = await connection.read_response()
                        batch[at] = _DONE
                        if parcel.done is not None:
                            parcel.done(answer)
        finally:
            self._broken([one for one in batch if one is not _DONE])

    def _beat_now(self) -> None:
        self._beat_at = 0.0
        self._news.set()

    async def _until_news(self, seconds: float) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    def _batch(self) -> list[Parcel]:
        batch: list[Parcel] = []
        size = 0
        while self._outbox and len(batch) < BATCH and size < BATCH_BYTES:
            parcel = self._outbox.popleft()
            batch.append(parcel)
            size += parcel.size
        self._bytes -= size
        return batch

    def _beaten(self, answer: Any) -> None:
        living = _living(answer)
        if self._nodes.own in living:
            self.up = True
            self._first.set()
        self._nodes.beat(living)

    async def _hear(self, connection: AbstractConnection) -> None:
        try:
            await connection.send_command("SUBSCRIBE", self._channel)
            while True:
                answer = await connection.read_response(timeout=PATIENCE)
                if answer is None:
                    await connection.send_command("PING")
                    answer = await connection.read_response(timeout=PATIENCE)
                    if answer is None:
                        raise TimeoutError("it is silent")
                if answer[0] == b"message":
                    self._nodes.arrived(answer[2])
                elif answer[0] == b"subscribe":
                    self._heard = True
                    self._beat_now()
        finally:
            self._heard = False
            self._broken([])
            self._beat_now()  # the other one notices

    def _broken(self, batch: list[Parcel]) -> None:
        """What was not sent, or may not have been, is lost; some of it has something in its place."""
        self.up = False
        lost = [*batch, *self._outbox]
        self._outbox.clear()
        self._bytes = 0
        for parcel in lost:
            if parcel.instead is not None:
                self._put(parcel.instead)
            if parcel.lost is not None:
                parcel.lost()
        self._nodes.broken()


_DONE: Final = Parcel((b"",), None)


def _living(answer: Any) -> Living:
    return {one[:ID].decode("latin-1"): one[ID:].decode("utf-8", "replace") for one in answer}
