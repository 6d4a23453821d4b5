"""What fails under a guard: the server process, the guard itself, an app that crashes. Processes and clients are real.

Each fault in a short form and in a full one (`make soak`), as in `test_faults_workers`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools")
pytest.importorskip("pydantic")
pytest.importorskip("click")
pytest.importorskip("yaml")

from fault_kit import Clients
from guard_kit import Command, alive, background, until

Figure = Callable[[str], None]
CLIENTS = 6
KINDS = pytest.mark.parametrize("isolation", ["subinterpreter", "process"])


def full(*values: Any) -> Any:
    """Parameters of a full form."""
    return pytest.param(*values, marks=[pytest.mark.soak, pytest.mark.timeout(600)])


def spread(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s, {max(times):.2f} s at most"


# the server process


@pytest.mark.parametrize("times", [2, full(20)])
@pytest.mark.parametrize("way", ["SIGKILL", "abort"])
@KINDS
def test_a_server_process_that_dies_under_load(isolation: str, way: str, times: int, figure: Figure) -> None:
    """Each client loses the one request that it had there; nobody is refused. Its workers end with it."""
    if isolation == "process" and way == "abort":
        pytest.skip("ends a worker, and no more")
    back: list[float] = []
    options = ("--isolation", isolation, "--workers", "2", "--max-restarts", "10000")
    with Command("guard_app:app", *options) as server:
        guard = server.process.pid
        with Clients(server.port, clients=CLIENTS, every=0.02) as clients:
            for number in range(times):
                clients.more(100)  # who dies within 0.1 s of its start has not proved itself
                pid, parent = server.pids()
                child, workers = (parent, [pid]) if isolation == "process" else (pid, [])
                assert child != guard
                there = len(clients.outcomes)
                begin = time.monotonic()
                if way == "SIGKILL":
                    os.kill(child, signal.SIGKILL)
                else:
                    server.fails("/abort")

                def again(there: int = there, gone: int = child) -> bool:
                    fresh = clients.outcomes[there:]
                    return any(one.status == 200 and str(gone).encode() not in one.body.split() for one in fresh)

                until(again)
                back.append(time.monotonic() - begin)
                server.said("another is started", number + 1)
                server.said(f"server process {child} was killed by {'SIGKILL' if way == 'SIGKILL' else 'SIGABRT'}")
                until(lambda gone=[child, *workers]: not any(map(alive, gone)))
        failures = clients.failures
        assert all("Refused" not in one.error for one in failures), failures
        assert len(failures) <= times * CLIENTS
        pids = [pid for pid in server.pids() if pid != guard]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not any(map(alive, pids))
        assert server.refuses()
    figure(f"served again after {spread(back)}; {len(failures)} of {len(clients.outcomes)} requests lost in {times} "
           f"deaths, {CLIENTS} clients")  # fmt: skip


@pytest.mark.parametrize("times", [1, full(5)])
def test_the_requests_of_other_processes_are_untouched(times: int, figure: Figure) -> None:
    """Who is connected to another server process loses nothing, what is under way there included."""
    lost = 0
    with Command("guard_app:app", "--processes", "2", "--max-restarts", "10000") as server:
        server.said("is ready")
        for number in range(times):
            with contextlib.ExitStack() as stack:
                groups: list[Clients] = []

                def homes(groups: list[Clients] = groups) -> dict[tuple[Clients, int], int]:
                    """The process that each client is connected to."""
                    found = [(group, one) for group in groups for one in group.outcomes if one.status == 200]
                    return {(group, one.client): int(one.body.split()[0]) for group, one in found}

                while len(set(homes().values())) < 2 or len(groups) < 3:  # who accepts is chance
                    assert len(groups) < 30
                    groups.append(stack.enter_context(Clients(server.port, clients=4, every=0.02)))
                    groups[-1].more(8)
                before = homes()
                victim = before[groups[0], 0]
                os.kill(victim, signal.SIGKILL)
                server.said("is ready", number + 2)
                groups[-1].more(20)
            failed = [(group, one.client) for group in groups for one in group.failures]
            assert {before[client] for client in failed} <= {victim}
            assert len(failed) == len(set(failed)) <= list(before.values()).count(victim)
            lost += len(failed)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    figure(f"{lost} requests lost in {times} deaths, all of them of clients of the process that died")


# apps that always crash


LIFESPAN = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""
CRASHES = {
    "raises": ("1 / 0", "ZeroDivisionError"),
    "exits": ("raise SystemExit('no licence')", "no licence"),
    "aborts": ("import os; os.abort()", "was killed by SIGABRT before it was ready"),
    "fails in lifespan": (LIFESPAN, "no database"),
}


@pytest.mark.parametrize(("guard", "isolation"), [("--guard", "subinterpreter"), ("--no-guard", "process")])
@pytest.mark.parametrize("crash", CRASHES)
def test_an_app_that_cannot_start(crash: str, guard: str, isolation: str, tmp_path: Path, figure: Figure) -> None:
    """The server ends at once, with what was wrong; nothing is tried again."""
    text, told = CRASHES[crash]
    if crash == "aborts" and isolation == "process":
        told = "killed by signal 6"
    (tmp_path / "crashing.py").write_text(text + "\n")
    begin = time.monotonic()
    server = Command("crashing:app", guard, "--isolation", isolation, "--lifespan", "on", cwd=str(tmp_path))
    try:
        assert server.wait() == 1
        took = time.monotonic() - begin
        server.said(told)
        assert not any("started in" in line or "another" in line for line in server.lines), server.lines
    finally:
        server.end()
    figure(f"ended after {took:.2f} s")


@pytest.mark.parametrize("most", [2, full(10)])
@pytest.mark.parametrize("guard", ["--guard", "--no-guard"])
def test_workers_that_crash_again_and_again(guard: str, most: int, figure: Figure) -> None:
    """As often as `max_restarts` says, and the server ends with the status that says so; its guard starts no other."""
    options = (guard, "--isolation", "process", "--max-restarts", str(most))
    with Command("guard_app:app", *options) as server:
        begin = time.monotonic()
        for _ in range(most + 1):
            server.fails("/abort")
        assert server.wait() == 3
        figure(f"ended {time.monotonic() - begin:.2f} s after the first crash")
        server.said(f"the server ends: workers ended more than {most} times within 60 s")
        assert not any("another is started" in line for line in server.lines)
        assert server.refuses()


@pytest.mark.parametrize("most", [2, full(10)])
@pytest.mark.parametrize("later", ["at every request", "at every start but the first"])
def test_server_processes_that_crash_again_and_again(later: str, most: int, tmp_path: Path, figure: Figure) -> None:
    (tmp_path / "later.py").write_text(
        "import os\nfrom pathlib import Path\n\nfrom guard_app import app\n\n"
        "once = Path(__file__).with_name('once')\nif once.exists():\n    os.abort()\n"
    )
    app = "guard_app:app" if later == "at every request" else "later:app"
    with Command(app, "--max-restarts", str(most), "--pythonpath", str(tmp_path)) as server:
        if app == "later:app":
            (tmp_path / "once").touch()
        begin = time.monotonic()
        with Clients(server.port, "/abort", clients=1, limit=60.0) as clients:
            assert server.wait(60.0) == 3  # each start waits longer than the one before
            took = time.monotonic() - begin
        server.said(f"that is more than max_restarts={most} in restart_window=60 s")
        assert len([line for line in server.lines if "another is started" in line]) == most
        assert all(one.status == 0 for one in clients.outcomes)
        assert server.refuses()
    figure(f"ended {took:.2f} s after the first crash, and {most} restarts")


# the guard


@pytest.mark.parametrize("times", [1, full(5)])
@KINDS
def test_a_guard_that_is_killed(isolation: str, times: int, figure: Figure) -> None:
    """Nothing of it lives on: not what is asked, not what a handler blocks, however many processes there are."""
    took = []
    for _ in range(times):
        options = ("--isolation", isolation, "--processes", "2", "--workers", "2")
        with Command("guard_app:app", *options) as server:
            server.said("is ready")
            pids: set[int] = set()
            with ThreadPoolExecutor(CLIENTS) as executor:  # several at once, else one worker alone has it all
                while len(pids) < (2 if isolation == "subinterpreter" else 6):
                    for found in executor.map(lambda _: server.pids(), range(4 * CLIENTS)):
                        pids |= {*found} - {server.process.pid}
            with Clients(server.port, clients=CLIENTS):
                with background(lambda: server.fails("/freeze?600")):
                    server.accepted()
                    begin = time.monotonic()
                    server.signal(signal.SIGKILL)
                    until(lambda pids=pids: not any(map(alive, pids)))
                    took.append(time.monotonic() - begin)
            server.wait()
            until(server.refuses)
    figure(f"all gone after {spread(took)}")
