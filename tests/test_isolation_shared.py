"""What interpreters of one process share without a lock: looking at it must neither crash nor mislead."""

from __future__ import annotations

import anyio
import pytest
from conftest import DEADLINE, free_threaded, pool_options

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(free_threaded(), reason="there are no isolated interpreters"),
]


async def test_frames_are_the_threads_own() -> None:
    """CPython's own `sys._current_frames` walks every interpreter of the process, and aborts it."""
    from subpool import Pool

    async with Pool(None, **pool_options("subinterpreter", workers=2)) as pool, anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(pool.call, "functions:measure", 1000)
            seen = await pool.call("functions:look_around", 2000)
            assert seen == ["look_around", None, 0, 0, 0]


async def test_memory_is_an_interpreters_own() -> None:
    from subpool import Pool

    async with Pool(None, **pool_options("subinterpreter", workers=1)) as one:
        async with Pool(None, **pool_options("subinterpreter", workers=1)) as other:
            before = [await pool.call("functions:allocate", 0) for pool in (one, other)]
            count = 200_000
            after = [await pool.call("functions:allocate", number) for pool, number in ((one, count), (other, 0))]
        grown = [new - old for old, new in zip(before, after, strict=True)]
        assert 48 * count < grown[0] < 80 * count
        assert grown[1] < 1 << 20


async def test_memory_is_measured_while_interpreters_end() -> None:
    """Their arenas are unmapped under whoever walks them without their GIL."""
    from subpool import Pool

    async with Pool(None, **pool_options("subinterpreter", workers=1)) as pool, anyio.create_task_group() as group:
        over = anyio.Event()

        async def measure() -> None:
            while not over.is_set():
                assert await pool.call("functions:measure", 100) > 1 << 20

        group.start_soon(measure)
        with anyio.fail_after(2 * DEADLINE):
            for _ in range(6):
                async with Pool(None, **pool_options("subinterpreter", workers=2)) as brief:
                    await brief.call("functions:allocate", 50_000)
        over.set()
