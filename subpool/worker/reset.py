"""Starting an app afresh in the interpreter that it is in: its modules are dropped and imported again.

For CPython 3.13, which never gives back the memory of an interpreter that is destroyed. What was there before the app
stays (the standard library as far as it was loaded, subpool); so do extension modules, which cannot be loaded twice.
The new app is started before the old one is shut down. One that does not start leaves the old one in its place.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Final

from ..channels import frames as f
from ..errors import AppLoadError, to_wire
from .apps import Apps

if TYPE_CHECKING:
    from .worker import Worker

_STDLIB: Final = os.path.dirname(os.__file__) + os.sep


async def reset(worker: Worker, seconds: float) -> None:
    """Finish what runs, for at most `seconds`; start the app afresh; say READY, or FAILED and why."""
    await worker.calls.drain(seconds)
    subscribers = worker.services.topics.all() if worker.services is not None else []
    old, worker.apps = worker.apps, Apps(worker)
    dropped = drop(worker.modules)
    try:
        await worker.aside(worker.load_app)
        if worker.setup["app"] and worker.setup["preload_app"]:
            await worker.apps.start(None)
    except AppLoadError as error:
        drop(worker.modules)
        sys.modules.update(dropped)
        worker.apps = old
        worker.post((f.FAILED, to_wire(error)))
        return
    worker.calls.forget_functions()
    await old.shutdown()
    for box in subscribers:
        worker.service().topics.remove(box)
    del old
    dropped.clear()
    gc.collect()
    worker.post((f.READY, {}))


def drop(kept: frozenset[str]) -> dict[str, ModuleType]:
    """Take the app's modules out of `sys.modules`; those that were taken."""
    importlib.invalidate_caches()
    names = [name for name, module in sys.modules.items() if name not in kept and is_apps(name, module)]
    return {name: sys.modules.pop(name) for name in names}


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
