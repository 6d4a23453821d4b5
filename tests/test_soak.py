"""What a pool leaves behind after bursts, cancellations and recycles: nothing. Short here, at length with `make soak`.

What is run is `perf.loans`, which also prints its figures: `python -m perf loans`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import DEADLINE, KINDS, eventually, whole

ROOT = str(Path(__file__).parent.parent)
if ROOT not in sys.path:
    sys.path.append(ROOT)

from perf import fds, rss, scope  # noqa: E402
from perf.loans import burst, cancels, held, recycles, settled, slow_readers  # noqa: E402

pytestmark = pytest.mark.anyio
MB = 1_000_000


def perf_pool(isolation: str, **options: Any) -> Any:
    """A pool of the measurements' own app."""
    from subpool import Pool

    options = {"workers": 2, "max_pending": 10_000, "lifespan": "off", "close_timeout": 5.0, **options}
    return Pool("perf:app", isolation=isolation, pythonpath=[ROOT], **options)


async def every_worker_sleeps(pool: Any) -> None:
    before = [worker.served for worker in pool.stats().workers]
    with anyio.fail_after(DEADLINE):
        while any(now.served == then for now, then in zip(pool.stats().workers, before, strict=True)):
            async with anyio.create_task_group() as group:
                for _ in range(16):
                    group.start_soon(pool.run_asgi, scope("/sleep", b"0.05"))


async def no_cancel_leaves_anything(isolation: str, number: int, seed: int) -> None:
    async with perf_pool(isolation) as pool:
        await cancels(pool, 20, seed)  # what is made at first use is there from now on
        assert await settled(pool, DEADLINE) == {}
        await every_worker_sleeps(pool)  # and so is each worker's timer
        before = fds()
        await cancels(pool, number, seed)
        assert await settled(pool, DEADLINE) == {}
        assert fds() == before
        stats = pool.stats()
        assert (stats.pending, stats.in_flight, stats.abandoned) == (0, 0, 0)
        await eventually(lambda: whole(pool))  # none stays "stalled" with nothing to do
        assert [worker.restarts for worker in stats.workers] == [0, 0]
        assert (await pool.run_asgi(scope())).body == b"Hello, World!"


async def no_loan_is_lost(isolation: str, number: int, bursts: int) -> None:
    async with perf_pool(isolation) as pool:
        await burst(pool, number)
        assert await settled(pool, DEADLINE) == {}
        before, open_fds = rss(), fds()
        for _ in range(bursts):
            await burst(pool, number)
        assert await settled(pool, DEADLINE) == {}
        assert fds() == open_fds
        # One lost loan in ten would hold more.
        assert rss() - before < max(bursts * number * 0.1 * 204_800, 30 * MB)


async def no_recycle_leaves_anything(isolation: str, number: int) -> None:
    async with perf_pool(isolation, workers=1) as pool:
        await recycles(pool, 3)
        before, open_fds = rss(), fds()
        await recycles(pool, number)
        await eventually(lambda: whole(pool, 1))
        assert held(pool) == dict.fromkeys(held(pool), 0)
        assert fds() == open_fds
        assert pool.stats().abandoned == 0
        assert pool.stats().workers[0].restarts == number + 3
        if isolation != "subinterpreter" or sys.version_info >= (3, 14):  # 3.13 keeps an interpreter's memory
            assert rss() - before < 20 * MB


async def test_cancelled_calls_leave_nothing(isolation: str) -> None:
    await no_cancel_leaves_anything(isolation, 500, 7)


async def test_lent_buffers_come_back(isolation: str) -> None:
    await no_loan_is_lost(isolation, 100, 2)


async def test_a_pool_closes_under_slow_readers(isolation: str) -> None:
    for _ in range(2):
        async with perf_pool(isolation) as pool:
            await slow_readers(pool, 10)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="3.13 never gives an interpreter's memory back")
async def test_recycles_leave_nothing(isolation: str) -> None:
    await no_recycle_leaves_anything(isolation, 10 if isolation == "process" else 20)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_10_000_cancelled_calls_leave_nothing(isolation: str, seed: int) -> None:
    await no_cancel_leaves_anything(isolation, 10_000, seed)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_bursts_of_2000_lent_buffers_come_back(isolation: str) -> None:
    await no_loan_is_lost(isolation, 2000, 5)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("round_", range(5))
async def test_a_pool_closes_under_100_slow_readers(isolation: str, round_: int) -> None:
    async with perf_pool(isolation) as pool:
        await slow_readers(pool, 100)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.version_info < (3, 14), reason="3.13 never gives an interpreter's memory back")
async def test_1000_recycles_grow_by_less_than_20_mb() -> None:
    await no_recycle_leaves_anything(KINDS[0], 1000)
