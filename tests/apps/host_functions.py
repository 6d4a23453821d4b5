"""Functions that tests register on the host."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from gates import block, signal, wait

MADE = 0


def add(a: Any, b: Any = 0) -> Any:
    return a + b


async def aadd(a: int, b: int = 0) -> int:
    await asyncio.sleep(0)
    return a + b


def size(value: Any) -> int:
    return len(value)


def where() -> int:
    return os.getpid()


async def awhere() -> int:
    return os.getpid()


def fails(text: str = "why") -> None:
    raise KeyError(text)


async def afails(text: str = "why") -> None:
    raise KeyError(text)


def leaves() -> None:
    sys.exit(3)


def dies(path: str = "") -> None:
    signal(path)
    os._exit(7)


def no_data() -> Any:
    return object()


def blocks(started: str, go: str) -> str:
    signal(started)
    block(go)
    return "went"


def hurries(seconds: float) -> None:
    """The helper that this runs in loses patience after so long, when calls that were given up hold its threads."""
    from subpool.worker import helping

    helping.PATIENCE = seconds  # type: ignore[misc]


def spins(started: str, ended: str) -> None:
    """Compute until it is interrupted."""
    signal(started)
    try:
        while True:
            pass
    finally:
        signal(ended)


async def waits(started: str, ended: str) -> None:
    signal(started)
    try:
        await asyncio.Event().wait()
    finally:
        signal(ended)


async def awaits(started: str, go: str) -> str:
    signal(started)
    await wait(go)
    return "went"


def holds(seconds: float) -> None:
    time.sleep(seconds)


async def aholds(seconds: float) -> None:
    await asyncio.sleep(0)
    holds(seconds)


def count(stop: int) -> Any:
    yield from range(stop)


async def acount(stop: int) -> Any:
    for number in range(stop):
        yield number


def breaks(at: int) -> Any:
    yield from range(at)
    raise KeyError("broken")


def endless(taken: str, ended: str) -> Any:
    """Write how many items were asked for into a file."""
    number = 0
    try:
        while True:
            Path(taken).write_text(str(number + 1))
            yield number
            number += 1
    finally:
        signal(ended)


def held(taken: str, go: str) -> Any:
    """One item, and then none for a long time."""
    yield 1
    Path(taken).touch()
    block(go)


async def aendless(taken: str, ended: str) -> Any:
    number = 0
    try:
        while True:
            Path(taken).write_text(str(number + 1))
            yield number
            number += 1
    finally:
        signal(ended)


class Model:
    """Made once; it counts its calls."""

    def __init__(self) -> None:
        global MADE
        MADE += 1
        self.calls = 0

    def predict(self, text: str) -> tuple[str, int, int]:
        self.calls += 1
        return text.upper(), MADE, self.calls

    async def apredict(self, text: str) -> str:
        await asyncio.sleep(0)
        return text.lower()

    def words(self, text: str) -> Any:
        yield from text.split()

    def _secret(self) -> str:
        return "secret"


def calls_back(value: int) -> Any:
    """A function of the host that asks the host."""
    import subpool

    return subpool.call("iadd", value, 1)


def tells(topic: str, message: Any) -> int:
    from subpool import pubsub

    return pubsub.publish(topic, message)


def burns(seconds: float = 2.0) -> int:
    """Compute in pure Python for so long."""
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        rounds += 1
    return rounds
