"""Lifespan: per worker, before its first request and after its last (ASGI Lifespan 2.0)."""

from __future__ import annotations

import ast
import logging
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from conftest import DEADLINE, http_scope

pytestmark = pytest.mark.anyio


@pytest.fixture
def pipe(fifo: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The pipe on which the app reports; the module is forgotten, as threads share the test's own imports."""
    sys.modules.pop("lifespan_app", None)
    made = fifo("lifespan")
    monkeypatch.setenv("LIFESPAN_PIPE", str(made))
    yield made
    sys.modules.pop("lifespan_app", None)


async def state(pool: Any) -> Any:
    return ast.literal_eval((await pool.run_asgi(http_scope("/"))).body.decode())


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_startup_and_shutdown_once_a_worker(make_pool: Any, pipe: Any, mode: str) -> None:
    async with make_pool("lifespan_app:app", workers=2, lifespan=mode) as pool:
        started = b""
        while len(started) < 2:
            started += await pipe.wait()
        assert started == b"++"
        assert (await pool.run_asgi(http_scope("/"))).status == 200
    ended = b""
    while len(ended) < 2:
        ended += await pipe.wait()
    assert ended == b"--"


async def test_threads_shut_down_when_all_have_finished(make_pool: Any, pipe: Any, fifo: Any, isolation: str) -> None:
    """They share what the app's shutdown closes; other kinds have each their own, and need not wait."""
    started, gate = fifo("started"), fifo("gate")
    pool = make_pool("lifespan_app:app", workers=2, lifespan="on")
    async with anyio.create_task_group() as group:
        async with pool:
            said = b""
            while len(said) < 2:
                said += await pipe.wait()
            query = f"started={started}&gate={gate}".encode()
            group.start_soon(pool.run_asgi, http_scope("/gate", query_string=query))
            await started.wait()
            group.start_soon(pool.close)
            said = b""
            with anyio.move_on_after(0.3):  # time enough for a shutdown that should not come
                said = await pipe.wait()
            assert said == (b"" if isolation == "thread" else b"-")
            gate.release()
            while len(said) < 3:
                said += await pipe.wait()
    assert said == (b"g--" if isolation == "thread" else b"-g-")


async def test_state_is_copied_to_each_request(make_pool: Any, pipe: Any) -> None:
    async with make_pool("lifespan_app:app", workers=1, lifespan="on") as pool:
        expected = [("shared", []), ("started", "yes")]
        assert await state(pool) == expected
        assert await state(pool) == expected
        own = ast.literal_eval((await pool.run_asgi(http_scope("/", state={"mine": 1}))).body.decode())
        assert own == [("mine", 1), *expected]


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_a_failing_startup_fails_the_pool_with_its_message(make_pool: Any, pipe: Any, mode: str) -> None:
    from subpool import SubpoolError

    with pytest.raises(SubpoolError, match=r"no database at db\.example"):
        async with make_pool("lifespan_app:failing", lifespan=mode):
            pass


async def test_auto_takes_an_exception_as_not_supported(make_pool: Any, pipe: Any) -> None:
    async with make_pool("lifespan_app:raising", workers=1, lifespan="auto") as pool:
        assert await state(pool) == []


async def test_on_takes_an_exception_as_a_failure(make_pool: Any, pipe: Any) -> None:
    from subpool import SubpoolError

    with pytest.raises(SubpoolError, match="unsupported here"):
        async with make_pool("lifespan_app:raising", lifespan="on"):
            pass


async def test_off_never_calls_it(make_pool: Any, pipe: Any) -> None:
    async with make_pool("lifespan_app:strict", workers=1, lifespan="off") as pool:
        assert (await pool.run_asgi(http_scope("/"))).body == b"strict"
    assert pipe.empty()


async def test_an_app_that_returns_at_once_still_serves(make_pool: Any, pipe: Any) -> None:
    async with make_pool("lifespan_app:silent", workers=1, lifespan="auto") as pool:
        assert await state(pool) == []


async def test_an_error_in_the_shutdown_is_logged_and_harmless(
    make_pool: Any, pipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with make_pool("lifespan_app:raising_late", workers=1, lifespan="on") as pool:
            assert await state(pool) == []
    assert "at the end" in caplog.text


async def test_a_shutdown_that_hangs_is_bounded(make_pool: Any, pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    with anyio.fail_after(DEADLINE):
        async with make_pool("lifespan_app:hanging", workers=1, lifespan="on", close_timeout=1.0) as pool:
            assert await state(pool) == []
