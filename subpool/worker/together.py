"""What workers of the thread kind owe one another: they share one interpreter and one imported app.

Their start-ups run one at a time, and no shutdown runs before all of them have finished their requests: what the app
closes there, the others still use.
"""

from __future__ import annotations

import asyncio
import threading

STEP = 0.002  # seconds between two looks, at a start or an end: the threads have loops of their own

_pools: dict[int, Together] = {}
_lock = threading.Lock()


class Together:
    """The workers of one pool that are alive. `of(pool)` gives the one of a pool, by its number."""

    def __init__(self, pool: int) -> None:
        self._pool = pool
        self._serving = 0
        self._alive = 0
        self._starting = threading.Lock()

    def __repr__(self) -> str:
        return f"<Together {self._pool}: {self._serving} of {self._alive} serving>"

    @classmethod
    def join(cls, pool: int) -> Together:
        """One more worker: it calls `drained` when it serves no more, and `leave` at its end."""
        with _lock:
            found = _pools.get(pool)
            if found is None:
                found = _pools[pool] = cls(pool)
            found._alive += 1
            found._serving += 1
        return found

    def leave(self, drained: bool) -> None:
        """The worker has ended; `drained`: it had said that it serves no more."""
        with _lock:
            self._alive -= 1
            self._serving -= not drained
            if not self._alive:
                _pools.pop(self._pool, None)

    async def __aenter__(self) -> None:
        """Begin a start-up or a shutdown, when no other runs."""
        while not self._starting.acquire(blocking=False):  # noqa: ASYNC110
            await asyncio.sleep(STEP)

    async def __aexit__(self, *exc: object) -> None:
        self._starting.release()

    async def drained(self, seconds: float) -> None:
        """This worker serves no more: wait until none does, for at most so many seconds."""
        with _lock:
            self._serving -= 1
        deadline = asyncio.get_running_loop().time() + seconds
        while self._serving > 0 and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(STEP)
