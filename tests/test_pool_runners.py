"""Custom runners: modules that stand between the worker and the app."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import BOTH, environ, http_scope

pytestmark = pytest.mark.anyio


@BOTH
async def test_asgi_runner_changes_request_and_answer(pool: Any) -> None:
    answer = await pool.run_asgi(http_scope("/echo", method="POST"), b"body", runner="runner_asgi")
    assert answer == (200, [(b"x-runner", b"yes")], b"<BODY>")
    shown = await pool.run_asgi(http_scope("/scope"), runner="runner_asgi")
    assert b"custom_key" in shown.body
    assert b"custom_key" not in (await pool.run_asgi(http_scope("/scope"))).body


async def test_wsgi_runner_changes_request_and_answer(wsgi_pool: Any) -> None:
    answer = await wsgi_pool.run_wsgi(environ("/environ"), runner="runner_wsgi")
    assert answer.headers == [("X-Runner", "yes")]
    assert b"'custom.key': 'value'" in answer.body
    assert b"custom.key" not in (await wsgi_pool.run_wsgi(environ("/environ"))).body


@pytest.mark.parametrize("size", [3, 100_000])
async def test_runner_gets_the_whole_body_as_bytes(pool: Any, size: int) -> None:
    answer = await pool.run_asgi(http_scope("/echo", method="POST"), b"x" * size, runner="runner_own")
    assert answer == (299, [(b"x-len", b"%d" % size)], b"no app")


async def test_wsgi_runner_may_answer_by_itself(wsgi_pool: Any) -> None:
    assert await wsgi_pool.run_wsgi(environ("/"), runner="runner_own") == (
        "299 Own",
        [("X-Own", "yes")],
        b"no app",
    )


@pytest.mark.parametrize("name", ["runner_nowhere", "runner_empty", "runner_broken", "runner_package.nowhere"])
async def test_a_bad_runner_is_named(pool: Any, name: str) -> None:
    from subpool import RunnerError

    with pytest.raises(RunnerError, match=name.partition(".")[0]) as caught:
        await pool.run_asgi(http_scope("/hello"), runner=name)
    if name == "runner_empty":
        assert "run_asgi" in str(caught.value)
    if name == "runner_broken":
        assert "a broken runner" in str(caught.value)
    assert (await pool.run_asgi(http_scope("/hello"))).status == 200


async def test_a_bad_wsgi_runner_is_named(wsgi_pool: Any) -> None:
    from subpool import RunnerError

    with pytest.raises(RunnerError, match=r"runner_nowhere"):
        await wsgi_pool.run_wsgi(environ("/hello"), runner="runner_nowhere")
    with pytest.raises(RunnerError, match=r"runner_empty.*run_wsgi|run_wsgi.*runner_empty"):
        await wsgi_pool.run_wsgi(environ("/hello"), runner="runner_empty")


async def test_a_runner_that_fails_is_an_app_error(pool: Any) -> None:
    from subpool import AppError

    with pytest.raises(AppError, match="the runner failed"):
        await pool.run_asgi(http_scope("/fail"), runner="runner_own")
    with pytest.raises(AppError, match="no such thing"):
        await pool.run_asgi(http_scope("/raise"), runner="runner_asgi")


async def test_a_runners_wrong_answer_names_the_runner(pool: Any, wsgi_pool: Any) -> None:
    from subpool import RunnerError

    with pytest.raises(RunnerError, match="runner_own"):
        await pool.run_asgi(http_scope("/wrong"), runner="runner_own")
    with pytest.raises(RunnerError, match="runner_own"):
        await wsgi_pool.run_wsgi(environ("/wrong"), runner="runner_own")


async def test_a_runners_type_is_checked_before_sending(pool: Any) -> None:
    with pytest.raises(TypeError, match="runner"):
        await pool.run_asgi(http_scope("/hello"), runner=7)
