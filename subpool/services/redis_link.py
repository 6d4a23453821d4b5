"""Connections to Redis that are kept: each is made again when it is lost, after a pause of 0.1 to 2 seconds.

An outage is one line in the log, and its end another, whichever connections notice it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..errors import ConfigError

log = logging.getLogger("subpool")

LEAST_PAUSE: Final = 0.1  # seconds
MOST_PAUSE: Final = 2.0
CONNECT: Final = 2.0  # seconds to connect

Use = Callable[[AbstractConnection], Coroutine[Any, Any, None]]


class RedisLink:
    """`url`: redis://, rediss:// or unix://, as the library `redis` reads it."""

    def __init__(self, url: str) -> None:
        self._up: dict[str, bool] = {}
        self._told = False  # that one is down
        self._tasks: list[asyncio.Task[None]] = []
        try:
            self._pool = ConnectionPool.from_url(
                url, socket_connect_timeout=CONNECT, socket_timeout=None, retry=Retry(NoBackoff(), 0), protocol=2
            )
        except ValueError as error:
            raise ConfigError([f"bus: {error}"]) from None

    def __repr__(self) -> str:
        return f"<RedisLink {self._up}>"

    @property
    def up(self) -> bool:
        """Whether all connections are there."""
        return bool(self._up) and all(self._up.values())

    async def start(self, uses: Mapping[str, Use]) -> None:
        """Connect, by what each connection is for. `use` runs until it breaks. A Redis that cannot be reached now is
        tried again, as one that is lost later."""
        first = asyncio.Event()
        self._up = dict.fromkeys(uses, False)
        self._tasks = [asyncio.create_task(self._keep(what, use, first)) for what, use in uses.items()]
        try:
            async with asyncio.timeout(CONNECT):
                await first.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """End them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.disconnect()

    async def _keep(self, what: str, use: Use, first: asyncio.Event) -> None:
        """Have a connection, and use it, for ever."""
        now = asyncio.get_running_loop().time
        pause = LEAST_PAUSE
        while True:
            begun = now()
            connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                self._up[what] = True
                if self.up:
                    first.set()
                    if self._told:
                        self._told = False
                        log.warning("Redis is back (to %s)", " and to ".join(self._up))
                await use(connection)
            except (RedisError, OSError, TimeoutError, EOFError) as error:
                if not self._told:
                    self._told = True
                    log.error("Redis cannot be reached (to %s), and is tried again: %s", what, error)
            finally:
                self._up[what] = False
                await connection.disconnect(nowait=True)
            if now() - begun > 2 * MOST_PAUSE:
                pause = LEAST_PAUSE  # it held
            await asyncio.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE)
