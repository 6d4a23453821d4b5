"""What is left of an app in the interpreter of its worker, which has ended: dropped, so that another can live there.

For CPython 3.13: see `isolation.stock`. Modules of the standard library and of subpool stay, and extension modules.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
import threading
from types import ModuleType
from typing import Final

_STDLIB: Final = os.path.dirname(os.__file__) + os.sep


def rest(kept: frozenset[str]) -> None:
    """Drop the modules of the app, and free what they held. `kept`: modules that were there before it."""
    for thread in threading.enumerate():
        if getattr(thread, "_subpool", False):
            thread.join()
    importlib.invalidate_caches()
    for name in [name for name, module in sys.modules.items() if name not in kept and is_apps(name, module)]:
        del sys.modules[name]
    for cache in [one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper)]:
        cache.cache_clear()  # those of `typing` have held every generic class of every app
    gc.collect()


def is_apps(name: str, module: ModuleType) -> bool:
    """Whether a module came with the app, and can be imported again."""
    if name.partition(".")[0] == "subpool":
        return False
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if origin is None:  # a namespace package, or something made by hand
        return hasattr(module, "__path__")
    if not origin.endswith((".py", ".pyc")):
        return False
    return "site-packages" in origin or not origin.startswith(_STDLIB)
