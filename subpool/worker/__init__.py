"""What runs inside a worker: the standard library, pure Python, and floors 0 and 1 alone.

`main` is the whole life of a worker, whichever isolation kind started it:

    import the app -> lifespan start-up -> READY -> take items from the work lane until STOP -> lifespan shutdown -> BYE

The main thread runs an asyncio loop that watches two lanes: `work` (new calls) and `flow` (what belongs to calls under
way). A second thread, the steward, waits on the `control` lane and answers it while a handler holds the main thread.
Answers are collected and leave once per item of work or turn of the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .life import main
    from .worker import Lanes

__all__ = ["Lanes", "main"]


def __getattr__(name: str) -> Any:
    """The host needs none of it (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import life

    return getattr(life, name)
