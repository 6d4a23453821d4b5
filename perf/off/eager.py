"""Tasks begin in the next turn of the worker's loop, as asyncio's do by default."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from perf.off import replace
from subpool.worker.calls import Calls


def spawn(
    self: Calls, call: int, coro: Coroutine[Any, Any, None], tasks: dict[int, asyncio.Task[None]] | None = None
) -> None:
    worker = self._worker
    task = asyncio.Task(coro, loop=worker.loop)
    (self._tasks if tasks is None else tasks)[call] = task


replace(Calls, "_spawn", spawn)
