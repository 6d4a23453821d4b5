"""What the tests of the shared state use: stores of every kind, and time that passes at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from subpool.state.space import Space
from subpool.state.sqlite import SQLiteStore

STORES = ("memory", "sqlite", "redis")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fixture:
    """A store that is empty, and its time."""

    def __init__(self, kind: str, store: Any, clock: Clock | None) -> None:
        self.kind = kind
        self.store = store
        self._clock = clock
        self.space = Space(store, "tests")

    def other(self, name: str) -> Space:
        """Another namespace of the same store."""
        return Space(self.store, name)

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` be over. In Redis: each entry has so much less to live."""
        if self._clock is not None:
            self._clock.now += seconds
            return
        redis = self.store._redis
        for key in redis.keys():  # noqa: SIM118  it is no dict
            left = redis.pttl(key)
            if left >= 0:
                redis.pexpire(key, round(left - seconds * 1000))  # 0 and less delete it


def make_store(kind: str, folder: Path, url: str = "", **options: Any) -> Fixture:
    """A store of that kind, in `folder` where it has a file."""
    if kind == "redis":
        from subpool.state.redis import RedisStore

        return Fixture(kind, RedisStore(url), None)
    clock = Clock()
    path = folder / "state" / "state.db" if kind == "memory" else folder / "state.db"
    return Fixture(kind, SQLiteStore(str(path), durable=kind == "sqlite", clock=clock, **options), clock)
