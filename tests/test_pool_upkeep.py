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


# in interpreters that outlive their workers


@pytest.fixture
def resting(isolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on 3.13, on every version."""
    if isolation != "subinterpreter":
        pytest.skip("only interpreters keep their memory")
    monkeypatch.setattr("subpool.isolation.stock.KEEPS_MEMORY", True)


async def home(pool: Any) -> int:
    """The thread that has the interpreter of the only worker."""
    return int(await pool.call("threading:get_native_id"))


def at_rest(pool: Any) -> int:
    return len(pool.engine.crew.stock)


async def test_a_spare_interpreter_takes_over(make_pool: Any, resting: None, fifo: Any, monkeypatch: Any) -> None:
    """Two take turns, each new app in the one that rests; before the first renewal there is only one."""
    pipe = fifo("lifespan")
    monkeypatch.setenv("LIFESPAN_PIPE", str(pipe))

    async def said(count: int) -> bytes:
        told = b""
        while len(told) < count:
            told += await pipe.wait()
        return told

    async with make_pool("lifespan_app:app", workers=1, lifespan="on") as pool:
        assert await said(1) == b"+"
        assert at_rest(pool) == 0
        homes = [await home(pool)]
        for generation in (2, 3, 4, 5):
            await pool.recycle()
            assert await said(2) == b"+-"  # the new one first
            (worker,) = pool.stats().workers
            assert (worker.id, worker.generation, worker.served) == (1, generation, 0)
            assert at_rest(pool) == 1
            homes.append(await home(pool))
        assert ast.literal_eval((await pool.run_asgi(http_scope("/"))).body.decode()) is not None
        assert homes[0] != homes[1]
        assert homes == [*homes[:2], *homes[:2], homes[0]]
    assert await said(1) == b"-"


async def test_spare_interpreters_are_no_more_than_one(make_pool: Any, resting: None) -> None:
    async with make_pool(max_requests=20, workers=2) as pool:
        crew = pool.engine.crew
        most = 0
        with anyio.fail_after(2 * DEADLINE):
            while pool.stats().recycled < 6:
                await many(pool, 40)
                most = max(most, len(crew.members) + len(crew.leaving) + len(crew.stock))
        await eventually(lambda: whole(pool) and at_rest(pool) == 1)
        assert most <= 3
    async with make_pool(max_requests=1, workers=2) as pool:
        assert await many(pool, 24) == [1] * 24
        await pool.recycle()
        assert await many(pool, 8) == [1] * 8
        crew = pool.engine.crew
        await eventually(lambda: not crew.leaving and all(one.state == "ready" for one in crew.members))
        assert len(crew.members) == 4
        assert at_rest(pool) <= 1


async def test_renewal_leaves_as_many_ready(make_pool: Any, resting: None) -> None:
    async with make_pool(workers=2) as pool, anyio.create_task_group() as group:
        places = pool.engine.router.places
        fewest = [2]

        async def watch() -> None:
            while True:
                fewest.append(len({member.id for member in places if member.state == "ready"}))
                await anyio.lowlevel.checkpoint()

        group.start_soon(watch)
        for _ in range(3):
            await pool.recycle()
        group.cancel_scope.cancel()
    assert min(fewest) == 2


async def test_code_that_does_not_start_leaves_the_old(make_pool: Any, resting: None, tmp_path: Path) -> None:
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
        await eventually(lambda: succession.spares.ready)
        write("the newest of all")
        with anyio.fail_after(DEADLINE):
            await pool.recycle()
            answers = [(await pool.run_asgi(http_scope("/"))).body for _ in range(3)]
        assert answers == [b"the newest of all"] * 3


async def test_one_request_each_and_code_that_does_not_start(
    make_pool: Any, isolation: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers that are there serve; others are tried as often as `max_restarts` says."""
    from subpool import PoolBroken

    fresh(isolation)
    file = tmp_path / "failing_app.py"
    file.write_text("from asgi_app import app")
    options = {"max_requests": 1, "max_restarts": 3, "workers": 1, "pythonpath": [tmp_path]}
    async with make_pool("failing_app:app", **options) as pool:
        await eventually(lambda: pool.engine.crew.succession.spares.ready)
        file.write_text("raise LookupError('not today, nor tomorrow')")
        assert await many(pool, 2, clients=1) == [1, 1]
        with pytest.raises(PoolBroken, match="not today"):
            await calls(pool)
        assert caplog.text.count("a spare worker could not be started") == 4


async def test_a_spare_interpreter_is_waited_for(make_pool: Any, resting: None, fifo: Any) -> None:
    """What runs is finished, and others are served meanwhile; the next renewal waits for the old one's interpreter."""
    started, gate = fifo("started"), fifo("gate")
    async with make_pool(workers=1, close_timeout=0.2) as pool, anyio.create_task_group() as group:
        answers: list[bytes] = []
        group.start_soon(patient, pool, started, gate, answers)
        await started.wait()
        await pool.recycle()
        assert [worker.state for worker in pool.stats().workers] == ["stopping", "ready"]
        assert await many(pool, 8)
        group.start_soon(pool.recycle)
        await many(pool, 8)
        assert [worker.generation for worker in pool.stats().workers] == [1, 2]
        gate.release()
        await eventually(lambda: [worker.generation for worker in pool.stats().workers] == [3])
    assert answers == [b"through"]


async def test_a_spare_interpreter_serves_who_comes_next(make_pool: Any, resting: None) -> None:
    """After fewer workers, after a death: what rests is used."""
    from subpool import SubpoolError

    async with make_pool(workers=3) as pool:
        members = pool.engine.crew.members
        homes = {member.handle.thread for member in members}
        pool.engine.crew.scale(1)
        await eventually(lambda: whole(pool, 1) and at_rest(pool) == 2)
        pool.engine.crew.scale(2)
        await eventually(lambda: whole(pool, 2) and at_rest(pool) == 1)
        with pytest.raises(SubpoolError):
            await pool.run_asgi(http_scope("/exit"))
        await eventually(lambda: whole(pool, 2) and at_rest(pool) == 0)
        assert {member.handle.thread for member in members} < homes


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
