"""The names of a system that this one's guides come from, so that their examples run with one import changed.

    from subpool.compat import state_get, state_incr, state_set

New code uses `subpool.state`, `subpool.call` and `subpool.pubsub`. What the latter two need loads on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import state
from .state import (
    clear as state_clear,
)
from .state import (
    compare_and_set as state_compare_and_set,
)
from .state import (
    decr as state_decr,
)
from .state import (
    delete as state_delete,
)
from .state import (
    get as state_get,
)
from .state import (
    get_multi as state_get_multi,
)
from .state import (
    incr as state_incr,
)
from .state import (
    keys as state_keys,
)
from .state import (
    set as state_set,
)
from .state import (
    set_multi as state_set_multi,
)

if TYPE_CHECKING:
    from .functions import call, cast
    from .pubsub import publish

__all__ = [
    "cache_stats",
    "cached_inference",
    "call",
    "cast",
    "publish",
    "state_clear",
    "state_compare_and_set",
    "state_decr",
    "state_delete",
    "state_get",
    "state_get_multi",
    "state_incr",
    "state_keys",
    "state_set",
    "state_set_multi",
]


def cached_inference(
    function: Callable[..., Any],
    *args: Any,
    cache_key: str | None = None,
    cache_prefix: str = "ml",
    ttl: float | None = None,
) -> Any:
    """`state.cached` under `cache_key`, or under the function's name and its arguments; both behind `cache_prefix`.

    Unlike `state.cached` it takes methods (`model.encode`): of two models of one class, give each its own prefix.
    """
    key: Any = cache_key
    if cache_key is None:
        from .state.cache import key_of

        key = key_of(getattr(function, "__func__", function), args)
    return state.cached(function, *args, key=(cache_prefix, key), ttl=ttl)


def cache_stats() -> dict[str, Any]:
    """`hits` (found, or waited for), `misses` (computed) and `hit_rate`, from 0 to 1."""
    found = state.cache_stats()
    hits, misses = found["hits"] + found["waits"], found["misses"]
    return {"hits": hits, "misses": misses, "hit_rate": hits / (hits + misses) if hits + misses else 0.0}


def __getattr__(name: str) -> object:
    if name in ("call", "cast"):
        from . import functions as home
    elif name == "publish":
        from . import pubsub as home  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(home, name)
    globals()[name] = value
    return value
