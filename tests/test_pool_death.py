"""A worker's death fails only what was on it, and the pool is whole again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import BOTH, DEADLINE, environ, eventually, http_scope, in_flight, whole

pytestmark = pytest.mark.anyio


async def works(pool: Any, workers: int = 2) -> None:
    """The pool has all its workers, nothing is in flight, and many calls succeed."""
    await eventually(lambda: whole(pool, workers))
    with anyio.fail_after(DEADLINE):
        for _ in range(10):
            assert (await pool.run_asgi(http_scope("/hello"))).status == 200
    await eventually(lambda: in_flight(pool) == 0)
    assert pool.stats().pending == 0


@BOTH
@pytest.mark.parametrize("path", ["/exit", "/interrupt"])
async def test_an_app_that_ends_its_interpreter(make_pool: Any, path: str) -> None:
    """SystemExit, KeyboardInterrupt in a handler: WorkerLost, or an error of that call; never silence."""
    from subpool import AppError, WorkerLost

    async with make_pool() as pool:
        with anyio.fail_after(DEADLINE), pytest.raises((WorkerLost, AppError)) as caught:
            await pool.run_asgi(http_scope(path))
        if isinstance(caught.value, WorkerLost):
            assert caught.value.started is True
        await works(pool)


async def test_what_waits_in_an_interpreter_that_ends_is_lost_with_it(make_pool: Any, fifo: Any) -> None:
    """It is cancelled there, but nobody gave it up."""
    from subpool import AppError, WorkerLost

    started, gate = fifo("started"), fifo("gate")
    async with make_pool(workers=1) as pool:

        async def patient() -> None:
            with pytest.raises(WorkerLost, match="had begun"):
                await pool.run_asgi(http_scope("/gate", query_string=f"started={started}&gate={gate}".encode()))

        async with anyio.create_task_group() as group:
            group.start_soon(patient)
            await started.wait()
            with pytest.raises((WorkerLost, AppError)):
                await pool.run_asgi(http_scope("/exit"))
        await works(pool, 1)


async def test_a_wsgi_app_that_ends_its_interpreter(make_pool: Any) -> None:
    from subpool import AppError, WorkerLost

    async with make_pool() as pool:
        with anyio.fail_after(DEADLINE), pytest.raises((WorkerLost, AppError)):
            await pool.run_wsgi(environ("/exit"), app="wsgi_app:app")
        await works(pool)


@BOTH
@pytest.mark.parametrize("way", ["os._exit", "SIGKILL"])
async def test_a_process_that_dies(make_pool: Any, isolation: str, fifo: Any, way: str) -> None:
    from subpool import WorkerLost

    if isolation != "process":
        pytest.skip("would end the test itself")
    started = fifo("started")
    async with make_pool(workers=1) as pool:  # one, so that its process is known
        if way == "os._exit":
            with anyio.fail_after(DEADLINE), pytest.raises(WorkerLost) as caught:
                await pool.run_asgi(http_scope("/os-exit"))
            assert caught.value.started is True
        else:
            lost: list[WorkerLost] = []

            async def one() -> None:
                query = f"started={started}".encode()
                try:
                    await pool.run_asgi(http_scope("/forever", query_string=query))
                except WorkerLost as error:
                    lost.append(error)

            with anyio.fail_after(DEADLINE):
                async with anyio.create_task_group() as group:
                    group.start_soon(one)
                    await started.wait()
                    pid = int((await pool.run_asgi(http_scope("/pid"))).body)
                    assert pid != os.getpid()
                    os.kill(pid, signal.SIGKILL)
            assert [error.started for error in lost] == [True]
        await works(pool, 1)
        assert sum(worker.restarts for worker in pool.stats().workers) >= 1


async def test_the_other_workers_requests_live_on(make_pool: Any, isolation: str, fifo: Any) -> None:
    from subpool import WorkerLost

    if isolation != "process":
        pytest.skip("would end the test itself")
    started, gate = fifo("started"), fifo("gate")
    async with make_pool() as pool:
        answers: list[bytes] = []

        async def patient() -> None:
            query = f"started={started}&gate={gate}".encode()
            answers.append((await pool.run_asgi(http_scope("/block", query_string=query))).body)

        async with anyio.create_task_group() as group:
            group.start_soon(patient)
            await started.wait()
            with pytest.raises(WorkerLost):
                await pool.run_asgi(http_scope("/os-exit"))
            gate.release()
        assert answers == [b"through"]
        await works(pool)


async def test_what_a_calm_worker_had_done_is_not_done_again(
    make_pool: Any, isolation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds some answers back, and they die with it; nor is the call that killed it tried on another."""
    from subpool import WorkerLost

    if isolation != "process":
        pytest.skip("would end the test itself")
    calm = "from subpool.worker import worker\nworker.CALM, worker.LONG = 0, 10.0\n"
    (tmp_path / "calmed.py").write_text(calm)  # from the start
    monkeypatch.setattr("subpool.link.CALM", 0)
    journal = tmp_path / "journal"
    monkeypatch.setenv("FAULTS_JOURNAL", str(journal))
    paths = [f"/id/{number}" for number in range(60)]
    paths[25] = "/abort"
    lost: list[str] = []

    async def ask(path: str) -> None:
        try:
            await pool.run_asgi(http_scope(path))
        except WorkerLost:
            lost.append(path)

    options = {"pythonpath": [tmp_path], "preload": ["calmed"], "window": 32, "lifespan": "off"}
    async with make_pool("faults_app:app", **options) as pool:
        async with anyio.create_task_group() as group:
            for path in paths:
                group.start_soon(ask, path)
        assert pool.stats().restarts == 1
    assert "/abort" in lost
    begun = [line.split()[0] for line in journal.read_text().splitlines()]
    assert len(begun) == len(set(begun)) >= 60 - len(lost)


async def test_idle_death_is_noticed(make_pool: Any, isolation: str) -> None:
    if isolation != "process":
        pytest.skip("would end the test itself")
    async with make_pool(workers=1) as pool:
        pid = int((await pool.run_asgi(http_scope("/pid"))).body)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: whole(pool, 1) and pool.stats().workers[0].restarts == 1)
        assert int((await pool.run_asgi(http_scope("/pid"))).body) != pid


async def test_streams_and_sockets_on_it_end_too(make_pool: Any, isolation: str) -> None:
    from conftest import websocket_scope

    from subpool import SubpoolError

    if isolation != "process":
        pytest.skip("would end the test itself")
    async with make_pool(workers=1) as pool:
        with anyio.fail_after(DEADLINE):
            async with pool.websocket(websocket_scope("/echo")) as socket:
                assert await socket.receive() == "welcome"
                os.kill(int((await pool.run_asgi(http_scope("/pid"))).body), signal.SIGKILL)
                with pytest.raises(SubpoolError):
                    await socket.receive()
        await works(pool, 1)
        with anyio.fail_after(DEADLINE), pytest.raises(SubpoolError):
            async with pool.stream_asgi(http_scope("/endless")) as stream:
                os.kill(int((await pool.run_asgi(http_scope("/pid"))).body), signal.SIGKILL)
                async for _ in stream:
                    pass
        await works(pool, 1)
