"""Results that are computed once for all workers.

A result is an entry like any other, under the key that was given or one made of the function and its arguments: so
`delete` and `clear` forget it. Who finds none takes the lease of the key, an entry that lives for `LEASE` seconds and
is made longer while the computation lasts; the others look from time to time. When a worker dies with a lease, that
runs out and another computes; one that raises gives it back at once. Two computations at a time are possible only if
a worker stood still for longer than a lease.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from . import values
from .key import Key
from .space import Space, check_ttl
from .store import MISSING

LEASE: Final = 3.0  # seconds
RENEW: Final = 0.8  # seconds between two renewals
LONGEST: Final = 3600.0  # seconds; then a lease is renewed no more
NAP: Final = 0.001  # seconds until who waits looks again; it grows up to
LONG_NAP: Final = 0.02


class Lookup:
    """One look for a result: a state machine that `cached` and `acached` drive, each with its own way to wait."""

    def __init__(self, space: Space, function: Callable[..., Any], args: tuple[Any, ...], key: Key | None,
                 ttl: float | None) -> None:  # fmt: skip
        if not callable(function):
            raise TypeError(f"{function!r} is no function; it is called to compute the result")
        if ttl is not None:
            check_ttl(ttl)
        self._space = space
        self.key = key_of(function, args) if key is None else key
        self._lease = space.inner(b"lease", self.key)
        self._token = os.urandom(16)
        self._ttl = ttl
        self.nap = NAP

    def __repr__(self) -> str:
        return f"<Lookup {self.key!r}>"

    def find(self) -> Any:
        """The result, or MISSING."""
        return self._space.get(self.key, MISSING)

    def claim(self) -> bool:
        """Whether the caller is to compute it. If so it must call `over`."""
        store = self._space.store
        if store.get(self._lease) is not MISSING:
            self.nap = min(self.nap * 2, LONG_NAP)
            return False
        return store.swap(self._lease, MISSING, self._token, LEASE)

    def renew(self) -> bool:
        """Make the lease longer. False if it was lost."""
        return self._space.store.swap(self._lease, self._token, self._token, LEASE)

    def keep(self, value: Any) -> None:
        """Store the result."""
        self._space.set(self.key, value, self._ttl)

    def over(self) -> None:
        """Give the lease back."""
        self._space.store.drop(self._lease, self._token)

    def count(self, what: str) -> None:
        self._space.store.incr(self._space.inner(b"count", what), 1)


def key_of(function: Callable[..., Any], args: tuple[Any, ...]) -> Key:
    """The key of a result without one of its own: the function's name and its arguments."""
    name = getattr(function, "__qualname__", None)
    if name is None or "<" in name or inspect.ismethod(function):
        raise ValueError(f"{function!r} has no name of its own: it is a method, a lambda or the like; give key=")
    try:
        packed = values.pack(args)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the arguments of {name} make no key: {error}; give key=") from None
    return ("cached", f"{function.__module__}.{name}", packed)


def cached(
    space: Space, function: Callable[..., Any], args: tuple[Any, ...], key: Key | None, ttl: float | None
) -> Any:
    """See `subpool.state.cached`."""
    look = Lookup(space, function, args, key, ttl)
    waited = False
    while True:
        value = look.find()
        if value is not MISSING:
            look.count("waits" if waited else "hits")
            return value
        if look.claim():
            break
        waited = True
        time.sleep(look.nap)
    keeper = _Keeper(look)
    try:
        value = look.find()  # somebody may have stored it between the look and the claim
        if value is not MISSING:
            look.count("waits")
            return value
        look.count("misses")
        keeper.start()
        value = function(*args)
        look.keep(value)
        return value
    finally:
        keeper.end()
        look.over()


async def acached(
    space: Space,
    aside: Callable[..., Any],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    key: Key | None,
    ttl: float | None,
) -> Any:
    """See `subpool.state.acached`. `aside`: `aio.call`, which does not hold up the loop."""
    call = partial(aside, space.store)
    look = Lookup(space, function, args, key, ttl)
    waited = False
    while True:
        value = await call(look.find)
        if value is not MISSING:
            await call(look.count, "waits" if waited else "hits")
            return value
        if await call(look.claim):
            break
        waited = True
        await asyncio.sleep(look.nap)

    async def renew() -> None:
        for _ in range(int(LONGEST / RENEW)):
            await asyncio.sleep(RENEW)
            if not await call(look.renew):
                return

    renewing = asyncio.ensure_future(renew())
    try:
        value = await call(look.find)
        if value is not MISSING:
            await call(look.count, "waits")
            return value
        await call(look.count, "misses")
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            value = await function(*args)
        else:
            value = await asyncio.to_thread(function, *args)
        await call(look.keep, value)
        return value
    finally:
        renewing.cancel()
        await call(look.over)


def stats(space: Space) -> dict[str, int]:
    """See `subpool.state.cache_stats`."""
    names = ("hits", "misses", "waits")
    found = space.store.get_many([space.inner(b"count", name) for name in names])
    return {name: value or 0 for name, value in zip(names, found, strict=True)}


class _Keeper:
    """Renews a lease while a computation holds the thread: on a thread of its own, started with the computation."""

    def __init__(self, look: Lookup) -> None:
        self._look = look
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="subpool-lease")
        self._thread._subpool = True  # type: ignore[attr-defined]
        self._thread.start()

    def _run(self) -> None:
        for _ in range(int(LONGEST / RENEW)):
            if self._over.wait(RENEW):
                return
            try:
                if not self._look.renew():
                    return
            except Exception:
                return  # the store is away; the lease runs out

    def end(self) -> None:
        self._over.set()
