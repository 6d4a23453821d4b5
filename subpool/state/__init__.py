"""What the workers of a pool share, whatever their kind, and the host: counters, caches, sessions.

    from subpool import state

    state.incr("visits")

Each pool has a namespace of its own, each mount of a server too. Keys are str, bytes, int or tuples of them; values are
None, bool, int (64 bit), float, str, bytes, lists and dicts of them. What is wrong with either is a `TypeError` or
`ValueError` that names the key; `StateFull` and `StateUnavailable` are the store's. Times are in seconds. On a host
with several open pools use `pool.state`. In async apps `subpool.state.aio` has the same functions as coroutines.

This module loads nothing of the store before its first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import aio as aio
    from .key import Key
    from .space import Space
    from .store import MISSING as MISSING

__all__ = [
    "MISSING",
    "acached",
    "aio",
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


def _first_use() -> Space:
    """Load the stores: from now on `spaces.current` stands here."""
    global _current
    from .spaces import current

    _current = current
    return current()


_current: Callable[[], Space] = _first_use


def get(key: Key, default: Any = None) -> Any:
    """The value, or `default` where there is none."""
    return _current().get(key, default)


def set(key: Key, value: Any, ttl: float | None = None) -> None:  # noqa: A001  the name that users expect
    """Store a value; with `ttl` it is there for so many seconds, counted from now."""
    _current().set(key, value, ttl)


def delete(key: Key) -> bool:
    """Remove the entry; whether there was one."""
    return _current().delete(key)


def incr(key: Key, delta: int = 1) -> int:
    """Add to an int and return the sum, exactly under any number of workers. What is missing counts as 0; a time to
    live stays as it is. `TypeError` for a value that is no int, `OverflowError` beyond 64 bit."""
    return _current().incr(key, delta)


def decr(key: Key, delta: int = 1) -> int:
    """The same, subtracting."""
    return _current().decr(key, delta)


def get_multi(keys: Iterable[Key]) -> dict[Key, Any]:
    """The values of several keys at one moment; None for each that is missing."""
    return _current().get_multi(keys)


def set_multi(items: Mapping[Key, Any], ttl: float | None = None) -> None:
    """Store several values: all or, if one cannot be, none."""
    _current().set_multi(items, ttl)


def keys(prefix: str | bytes | tuple[Key, ...] | None = None) -> list[Key]:
    """The keys; with `prefix` those of its type that begin so: str, bytes, or tuples whose first items are these."""
    return _current().keys(prefix)


def clear(prefix: str | bytes | tuple[Key, ...] | None = None) -> int:
    """Remove the entries that `keys` names; how many. Not all at one moment: others may set some meanwhile."""
    return _current().clear(prefix)


def compare_and_set(key: Key, expected: Any, value: Any, ttl: float | None = None) -> bool:
    """Store `value` if the present one is `expected`, of the same type; whether it was. None is also what is missing,
    as `get` says it; `MISSING` is that alone."""
    return _current().compare_and_set(key, expected, value, ttl)


def cached(function: Callable[..., Any], *args: Any, key: Key | None = None, ttl: float | None = None) -> Any:
    """The result of `function(*args)`, computed once for all workers, however many ask at the same time.

    It is an entry under `key`, by default `("cached", name of the function, packed arguments)`, and there for `ttl`
    seconds: `delete` forgets it. What the function raises is raised, and not kept. A worker that dies while it computes
    holds the others up for 3 s at most.
    """
    return _current().cached(function, *args, key=key, ttl=ttl)


async def acached(function: Callable[..., Any], *args: Any, key: Key | None = None, ttl: float | None = None) -> Any:
    """The same for async apps. A coroutine function is awaited, another one runs on a thread."""
    return await _current().acached(function, *args, key=key, ttl=ttl)


def cache_stats() -> dict[str, int]:
    """How often `cached` and `acached` found a result in this namespace ("hits"), computed one ("misses"), or waited
    for another's ("waits"), in all workers together."""
    return _current().cache_stats()


def __getattr__(name: str) -> Any:
    if name == "MISSING":
        from .store import MISSING

        globals()[name] = MISSING
        return MISSING
    if name == "aio":
        from importlib import import_module

        return import_module(".aio", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def closed() -> None:
    """The worker that has this interpreter to itself has ended: close what it has open."""
    if _current is not _first_use:
        from .spaces import close

        close()

