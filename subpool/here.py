"""Which worker the code that asks runs in.

An interpreter that is a worker's own has one answer. Workers that are threads share one: there each task, callback and
WSGI thread knows its worker by its context, and a thread that an app started by itself, whose context is empty before
Python 3.14, is taken to belong to the worker that came last.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

_worker: ContextVar[Any] = ContextVar("subpool_worker")
_living: list[Any] = []  # in this interpreter


def enter(worker: Any) -> None:
    """This thread, and what starts from its context, is that worker's, until it has left."""
    _worker.set(worker)
    _living.append(worker)


def leave(worker: Any) -> None:
    """It has ended."""
    _living.remove(worker)


def adopt(worker: Any) -> None:
    """This further thread is that worker's too."""
    _worker.set(worker)


def worker() -> Any:
    """The `subpool.worker.Worker` that runs the caller. `RuntimeError` outside of workers."""
    found = _worker.get(None)
    if found is not None:
        return found
    if not _living:
        raise RuntimeError("this works in a worker of subpool only, and no worker runs in this interpreter")
    return _living[-1]
