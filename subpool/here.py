"""Which worker the code that asks runs in.

An interpreter that is a worker's own has one answer. Workers that are threads share one: there each task, callback and
WSGI thread knows its worker by its context, and a thread that an app started by itself, whose context is empty before
Python 3.14, is taken to belong to the worker that came last.
"""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import Any

_worker: ContextVar[Any] = ContextVar("subpool_worker")
_namespace: ContextVar[str | None] = ContextVar("subpool_namespace", default=None)
_living: list[Any] = []  # in this interpreter
_pools: dict[int, dict[str, Any]] = {}  # open ones, of which this is the host: their workers' setup


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


def within(namespace: str) -> Context:
    """A copy of this context, in which `namespace` is another than the pool's: a mount's."""
    context = copy_context()
    context.run(_namespace.set, namespace)
    return context


def namespace() -> str | None:
    """The namespace of the mount that the caller serves; None: its pool's own."""
    return _namespace.get()


def opened(setup: dict[str, Any]) -> None:
    """A pool whose host this is was opened. `setup`: what its workers are told."""
    _pools[setup["pool"]] = setup


def closed(pool: int) -> None:
    """It was closed."""
    _pools.pop(pool, None)


def setup() -> dict[str, Any]:
    """The setup of the caller's worker, or, on the host, that of the one open pool. `RuntimeError` if there are none or
    several: then it is to be said which."""
    if _worker.get(None) is None and not _living:
        if len(_pools) == 1:
            return next(iter(_pools.values()))
        if _pools:
            raise RuntimeError(f"{len(_pools)} pools are open here: say which, as in pool.state.get(...)")
        raise RuntimeError("this works in a worker of subpool, or where a pool is open, and neither is the case")
    return worker().setup  # type: ignore[no-any-return]
