"""What an app logs and prints reaches the host."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from conftest import APPS, environ, eventually, http_scope

pytestmark = pytest.mark.anyio


async def test_log_records_carry_the_worker(make_pool: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with make_pool() as pool:
        with caplog.at_level(logging.INFO, logger="apps.asgi"):
            await pool.run_asgi(http_scope("/log"))
            await eventually(lambda: len([r for r in caplog.records if r.name == "apps.asgi"]) >= 2)
        warning, failure = (record for record in caplog.records if record.name == "apps.asgi")
        assert warning.levelno == logging.WARNING
        assert warning.getMessage() == "a warning from the worker"
        assert warning.worker in {worker.id for worker in pool.stats().workers}  # type: ignore[attr-defined]
        assert failure.levelno == logging.ERROR
        assert "ZeroDivisionError" in logging.Formatter().format(failure)


async def test_wsgi_errors_reach_the_log(make_pool: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with make_pool("wsgi_app:app", workers=1) as pool:
        await pool.run_wsgi(environ("/errors"))
        await eventually(lambda: "to the error log" in caplog.text)


PRINTING = """
import sys
sys.path.insert(0, {tests!r})
from conftest import http_scope, pool_options
from subpool import Pool

if __name__ == "__main__":
    with Pool.blocking("asgi_app:app", **pool_options({isolation!r})) as pool:
        for number in range(5):
            pool.run_asgi(http_scope("/print", query_string=b"text=line-%d" % number))
    print("end", flush=True)
"""


def test_prints_are_not_lost(isolation: str, tmp_path: Any) -> None:
    """Into a pipe, where stdout is not line-buffered by itself."""
    from pathlib import Path

    script = tmp_path / "printing.py"
    script.write_text(PRINTING.format(tests=str(Path(APPS).parent), isolation=isolation))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=25, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sorted(lines) == sorted([*(f"line-{number}" for number in range(5)), "end"])
    for number in range(5):
        assert f"err line-{number}" in done.stderr
