"""The functions of `subpool.state` as coroutines, for async apps.

Memory and SQLite answer in microseconds, so they are asked on the loop's thread; only a write that would wait for more
than 1 ms for its turn leaves it, for a thread. Redis is asked on threads always.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import acached, spaces
from .turn import Waited

if TYPE_CHECKING:
    from .key import Key
    from .space import Space
    from .store import Store

__all__ = [
    "acached",
    "cache_stats",
    "cached",
    "clear",
    "compare_and_set",
    "decr",
    "delete",
    "get",
    "get_multi",
    "incr",
    "keys",
    "set",
    "set_multi",
]

cached = acached


async def call[**P, T](store: Store, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what uses `store`, here or on a thread."""
    if not store.remote:
        try:
            with store.brief():
                return function(*args, **kwargs)
        except Waited:
            pass
    return await asyncio.to_thread(function, *args, **kwargs)


def _space() -> Space:
    return spaces.current()


async def get(key: Key, default: Any = None) -> Any:
    """See `subpool.state.get`."""
    space = _space()
    if not space.store.remote:
        return space.get(key, default)
    return await asyncio.to_thread(space.get, key, default)


async def set(key: Key, value: Any, ttl: float | None = None) -> None:  # noqa: A001
    """See `subpool.state.set`."""
    space = _space()
    await call(space.store, space.set, key, value, ttl)


async def delete(key: Key) -> bool:
    """See `subpool.state.delete`."""
    space = _space()
    return await call(space.store, space.delete, key)


async def incr(key: Key, delta: int = 1) -> int:
    """See `subpool.state.incr`."""
    space = _space()
    return await call(space.store, space.incr, key, delta)


async def decr(key: Key, delta: int = 1) -> int:
    """See `subpool.state.decr`."""
    space = _space()
    return await call(space.store, space.decr, key, delta)


async def get_multi(keys: Iterable[Key]) -> dict[Key, Any]:
    """See `subpool.state.get_multi`."""
    space = _space()
    return await call(space.store, space.get_multi, list(keys))


async def set_multi(items: Mapping[Key, Any], ttl: float | None = None) -> None:
    """See `subpool.state.set_multi`."""
    space = _space()
    await call(space.store, space.set_multi, items, ttl)


async def keys(prefix: str | bytes | tuple[Key, ...] | None = None) -> list[Key]:
    """See `subpool.state.keys`."""
    space = _space()
    return await call(space.store, space.keys, prefix)


async def clear(prefix: str | bytes | tuple[Key, ...] | None = None) -> int:
    """See `subpool.state.clear`. On a thread always: it may take long."""
    return await asyncio.to_thread(_space().clear, prefix)


async def compare_and_set(key: Key, expected: Any, value: Any, ttl: float | None = None) -> bool:
    """See `subpool.state.compare_and_set`."""
    space = _space()
    return await call(space.store, space.compare_and_set, key, expected, value, ttl)


async def cache_stats() -> dict[str, int]:
    """See `subpool.state.cache_stats`."""
    from .cache import stats

    space = _space()
    return await call(space.store, stats, space)
