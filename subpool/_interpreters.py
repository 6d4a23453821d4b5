"""The one place that knows which Python this is.

Interpreters and their queues are `concurrent.interpreters` from 3.14 on and the backport `interpreters-pep-734`
on 3.13. Both stand on `_interpreters` and `_interpqueues`, whose calls differ a little between versions. The queue
calls are used directly: the public `Queue.get()` polls every 10 ms (gh-143017) and `put()` resolves its options anew
for each item.
"""

from __future__ import annotations

import sys
from typing import Any, Final

UNBOUND: Final = 3  # what is left of an item whose interpreter ended; never UNBOUND_REMOVE (1): gh-146427


def gil_enabled() -> bool:
    """Whether a GIL serialises threads of this process now. An extension's import may turn it on."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def free_threaded() -> bool:
    """Whether this is a free-threaded build whose GIL is off (PEP 703)."""
    return not gil_enabled()


def load() -> Any:
    """The interpreters module: `create()`, `Interpreter`, `list_all()`.

    Imports `datetime` first: on 3.13 two interpreters that imported it crash the process when they end unless the
    main interpreter had it before (gh-136421).
    """
    import datetime  # noqa: F401

    if sys.version_info >= (3, 14):
        from concurrent import interpreters
    else:
        from interpreters_backport import interpreters
    return interpreters


def create_queue() -> int:
    """A new unbounded interpreter queue; its id. The maker destroys it."""
    load_queue_module()
    import _interpqueues

    if sys.version_info >= (3, 14):
        return int(_interpqueues.create(0, UNBOUND, -1))
    return int(_interpqueues.create(0, 0, UNBOUND))


def destroy_queue(queue: int) -> None:
    """End the queue; what waits in it is released. A queue that has gone is no error."""
    import _interpqueues

    try:
        _interpqueues.destroy(queue)
    except _interpqueues.QueueNotFoundError:
        pass


def queue_calls() -> tuple[Any, Any, type[Exception]]:
    """`put(queue, item)`, `get(queue) -> (item, unbound)` and the error of an empty queue, for this interpreter."""
    import _interpqueues

    load_queue_module()
    raw_put, get = _interpqueues.put, _interpqueues.get
    if sys.version_info >= (3, 14):

        def put(queue: int, item: object) -> None:
            raw_put(queue, item, UNBOUND)
    else:

        def put(queue: int, item: object) -> None:
            raw_put(queue, item, 0, UNBOUND)

    return put, get, _empty()


def load_queue_module() -> Any:
    """Import the module of queue types: it registers the exceptions that the C module raises here."""
    if sys.version_info >= (3, 14):
        from concurrent.interpreters import _queues
    else:
        from interpreters_backport.interpreters import queues as _queues
    return _queues


def _empty() -> type[Exception]:
    return load_queue_module().QueueEmpty  # type: ignore[no-any-return]
