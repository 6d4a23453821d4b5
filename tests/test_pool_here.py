"""Code in a worker finds the worker that it is in: in tasks, on WSGI threads, on threads made for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import anyio
import pytest
from conftest import environ, http_scope

pytestmark = pytest.mark.anyio


async def ask_often(run: Any, request: dict[str, Any]) -> set[str]:
    """The different answers to many calls at a time."""
    found: set[str] = set()

    async def ask() -> None:
        answer = await run(request)
        found.add(answer.body.decode())

    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(ask)
    return found


async def test_handlers_tasks_and_threads(make_pool: Any) -> None:
    async with make_pool("asgi_app:app") as pool:
        assert await ask_often(pool.run_asgi, http_scope("/here")) == {"[True, True, True]"}


@pytest.mark.parametrize("threads", [1, 3])
async def test_wsgi_threads(make_pool: Any, threads: int) -> None:
    async with make_pool("wsgi_app:app", threads=threads) as pool:
        assert await ask_often(pool.run_wsgi, environ("/here")) == {"True"}


def test_outside_of_workers_it_says_so() -> None:
    """In a process where no other test has left a worker behind."""
    code = "from subpool import here; here.worker()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=25, check=False)
    assert "RuntimeError: this works in a worker of subpool only" in done.stderr
