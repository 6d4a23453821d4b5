"""A store in Redis or Valkey, by the library `redis`.

An int is stored as its decimal digits, so that INCRBY counts with it and others can read it; everything else as "=" and
MessagePack. Entries live in one database, under `subpool:`, the namespace, a NUL and the key.

A command is sent once. If the connection breaks before its answer, `StateUnavailable` says so: whether a change was
made is unknown then, and to send it again could count twice. What Redis loses when it dies is its own matter
(`appendonly`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..errors import StateError, StateFull, StateUnavailable
from . import values
from .options import masked
from .store import MISSING

PATIENCE: Final = 2.0  # seconds for an answer
CONNECT: Final = 1.0  # seconds to connect
PREFIX: Final = b"subpool:"
COUNT: Final = 1000  # keys that SCAN looks at in one step

_SWAP: Final = """
local old = redis.call('GET', KEYS[1])
local how = ARGV[1]
if how == 'missing' and old or how == 'none' and old and old ~= ARGV[2] or how == 'value' and old ~= ARGV[2] then
    return 0
end
if ARGV[4] == '' then redis.call('SET', KEYS[1], ARGV[3]) else redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
return 1
"""
_DROP: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisStore:
    """See `store.Store`."""

    remote = True

    def __init__(self, url: str) -> None:
        self._url = url
        options: dict[str, Any] = {"socket_timeout": PATIENCE, "socket_connect_timeout": CONNECT}
        for name in options.copy():
            if f"{name}=" in url:
                del options[name]
        self._redis = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
        self._swap = self._redis.register_script(_SWAP)
        self._drop = self._redis.register_script(_DROP)

    def __repr__(self) -> str:
        return f"<RedisStore {masked(self._url)}>"

    def _ask(self, command: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Send a command; its answer. `redis.ResponseError` for what the server says against it."""
        try:
            return command(*args, **options)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise StateUnavailable(
                f"{masked(self._url)} does not answer: {error}; whether a change was made is unknown"
            ) from error
        except redis.OutOfMemoryError as error:
            raise StateFull(f"{masked(self._url)} is full: {error}") from error

    def _plainly(self, command: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The same; whatever the server says against it is a `StateError`."""
        try:
            return self._ask(command, *args, **options)
        except redis.RedisError as error:
            raise StateError(f"{masked(self._url)}: {error}") from error

    @contextmanager
    def brief(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        self._redis.close()

    # reading

    def get(self, key: bytes) -> Any:
        return decoded(self._plainly(self._redis.get, PREFIX + key))

    def get_many(self, keys: list[bytes]) -> list[Any]:
        if not keys:
            return []
        return [decoded(data) for data in self._plainly(self._redis.mget, [PREFIX + key for key in keys])]

    def keys(self, prefix: bytes) -> list[bytes]:
        return sorted(key.removeprefix(PREFIX) for key in self._scan(prefix))

    def _scan(self, prefix: bytes) -> set[bytes]:
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", PREFIX + prefix) + b"*"
        found: set[bytes] = set()
        cursor = 0
        while True:
            cursor, some = self._plainly(self._redis.scan, cursor, match=pattern, count=COUNT)
            found.update(some)  # SCAN may say one twice
            if not cursor:
                return found

    # writing

    def set(self, key: bytes, value: Any, ttl: float | None) -> None:
        self._plainly(self._redis.set, PREFIX + key, encoded(value), px=milliseconds(ttl))

    def set_many(self, items: Iterable[tuple[bytes, Any]], ttl: float | None) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        for key, value in items:
            pipeline.set(PREFIX + key, encoded(value), px=milliseconds(ttl))
        self._plainly(pipeline.execute)

    def delete(self, key: bytes) -> bool:
        return bool(self._plainly(self._redis.delete, PREFIX + key))

    def incr(self, key: bytes, delta: int) -> int:
        try:
            return cast(int, self._ask(self._redis.incrby, PREFIX + key, delta))
        except redis.ResponseError as error:
            if "overflow" in str(error):
                raise OverflowError(f"with {delta} it is more than 64 bit hold") from None
            if "not an integer" not in str(error):
                raise StateError(f"{masked(self._url)}: {error}") from error
        value = self.get(key)
        if type(value) is int:
            raise OverflowError(f"{value} and {delta} are more than 64 bit hold")
        raise TypeError(f"it is {type(value).__name__}, and only an int can be counted with")

    def swap(self, key: bytes, expected: Any, value: Any, ttl: float | None) -> bool:
        how = "missing" if expected is MISSING else "none" if expected is None else "value"
        old = b"" if expected is MISSING else encoded(expected)
        life = "" if ttl is None else str(milliseconds(ttl))
        return bool(self._plainly(self._swap, keys=[PREFIX + key], args=[how, old, encoded(value), life]))

    def drop(self, key: bytes, expected: Any) -> bool:
        return bool(self._plainly(self._drop, keys=[PREFIX + key], args=[encoded(expected)]))

    def clear(self, prefix: bytes) -> int:
        keys = list(self._scan(prefix))
        return sum(self._plainly(self._redis.unlink, *keys[at : at + COUNT]) for at in range(0, len(keys), COUNT))


def milliseconds(ttl: float | None) -> int | None:
    return None if ttl is None else max(1, round(ttl * 1000))


def encoded(value: Any) -> bytes:
    """`value` as Redis holds it."""
    plain = values.check(value)
    if type(value) is int:
        return b"%d" % value
    return b"=" + values.pack(value, values.LARGEST + 16 if plain else values.LARGEST)  # a scalar with its header


def decoded(data: bytes | None) -> Any:
    """The value of an entry, or MISSING."""
    if data is None:
        return MISSING
    if data[:1] == b"=":
        return values.unpack(data[1:])
    try:
        return int(data)
    except ValueError:
        raise StateError(f"an entry holds {data[:40]!r}, which subpool has not written") from None
