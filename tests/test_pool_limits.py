"""Bounds and routing: a full pool refuses, a closed one says so, a stalled worker's work goes to another."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from conftest import BOTH, DEADLINE, environ, eventually, http_scope, in_flight, websocket_scope, whole

pytestmark = pytest.mark.anyio


@BOTH
async def test_a_full_pool_refuses(make_pool: Any, fifo: Any) -> None:
    from subpool import PoolOverloaded

    started, gate = fifo("started"), fifo("gate")
    async with make_pool(workers=1, window=2, max_pending=5) as pool:
        scope = http_scope("/block", query_string=f"started={started}&gate={gate}".encode())
        answered: list[int] = []
        refused: list[int] = []

        async def one(number: int) -> None:
            try:
                assert (await pool.run_asgi(http_scope("/hello"))).status == 200
                answered.append(number)
            except PoolOverloaded:
                refused.append(number)

        async with anyio.create_task_group() as group:
            group.start_soon(pool.run_asgi, scope)
            await started.wait()
            for number in range(60):
                group.start_soon(one, number)
            await eventually(lambda: pool.stats().refused > 0)
            assert pool.stats().pending <= 5
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            gate.release()
        assert refused
        assert len(answered) + len(refused) == 60
        assert 5 <= len(answered) <= 5 + 2 * 4
        assert pool.stats().refused == len(refused)
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200


@BOTH
async def test_websockets_have_a_bound_of_their_own(make_pool: Any) -> None:
    from subpool import PoolOverloaded

    async with make_pool(workers=1, max_concurrency=1, max_websockets=2) as pool:
        async with pool.websocket(websocket_scope("/echo")), pool.websocket(websocket_scope("/echo")):
            with pytest.raises(PoolOverloaded, match="max_websockets"):
                async with pool.websocket(websocket_scope("/echo")):
                    pytest.fail("entered")
            assert (await pool.run_asgi(http_scope("/hello"))).status == 200
            stats = pool.stats()
            assert (stats.in_flight, stats.websockets, stats.refused) == (0, 2, 1)
        await eventually(lambda: not pool.stats().websockets)
        async with pool.websocket(websocket_scope("/echo")):
            pass


@BOTH
async def test_a_pool_that_is_not_open(make_pool: Any) -> None:
    from subpool import PoolClosed

    pool = make_pool(workers=1)
    with pytest.raises(PoolClosed):
        await pool.run_asgi(http_scope("/hello"))
    async with pool:
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200
    for call in (
        lambda: pool.run_asgi(http_scope("/hello")),
        lambda: pool.run_wsgi(environ("/hello")),
        lambda: pool.call("functions:add", 1),
        pool.recycle,
    ):
        with pytest.raises(PoolClosed):
            await call()


@BOTH
async def test_closing_with_requests_under_way_is_bounded(make_pool: Any, fifo: Any) -> None:
    from subpool import SubpoolError

    started = fifo("started")
    outcome: list[BaseException] = []

    async def one(pool: Any) -> None:
        try:
            await pool.run_asgi(http_scope("/forever", query_string=f"started={started}".encode()))
        except SubpoolError as error:
            outcome.append(error)

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            async with make_pool(workers=1, close_timeout=1.0) as pool:
                group.start_soon(one, pool)
                await started.wait()
    assert len(outcome) == 1


async def test_an_error_in_the_body_of_the_with_comes_through(make_pool: Any) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with make_pool(workers=1):
            raise LookupError("mine")


async def test_a_pool_is_cancelled_while_it_is_open(make_pool: Any) -> None:
    with anyio.CancelScope() as scope:
        async with make_pool(workers=1) as pool:
            scope.cancel()
            await pool.run_asgi(http_scope("/forever"))
    assert scope.cancelled_caught


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@BOTH
async def test_what_a_stalled_worker_has_not_started_is_taken_back(make_pool: Any, fifo: Any, interface: str) -> None:
    """Two workers, one blocked: all that comes meanwhile is answered before the block ends."""
    started, gate = fifo("started"), fifo("gate")
    async with make_pool(f"{interface}_app:app") as pool:
        held: list[Any] = []
        done: list[int] = []

        async def block() -> None:
            query = f"started={started}&gate={gate}"
            if interface == "asgi":
                held.append(await pool.run_asgi(http_scope("/block", query_string=query.encode())))
            else:
                held.append(await pool.run_wsgi(environ("/block", query=query)))

        async def hello(number: int) -> None:
            if interface == "asgi":
                assert (await pool.run_asgi(http_scope("/hello"))).body == b"Hello, World!"
            else:
                assert (await pool.run_wsgi(environ("/hello"))).body == b"Hello, World!"
            done.append(number)

        async with anyio.create_task_group() as outer:
            # The blocking call lies in the middle, so that some calls are in its worker's queue behind it.
            async with anyio.create_task_group() as group:
                for number in range(25):
                    group.start_soon(hello, number)
                outer.start_soon(block)
                for number in range(25, 50):
                    group.start_soon(hello, number)
                with anyio.fail_after(DEADLINE):
                    await eventually(lambda: len(done) == 50)
            await started.wait()
            assert not held
            gate.release()
        assert len(held) == 1


async def test_work_goes_to_the_worker_that_still_answers(make_pool: Any, fifo: Any) -> None:
    started, gate = fifo("started"), fifo("gate")
    async with make_pool("wsgi_app:app") as pool, anyio.create_task_group() as group:
        group.start_soon(pool.run_wsgi, environ("/block", query=f"started={started}&gate={gate}"))
        await started.wait()
        with anyio.fail_after(DEADLINE):
            workers = {(await pool.run_wsgi(environ("/worker"))).body for _ in range(20)}
        assert len(workers) == 1
        gate.release()


async def test_arrival_order_is_kept_on_one_worker(make_pool: Any, fifo: Any) -> None:
    started, gate = fifo("started"), fifo("gate")
    async with make_pool("wsgi_app:app", workers=1, window=4) as pool:
        order: list[int] = []

        async def one(number: int) -> None:
            await pool.run_wsgi(environ("/hello"))
            order.append(number)

        async with anyio.create_task_group() as group:
            group.start_soon(pool.run_wsgi, environ("/block", query=f"started={started}&gate={gate}"))
            await started.wait()
            for number in range(30):
                group.start_soon(one, number)
                await anyio.lowlevel.checkpoint()
            gate.release()
        assert order == list(range(30))


async def test_max_concurrency_bounds_what_runs_beside_each_other(make_pool: Any, fifo: Any) -> None:
    started, gate = fifo("started"), fifo("gate")
    async with make_pool(workers=1, max_concurrency=3) as pool, anyio.create_task_group() as group:
        scope = http_scope("/gate", query_string=f"started={started}&gate={gate}".encode())
        for _ in range(8):
            group.start_soon(pool.run_asgi, scope)
        arrived = b""
        while len(arrived) < 3:
            arrived += await started.wait()
        with anyio.move_on_after(0.2):
            arrived += await started.wait()
        assert len(arrived) == 3
        gate.release(8)


async def test_statistics(make_pool: Any, isolation: str) -> None:
    from subpool import AppError

    async with make_pool() as pool:
        for _ in range(20):
            await pool.run_asgi(http_scope("/hello"))
        for _ in range(3):
            with pytest.raises(AppError):
                await pool.run_asgi(http_scope("/raise"))
        stats = pool.stats()
        assert pool.isolation == stats.isolation == isolation
        assert (stats.pending, stats.refused, stats.abandoned, stats.not_isolatable) == (0, 0, 0, 0)
        assert isinstance(stats.workers, tuple)
        assert len({worker.id for worker in stats.workers}) == 2
        assert sum(worker.failed for worker in stats.workers) == 3
        assert sum(worker.served for worker in stats.workers) in (20, 23)
        assert in_flight(pool) == 0
        await eventually(lambda: whole(pool))  # on a busy machine one may count as stalled for a moment
        for worker in stats.workers:
            assert worker.kind == isolation
            assert worker.restarts == 0
            assert worker.generation >= 0
            assert (worker.rss is not None and worker.rss > 1_000_000) if isolation == "process" else True
            if worker.served:
                assert 0 < worker.p50 <= worker.p90 <= worker.p99
        with pytest.raises(AttributeError):
            stats.pending = 7
        with pytest.raises(AttributeError):
            stats.workers[0].served = 7
        assert isolation in repr(pool)


async def test_recycling_gives_fresh_workers(make_pool: Any, isolation: str) -> None:
    if isolation == "thread":
        pytest.skip("threads share one import: recycling them means a new process")
    async with make_pool() as pool:
        before = {worker.id: worker.generation for worker in pool.stats().workers}
        for _ in range(10):
            await pool.run_asgi(http_scope("/hello"))
        await pool.recycle()
        await eventually(lambda: whole(pool))
        after = {worker.id: worker.generation for worker in pool.stats().workers}
        assert after.keys() == before.keys()
        assert all(after[worker] > before[worker] for worker in before)
        for _ in range(4):
            assert int((await pool.run_asgi(http_scope("/calls"))).body) <= 4
        one = min(after)
        await pool.recycle(one)
        await eventually(lambda: whole(pool))
        again = {worker.id: worker.generation for worker in pool.stats().workers}
        assert again == {**after, one: again[one]}
        assert again[one] > after[one]
        with pytest.raises((ValueError, LookupError), match="99"):
            await pool.recycle(99)


async def test_recycling_loses_no_request(make_pool: Any, isolation: str) -> None:
    if isolation == "thread":
        pytest.skip("threads share one import: recycling them means a new process")
    async with make_pool() as pool:
        done = anyio.Event()
        answered = 0

        async def client() -> None:
            nonlocal answered
            while not done.is_set():
                assert (await pool.run_asgi(http_scope("/hello"))).status == 200
                answered += 1

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(client)
            for _ in range(3):
                await pool.recycle()
            done.set()
        assert answered
