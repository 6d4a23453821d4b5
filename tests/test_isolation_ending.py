"""Closing always ends within its deadline, whatever an app left behind; each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import APPS, DEADLINE

SCRIPT = """
import logging, sys, threading
sys.path.insert(0, {tests!r})
from conftest import Fifo, http_scope, pool_options
from pathlib import Path
from subpool import Pool, SubpoolError

def main():
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    folder = Path({folder!r})
    gate, started = Fifo(folder / "gate"), Fifo(folder / "started")
    query = f"gate={{gate}}&started={{started}}&stop={{folder}}/stop".encode()
    {body}
    print("closed", flush=True)

if __name__ == "__main__":
    main()
"""

LINGER = """with Pool.blocking("asgi_app:app", **pool_options({isolation!r}, close_timeout=0.4)) as pool:
        print(pool.run_asgi(http_scope("/linger", query_string=query)).body.decode())"""

BLOCKED = """with Pool.blocking("asgi_app:app", **pool_options({isolation!r}, close_timeout=0.4)) as pool:
        def call():
            try:
                pool.run_asgi(http_scope("/deaf", query_string=query))
            except SubpoolError as error:
                print("error")
        thread = threading.Thread(target=call)
        thread.start()
        started.wait_sync()
    thread.join(10)"""

FORGOTTEN = """pool = Pool.blocking("asgi_app:app", **pool_options({isolation!r}, close_timeout=5.0))
    pool.__enter__()
    print(pool.run_asgi(http_scope("/hello")).status)"""


def run(folder: Path, isolation: str, body: str) -> subprocess.CompletedProcess[str]:
    """Run `body` in a process of its own; the limit is generous, since abandoned apps hold a CPU."""
    script = folder / "ending.py"
    text = SCRIPT.format(tests=str(Path(APPS).parent), folder=str(folder), body=body.format(isolation=isolation))
    script.write_text(text)
    try:
        return subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=DEADLINE, check=False)
    finally:
        (folder / "stop").touch()


def test_a_thread_that_an_app_left_running(isolation: str, tmp_path: Path) -> None:
    """The pool closes within its deadline and says so; the app's thread runs for 20 s and more."""
    done = run(tmp_path, isolation, LINGER)
    assert done.stdout.splitlines() == ["left", "closed"], done.stderr
    if isolation != "thread":
        assert "left-behind" in done.stderr or "thread" in done.stderr.lower()


def test_a_handler_that_cannot_be_interrupted(isolation: str, tmp_path: Path) -> None:
    done = run(tmp_path, isolation, BLOCKED)
    assert done.stdout.splitlines() == ["error", "closed"], done.stderr


def test_a_pool_that_nobody_closed(isolation: str, tmp_path: Path) -> None:
    """The process ends all the same, without a crash."""
    done = run(tmp_path, isolation, FORGOTTEN)
    assert done.stdout.splitlines() == ["200", "closed"], done.stderr
    assert done.returncode >= 0, done.stderr


@pytest.mark.parametrize("way", ["sys.exit(3)", "raise LookupError('at the end')", "pass"])
def test_the_programs_own_status_survives_a_forgotten_pool(isolation: str, tmp_path: Path, way: str) -> None:
    done = run(tmp_path, isolation, FORGOTTEN + f"\n    {way}")
    assert done.stdout.startswith("200"), done.stderr
    assert done.returncode == {"sys.exit(3)": 3, "pass": 0}.get(way, 1), done.stderr
    assert "did not end" not in done.stderr


@pytest.mark.parametrize("way", ["sys.exit(3)", "raise SystemExit(3)", "raise LookupError('at the end')"])
def test_the_programs_own_status_survives_an_abandoned_worker(isolation: str, tmp_path: Path, way: str) -> None:
    done = run(tmp_path, isolation, BLOCKED + f"\n    {way}")
    assert "error" in done.stdout, done.stderr
    assert done.returncode == (1 if "LookupError" in way else 3), done.stderr


@pytest.mark.parametrize("rounds", [3])
def test_pools_one_after_the_other(isolation: str, tmp_path: Path, rounds: int) -> None:
    body = f"""for _ in range({rounds}):
        with Pool.blocking("asgi_app:app", **pool_options({{isolation!r}})) as pool:
            print(pool.run_asgi(http_scope("/hello")).status)"""
    done = run(tmp_path, isolation, body)
    assert done.stdout.splitlines() == ["200"] * rounds + ["closed"], done.stderr
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
