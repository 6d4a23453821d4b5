"""What an app awaits on the event loop of its worker. It works elsewhere too, with the means of the loop that runs."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, overload


@overload
async def sleep(delay: float) -> None: ...


@overload
async def sleep[T](delay: float, result: T) -> T: ...


async def sleep[T](delay: float, result: T | None = None) -> T | None:
    """Wait for `delay` seconds, return `result`. As `asyncio.sleep`, at less cost while `delay` is short.

    In a worker on Linux a sleep of less than 0.1 s is precise to some 50 us, never too short, and its task goes on in
    the turn of the loop in which its time has come. Anything else is `asyncio.sleep`, or `trio.sleep` under trio.

    `delay` of 0 or less lets others run once. NaN is a `ValueError`. Cancelling ends the sleep at once.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        await trio.sleep(max(delay, 0))
        return result
    loop: Any = asyncio._get_running_loop()
    if 0 < delay < getattr(loop, "short", 0):  # a worker's loop: `timed_loop.Loop`
        await loop.sleeper(delay)
        return result
    return await asyncio.sleep(delay, result)


__all__ = ["sleep"]
