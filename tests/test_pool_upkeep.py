"""Workers are renewed, watched, added and taken away while the pool works; no request is lost by it."""

from __future__ import annotations

import ast
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import BOTH, DEADLINE, eventually, free_threaded, http_scope, in_flight, whole

pytestmark = pytest.mark.anyio


async def calls(pool: Any) -> int:
    """How many calls the app has had in the interpreter that answered."""
    return int((await pool.run_asgi(http_scope("/calls"))).body)


async def many(pool: Any, count: int, clients: int = 8) -> list[int]:
    """So many calls; the app's own counts of them."""
    counts: list[int] = []

    async def client() -> None:
        counts.extend([await calls(pool) for _ in range(count // clients)])

    async with anyio.create_task_group() as group:
        for _ in range(clients):
            group.start_soon(client)
    return counts


async def patient(pool: Any, started: Any, gate: Any, answers: list[bytes]) -> None:
    """A call that says when it has begun, and waits for the gate."""
    query = f"started={started}&gate={gate}".encode()
    answers.append((await pool.run_asgi(http_scope("/gate", query_string=query))).body)


def fresh(isolation: str) -> None:
    if isolation == "thread":
        pytest.skip("threads share one import: recycling them means a new process")


@BOTH
async def test_after_so_many_requests(make_pool: Any, isolation: str) -> None:
    fresh(isolation)
    async with make_pool(max_requests=50) as pool:
        with anyio.fail_after(2 * DEADLINE):
            while pool.stats().recycled < 3:  # of two workers
                assert len(await many(pool, 80)) == 80
        await eventually(lambda: whole(pool))
        assert pool.stats().restarts == 0
        assert max(worker.generation for worker in pool.stats().workers) > 1


async def test_at_an_age(make_pool: Any, isolation: str) -> None:
    fresh(isolation)
    async with make_pool(max_age=0.1, workers=1) as pool:
        await eventually(lambda: pool.stats().recycled >= 2)
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200


async def test_when_it_has_grown(make_pool: Any, isolation: str) -> None:
    """Processes are measured by the system, interpreters by their heartbeat."""
    fresh(isolation)
    if isolation == "subinterpreter" and free_threaded():
        pytest.skip("the allocator of free-threaded builds does not tell")
    async with make_pool(max_memory=1 << 20, heartbeat_timeout=2.0, workers=1) as pool:
        await eventually(lambda: pool.stats().recycled >= 1)
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200
    async with make_pool(max_memory=1 << 40, heartbeat_timeout=None, workers=1) as pool:
        if isolation == "subinterpreter":
            await eventually(lambda: (pool.stats().workers[0].allocated or 0) > 1 << 20)
        assert pool.stats().recycled == 0


async def test_a_fresh_worker_for_each_request(make_pool: Any, isolation: str) -> None:
    fresh(isolation)
    async with make_pool(max_requests=1, workers=2) as pool:
        with anyio.fail_after(2 * DEADLINE):
            assert await many(pool, 12, clients=4) == [1] * 12
        await eventually(lambda: in_flight(pool) == 0)
        assert pool.stats().restarts == 0


async def test_threads_ask_for_a_fresh_process(make_pool: Any, isolation: str) -> None:
    if isolation != "thread":
        pytest.skip("others are replaced here")
    async with make_pool(max_requests=20) as pool:
        asked: list[str] = []
        pool.engine.on_exhausted = asked.append
        await many(pool, 80)
        await eventually(lambda: asked)
        assert "has served" in asked[0]
        assert pool.stats().recycled == 0


# in place


@pytest.fixture
def in_place(isolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on 3.13, on every version."""
    if isolation != "subinterpreter":
        pytest.skip("only interpreters keep their memory")
    monkeypatch.setattr("subpool.succession.KEEPS_MEMORY", True)


async def test_in_place_the_app_is_new(make_pool: Any, in_place: None, fifo: Any, monkeypatch: Any) -> None:
    pipe = fifo("lifespan")
    monkeypatch.setenv("LIFESPAN_PIPE", str(pipe))

    async def said(count: int) -> bytes:
        told = b""
        while len(told) < count:
            told += await pipe.wait()
        return told

    async with make_pool("lifespan_app:app", workers=1, lifespan="on") as pool:
        assert await said(1) == b"+"
        before = await pool.call("os:getpid"), await pool.call("threading:get_native_id")
        for generation in (2, 3):
            await pool.recycle()
            assert await said(2) == b"+-"  # the new one first
            assert pool.stats().workers[0].generation == generation
        assert ast.literal_eval((await pool.run_asgi(http_scope("/"))).body.decode()) is not None
        assert (await pool.call("os:getpid"), await pool.call("threading:get_native_id")) == before
    assert await said(1) == b"-"


async def test_in_place_counts_begin_anew(make_pool: Any, in_place: None) -> None:
    async with make_pool(max_requests=20) as pool:
        counts = []
        with anyio.fail_after(2 * DEADLINE):
            while counts.count(1) < 5:  # of two workers: three began anew
                counts += await many(pool, 40)
        await eventually(lambda: whole(pool))
    async with make_pool(max_requests=1) as pool:
        assert await many(pool, 24) == [1] * 24


async def test_in_place_code_that_does_not_start_leaves_the_old(make_pool: Any, in_place: None, tmp_path: Path) -> None:
    from subpool import AppLoadError

    def write(text: str, helper: str) -> None:
        (tmp_path / "changing_helper.py").write_text(f"ANSWER = {helper!r}\n")
        (tmp_path / "changing_app.py").write_text(
            f"from changing_helper import ANSWER\n{text}\n"
            "async def app(scope, receive, send):\n"
            "    from changing_helper import ANSWER as late\n"
            "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            "    await send({'type': 'http.response.body', 'body': (ANSWER + late).encode()})\n"
        )

    async def ask() -> bytes:
        return (await pool.run_asgi(http_scope("/"))).body

    write("", "one")
    async with make_pool("changing_app:app", pythonpath=[tmp_path], workers=2) as pool:
        assert await ask() == b"oneone"
        write("raise LookupError('not today')", "two, longer")
        with pytest.raises(AppLoadError, match="not today"):
            await pool.recycle()
        await eventually(lambda: whole(pool))
        assert {await ask() for _ in range(8)} == {b"oneone"}
        write("", "three, longer still")
        await pool.recycle()
        assert {await ask() for _ in range(8)} == {b"three, longer stillthree, longer still"}


async def test_renewals_do_not_add_up(make_pool: Any, isolation: str) -> None:
    """By order, twice at once, and because of requests served: each worker has one replacement at a time."""
    fresh(isolation)
    async with make_pool(max_requests=20) as pool:
        with anyio.fail_after(2 * DEADLINE):
            async with anyio.create_task_group() as group:
                group.start_soon(pool.recycle)
                group.start_soon(pool.recycle, 1)
                while pool.stats().recycled < 6:
                    await many(pool, 80)
        await eventually(lambda: whole(pool))
        assert sorted(worker.id for worker in pool.stats().workers) == [1, 2]


async def test_recycling_waits_for_what_imports_older_code(make_pool: Any, isolation: str, fifo: Any, tmp_path: Path,
                                                           ) -> None:  # fmt: skip
    fresh(isolation)
    started, gate = fifo("started"), fifo("gate")

    def write(answer: str, text: str = "") -> None:
        (tmp_path / "slow_app.py").write_text(
            f"import gates\n{text}\n"
            "async def app(scope, receive, send):\n"
            "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            f"    await send({{'type': 'http.response.body', 'body': b{answer!r}}})\n"
        )

    write("old")
    async with make_pool("slow_app:app", pythonpath=[tmp_path], workers=1) as pool:
        write("between", f"gates.signal({str(started)!r}); gates.block({str(gate)!r})")
        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as group:
                group.start_soon(pool.recycle)
                await started.wait()
                write("the newest of all")
                group.start_soon(pool.recycle)
                await anyio.lowlevel.checkpoint()
                gate.release()
        await eventually(lambda: whole(pool, 1))
        assert (await pool.run_asgi(http_scope("/"))).body == b"the newest of all"


async def test_recycling_takes_spares_too(make_pool: Any, isolation: str, tmp_path: Path) -> None:
    """With a fresh worker for each request, those that are started ahead have the new code as well."""
    fresh(isolation)

    def write(answer: str) -> None:
        (tmp_path / "changing_app.py").write_text(
            "async def app(scope, receive, send):\n"
            "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            f"    await send({{'type': 'http.response.body', 'body': b{answer!r}}})\n"
        )

    write("old")
    async with make_pool("changing_app:app", pythonpath=[tmp_path], workers=1, max_requests=1) as pool:
        succession = pool.engine.crew.succession
        await eventually(lambda: succession.spares.ready or succession.resets())
        write("the newest of all")
        with anyio.fail_after(DEADLINE):
            await pool.recycle()
            answers = [(await pool.run_asgi(http_scope("/"))).body for _ in range(3)]
        assert answers == [b"the newest of all"] * 3


async def test_in_place_one_request_each_goes_on_with_the_old(
    make_pool: Any, in_place: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An app that cannot be imported anew: nobody's request fails before it has failed too often."""
    from subpool import PoolBroken

    file = tmp_path / "failing_app.py"
    file.write_text("from asgi_app import app")
    options = {"max_requests": 1, "max_restarts": 3, "workers": 1, "pythonpath": [tmp_path]}
    async with make_pool("failing_app:app", **options) as pool:
        file.write_text("raise LookupError('not today, nor tomorrow')")
        assert await many(pool, 4, clients=1) == [1, 2, 3, 4]
        await eventually(lambda: caplog.text.count("goes on with the app that it has") == 4)
        with pytest.raises(PoolBroken, match="not today"):
            await calls(pool)


async def test_in_place_what_runs_is_finished(make_pool: Any, in_place: None, fifo: Any) -> None:
    started, gate = fifo("started"), fifo("gate")
    async with make_pool(workers=1) as pool, anyio.create_task_group() as group:
        answers: list[bytes] = []
        group.start_soon(patient, pool, started, gate, answers)
        await started.wait()
        group.start_soon(pool.recycle)
        await eventually(lambda: pool.stats().workers[0].state == "resetting")
        group.start_soon(many, pool, 8)  # these wait for the new app
        await eventually(lambda: pool.stats().pending == 8)
        gate.release()
    assert answers == [b"through"]


# how many


@BOTH
async def test_scaling(make_pool: Any) -> None:
    async with make_pool(workers=1) as pool:
        pool.engine.crew.scale(3)
        await eventually(lambda: whole(pool, 3))
        assert {worker.id for worker in pool.stats().workers} == {1, 2, 3}
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200
        pool.engine.crew.scale(1)
        await eventually(lambda: whole(pool, 1))
        assert pool.stats().workers[0].id == 1
        pool.engine.crew.scale(2)
        pool.engine.crew.scale(1)  # one that is only coming goes too
        await eventually(lambda: whole(pool, 1) and len(pool.engine.crew.members) == 1)
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200
        with pytest.raises(ValueError, match="at least 1"):
            pool.engine.crew.scale(0)


async def test_what_a_worker_that_goes_runs_is_finished(make_pool: Any, fifo: Any) -> None:
    started, gate = fifo("started"), fifo("gate")
    async with make_pool(workers=2) as pool, anyio.create_task_group() as group:
        answers: list[bytes] = []
        for _ in range(4):
            group.start_soon(patient, pool, started, gate, answers)
        told = b""
        while len(told) < 4:
            told += await started.wait()
        pool.engine.crew.scale(1)
        assert await many(pool, 8)
        gate.release(4)
    assert answers == [b"through"] * 4


async def test_elastic(make_pool: Any, isolation: str, fifo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subpool.elastic.CALM", 0.5)
    gate = fifo("gate")
    async with make_pool(workers={"min": 1, "max": 3}, window=1, timeout=None) as pool:
        assert whole(pool, 1)
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(pool.run_asgi, http_scope("/block", query_string=f"gate={gate}".encode()))
            await eventually(lambda: len(pool.stats().workers) == 3)
            gate.release(6)
        await eventually(lambda: whole(pool, 1))
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200


@pytest.mark.parametrize("workers", [{"min": 2}, {"min": 3, "max": 2}, {"min": 0, "max": 2}, {"min": 1, "max": "2"}])
def test_bad_ranges(make_pool: Any, workers: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="workers"):
        make_pool(workers=workers)


# ends


async def test_too_many_ends_break_the_pool(make_pool: Any, isolation: str) -> None:
    from subpool import PoolBroken, SubpoolError

    if isolation != "process":
        pytest.skip("would end the test itself")
    async with make_pool(workers=1, max_restarts=3) as pool:
        broken: list[Any] = []
        pool.engine.on_broken = broken.append
        ends = 0
        with anyio.fail_after(2 * DEADLINE), pytest.raises(PoolBroken, match="more than 3 times within 60 s"):
            while True:
                try:
                    await pool.run_asgi(http_scope("/os-exit"))
                except PoolBroken:
                    raise
                except SubpoolError:
                    ends += 1
        assert ends == 4
        assert len(broken) == 1
        assert pool.stats().restarts == 3


async def test_a_silent_worker_is_replaced(make_pool: Any, isolation: str, tmp_path: Path) -> None:
    """C code that keeps the GIL lets no heartbeat through; what is held is answered as too late."""
    from subpool import PoolTimeout

    if isolation == "thread":
        pytest.skip("would hold the test's own interpreter")
    if free_threaded():
        pytest.skip("there is no GIL to keep: the steward answers")
    async with make_pool(workers=2, heartbeat_timeout=0.4, grace=0.2, timeout=None, close_timeout=2.0) as pool:
        with anyio.fail_after(DEADLINE), pytest.raises(PoolTimeout, match="heartbeat") as caught:
            await pool.run_asgi(http_scope("/gil"))
        assert caught.value.started is True
        await eventually(lambda: whole(pool))
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200
        assert pool.stats().abandoned == (isolation == "subinterpreter")


@pytest.mark.parametrize("path", ["/burn", "/block"])
async def test_a_busy_worker_is_not_silent(make_pool: Any, fifo: Any, path: str) -> None:
    """A handler that computes, or blocks its thread, for longer than the heartbeat may take: it is judged by its own
    timeout."""
    gate = fifo("gate")
    async with make_pool(workers=1, heartbeat_timeout=1.5, grace=0.4, timeout=20.0) as pool:
        query = b"3" if path == "/burn" else f"gate={gate}".encode()
        async with anyio.create_task_group() as group:
            answers: list[int] = []

            async def one() -> None:
                answers.append((await pool.run_asgi(http_scope(path, query_string=query))).status)

            group.start_soon(one)
            await eventually(lambda: in_flight(pool) == 1)
            if path == "/block":
                beats = pool.engine.crew.members[0]
                asked = beats.beat
                await eventually(lambda: beats.beat > asked + 2.5)
                gate.release()
        assert answers == [200]
        assert pool.stats().workers[0].restarts == 0


async def test_an_answer_that_is_unread_is_no_silence(make_pool: Any) -> None:
    """Behind a pause of the host's loop, timers may come before what workers have said meanwhile."""
    async with make_pool(workers=1, heartbeat_timeout=0.2, grace=0.1) as pool:
        engine = pool.engine
        engine.upkeep._asked = 0.0
        engine.upkeep._heartbeats(engine.loop.time(), False)
        time.sleep(0.6)  # noqa: ASYNC251  the pause
        engine.upkeep._heartbeats(engine.loop.time(), False)
        await eventually(lambda: whole(pool, 1))
        assert pool.stats().restarts == pool.stats().abandoned == 0
        assert [worker.generation for worker in pool.stats().workers] == [1]


async def test_the_pool_asks_for_a_fresh_process(make_pool: Any, isolation: str) -> None:
    if isolation != "subinterpreter" or free_threaded():
        pytest.skip("processes are killed; a thread would hold the test's own interpreter")
    async with make_pool(workers=1, heartbeat_timeout=None, grace=0.1, max_abandoned=0, close_timeout=2.0) as pool:
        from subpool import PoolTimeout

        asked: list[str] = []
        pool.engine.on_exhausted = asked.append
        with anyio.fail_after(DEADLINE), pytest.raises(PoolTimeout):
            await pool.run_asgi(http_scope("/gil"), timeout=0.2)
        await eventually(lambda: asked)
        assert "1 workers were abandoned" in asked[0]
