"""One namespace of one store: what `subpool.state` does with keys and values as their users give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ..errors import StateFull
from .key import Key, decode, encode, encode_prefix, named
from .store import MISSING, Store

_Prefix = str | bytes | tuple[Key, ...] | None
LONGEST_TTL: Final = 100 * 365 * 86400.0


class Space:
    """See the functions of `subpool.state`, which are this one's methods."""

    __slots__ = ("_inner", "_outer", "name", "store")

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self._outer = name.encode() + b"\0"  # a namespace has neither of the two
        self._inner = name.encode() + b"\1"

    def __repr__(self) -> str:
        return f"<Space {self.name!r} of {self.store!r}>"

    def inner(self, kind: bytes, key: Key) -> bytes:
        """A key of the store that no user can name, for what belongs to one."""
        return self._inner + kind + encode(key)

    def get(self, key: Key, default: Any = None) -> Any:
        value = self.store.get(self._outer + encode(key))
        return default if value is MISSING else value

    def set(self, key: Key, value: Any, ttl: float | None = None) -> None:
        if ttl is not None:
            check_ttl(ttl)
        try:
            self.store.set(self._outer + encode(key), value, ttl)
        except (TypeError, ValueError, StateFull) as error:
            raise _about(key, error) from None

    def delete(self, key: Key) -> bool:
        return self.store.delete(self._outer + encode(key))

    def incr(self, key: Key, delta: int = 1) -> int:
        if type(delta) is not int:
            raise TypeError(f"delta is {delta!r}; it must be an int")
        if not -(2**63) <= delta < 2**63:
            raise OverflowError(f"delta is {named(delta)}; it must be an int of 64 bit")
        try:
            return self.store.incr(self._outer + encode(key), delta)
        except (TypeError, OverflowError, StateFull) as error:
            raise _about(key, error) from None

    def decr(self, key: Key, delta: int = 1) -> int:
        if type(delta) is not int:
            raise TypeError(f"delta is {delta!r}; it must be an int")
        return self.incr(key, -delta)

    def get_multi(self, keys: Iterable[Key]) -> dict[Key, Any]:
        wanted = list(keys)
        found = self.store.get_many([self._outer + encode(key) for key in wanted])
        return {key: None if value is MISSING else value for key, value in zip(wanted, found, strict=True)}

    def set_multi(self, items: Mapping[Key, Any], ttl: float | None = None) -> None:
        if ttl is not None:
            check_ttl(ttl)
        given = {self._outer + encode(key): (key, value) for key, value in items.items()}
        try:
            self.store.set_many([(key, value) for key, (_, value) in given.items()], ttl)
        except (TypeError, ValueError) as error:
            raise self._which(given.values(), error) from None

    def _which(self, items: Iterable[tuple[Key, Any]], error: Exception) -> Exception:
        """`error` with the key whose value it is about."""
        from . import values

        for key, value in items:
            try:
                if not values.check(value):
                    values.pack(value)
            except (TypeError, ValueError) as found:
                return _about(key, found)
        return error

    def keys(self, prefix: _Prefix = None) -> list[Key]:
        skip = len(self._outer)
        return [decode(key[skip:]) for key in self.store.keys(self._outer + encode_prefix(prefix))]

    def clear(self, prefix: _Prefix = None) -> int:
        return self.store.clear(self._outer + encode_prefix(prefix))

    def compare_and_set(self, key: Key, expected: Any, value: Any, ttl: float | None = None) -> bool:
        if ttl is not None:
            check_ttl(ttl)
        try:
            return self.store.swap(self._outer + encode(key), expected, value, ttl)
        except (TypeError, ValueError, StateFull) as error:
            raise _about(key, error) from None

    def cached(self, function: Callable[..., Any], *args: Any, key: Key | None = None, ttl: float | None = None) -> Any:
        from .cache import cached

        return cached(self, function, args, key, ttl)

    async def acached(
        self, function: Callable[..., Any], *args: Any, key: Key | None = None, ttl: float | None = None
    ) -> Any:
        from . import aio
        from .cache import acached

        return await acached(self, aio.call, function, args, key, ttl)

    def cache_stats(self) -> dict[str, int]:
        from .cache import stats

        return stats(self)


def check_ttl(ttl: Any) -> None:
    """`TypeError`/`ValueError` unless `ttl` is a number of seconds above 0."""
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool):
        raise TypeError(f"ttl is {ttl!r}; it must be a number of seconds, or None for ever")
    if not 0 < ttl <= LONGEST_TTL:
        raise ValueError(f"ttl is {ttl!r}; it must be more than 0 seconds (and less than 100 years), or None for ever")


def _about(key: Key, error: Exception) -> Exception:
    """`error`, with the key."""
    return type(error)(f"state {named(key)}: {error}")
