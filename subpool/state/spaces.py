"""The stores and namespaces that this interpreter uses: made at their first use, closed with the worker or the pool."""

from __future__ import annotations

import os
import threading
from typing import Any

from .. import here
from .space import Space
from .store import Store

_spaces: dict[tuple[int, str | None], Space] = {}
_stores: dict[tuple[Any, ...], Store] = {}
_lock = threading.Lock()


def current() -> Space:
    """The caller's. `RuntimeError` where there is none: see `here.setup`."""
    setup = here.setup()
    key = setup["pool"], here.namespace()
    return _spaces.get(key) or _make(key, setup)


def of(setup: dict[str, Any]) -> Space:
    """The own one of the pool whose workers are told `setup`."""
    key = setup["pool"], None
    return _spaces.get(key) or _make(key, setup)


def _make(key: tuple[int, str | None], setup: dict[str, Any]) -> Space:
    told = setup["state"]
    with _lock:
        found = _stores.get(_address(told))
        if found is None:
            found = _stores[_address(told)] = _open(told)
        space = _spaces[key] = Space(found, key[1] or told["namespace"])
    return space


def _address(told: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(told[name] for name in ("url", "place", "max_entries", "max_bytes", "eviction"))


def _open(told: dict[str, Any]) -> Store:
    if told["place"] is None and told["path"] is None:
        try:
            from .redis import RedisStore
        except ImportError as error:
            raise ImportError(f"state in Redis needs the library 'redis' (pip install 'subpool[redis]'): {error}",
                              name=error.name) from error  # fmt: skip
        return RedisStore(told["url"])
    from .sqlite import SQLiteStore

    bounds = {"max_entries": told["max_entries"], "max_bytes": told["max_bytes"], "lru": told["eviction"] == "lru"}
    if told["place"] is not None:
        return SQLiteStore(os.path.join(told["place"], "state.db"), durable=False, **bounds)
    return SQLiteStore(told["path"], durable=True, **bounds)


def close(setup: dict[str, Any] | None = None) -> None:
    """Close what the pool with this setup has here, so far as no other has it too; None: everything."""
    with _lock:
        gone = [key for key in _spaces if setup is None or key[0] == setup["pool"]]
        for key in gone:
            del _spaces[key]
        used = {id(space.store) for space in _spaces.values()}
        for address in [address for address, store in _stores.items() if id(store) not in used]:
            _stores.pop(address).close()
