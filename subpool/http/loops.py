"""Which event loop a server runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop that is called `name`; "auto" is uvloop where it can be imported.

    `OSError` if uvloop is asked for by its name and cannot be imported.
    """
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as error:
        if name == "auto":
            return None
        raise OSError(f"the event loop uvloop cannot be had: {error}") from error
    return uvloop.new_event_loop
