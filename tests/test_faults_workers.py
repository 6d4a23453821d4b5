"""What fails in a worker of a real server, under load: who notices, what it costs, and how soon all is well again.

Each fault in a short form and in a full one (`make soak`). The full forms hold the promises in seconds too; the short
ones hold outcomes, with generous deadlines. docs/deploying.md has the figures.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools")
pytest.importorskip("pydantic")
pytest.importorskip("click")
pytest.importorskip("yaml")

from conftest import free_threaded
from fault_kit import Clients, Outcome, quantile
from guard_kit import DEADLINE, Command, alive, until
from ops_kit import short_folder

from subpool.remote import Remote, RemoteError
from subpool.succession import KEEPS_MEMORY

Figure = Callable[[str], None]
BACK = 1.0  # seconds until a worker that died is there again
CLIENTS = 6


def full(*values: Any) -> Any:
    """Parameters of a full form."""
    return pytest.param(*values, marks=[pytest.mark.soak, pytest.mark.timeout(600)])


class Watched(Command):
    """A server of `faults_app` with a control socket in `folder`, and a journal of what the app has begun."""

    def __init__(self, folder: Path, *arguments: str, app: str = "faults_app:app") -> None:
        self._control = str(folder / "control")
        self.journal = folder / "journal"
        options = ("--control-socket", self._control, "--max-restarts", "10000", *arguments)
        super().__init__(app, *options, FAULTS_JOURNAL=str(self.journal))

    def pool(self) -> Any:
        """What its status says of its pool; None while another process is on its way."""
        with contextlib.suppress(RemoteError), Remote(self._control) as remote:
            return remote.ask("status")["pools"][0]
        return None

    def whole(self, workers: int = 2) -> Any:
        """Wait until all workers are ready; its pool then."""

        def found() -> Any:
            pool = self.pool()
            states = [worker["state"] for worker in pool["workers"]] if pool else []
            return pool if len(states) == workers and set(states) <= {"ready", "stalled"} else None

        return until(found)

    def status(self, path: str) -> int:
        """The status that a request on a connection of its own is answered with; 0: none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def stop(self) -> float:
        """End it with SIGTERM; how long that took."""
        begin = time.monotonic()
        self.signal(signal.SIGTERM)
        assert self.wait() == 0
        return time.monotonic() - begin


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


# workers that end


def answered_by(outcome: Outcome) -> tuple[int, str]:
    """The process, and the copy of the app."""
    pid, token = outcome.body.split()
    return int(pid), token.decode()


def half_of_them_wait(number: int) -> str:
    return f"/id/{number}" + "?0.003" * (number % 2)


def begun(journal: Path) -> dict[int, str]:
    """Which copy of the app began which request; each of them once."""
    lines = [line.split() for line in journal.read_text().splitlines()]
    found = {int(number): token for number, _, token in lines}
    assert len(found) == len(lines), "a request was begun twice"
    return found


@pytest.mark.parametrize("times", [10, full(100)])
@pytest.mark.parametrize("way", ["SIGKILL", "end"])
def test_a_worker_that_dies_again_and_again(way: str, times: int, folder: Path, figure: Figure) -> None:
    """SIGKILL of a worker process; a handler that raises SystemExit in a sub-interpreter."""
    kind = "process" if way == "SIGKILL" else "subinterpreter"
    dead: set[str] = set()
    back: list[float] = []
    with Watched(folder, "--isolation", kind, "--workers", "2") as server:
        with Clients(server.port, half_of_them_wait, clients=CLIENTS, every=0.005) as clients:
            clients.more(50)
            for _ in range(times):
                pid, token = answered_by(next(one for one in reversed(clients.outcomes) if one.status == 200))
                known = {answered_by(one)[1] for one in clients.outcomes if one.status == 200}
                there = len(clients.outcomes)
                start = time.monotonic()
                if way == "SIGKILL":
                    dead.add(token)
                    os.kill(pid, signal.SIGKILL)
                else:
                    assert server.status("/end") == 502

                def new(there: int = there, known: set[str] = known) -> bool:
                    fresh = clients.outcomes[there:]
                    return any(one.status == 200 and answered_by(one)[1] not in known for one in fresh)

                until(new)
                back.append(time.monotonic() - start)
                clients.more(10)
            outcomes = clients.outcomes
        pool = server.whole()
        assert pool["restarts"] == times
        server.stop()
    lost = [one for one in outcomes if one.status != 200]
    where = begun(server.journal)
    assert {one.status for one in lost} <= {502}, lost
    assert len({answered_by(one)[1] for one in outcomes if one.status == 200}) >= times
    if way == "SIGKILL":
        unknown = [one for one in lost if where.get(one.number) not in dead]
        assert len(unknown) <= times, "it may have been about to begin one each time"
    assert len(lost) <= times * CLIENTS
    figure(f"{len(lost)} of {len(outcomes)} requests lost in {times} deaths; "
           f"back after {statistics.median(back):.2f} s, {max(back):.2f} s at most")  # fmt: skip
    assert statistics.median(back) < BACK or times < 100


# handlers that do not end


def hang(server: Watched, path: str, times: int, seconds: float) -> tuple[float, float]:
    """Ask for `path` again and again under load; the p99 of the others before and meanwhile. They all succeed."""
    with Clients(server.port, "/", clients=CLIENTS, every=0.03) as clients:
        clients.more(20)
        before = clients.go_on(seconds)
        there = len(clients.outcomes)
        for _ in range(times):
            assert server.status(path) == 504
            until(lambda: not sum(worker["in_flight"] for worker in server.pool()["workers"]))  # it is back
        meanwhile = clients.outcomes[there:]
    assert clients.failures == []
    return quantile(before, 0.99), quantile(meanwhile, 0.99)


@pytest.mark.parametrize(("times", "seconds"), [(2, 0.5), full(15, 15.0)])
@pytest.mark.parametrize("app", ["app", "wsgi"])
def test_a_handler_that_loops(app: str, times: int, seconds: float, folder: Path, figure: Figure) -> None:
    """It is interrupted, and its worker goes on."""
    options = ("--workers", "2", "--timeout", "1", "--grace", "0.2")
    with Watched(folder, *options, app=f"faults_app:{app}") as server:
        before, meanwhile = hang(server, "/spin", times, seconds)
        pool = server.whole()
        assert (pool["abandoned"], pool["restarts"]) == (0, 0)
        assert server.get("/").split()
        server.stop()
    figure(f"p99 of the others {before * 1e3:.1f} ms without, {meanwhile * 1e3:.1f} ms meanwhile: "
           f"{meanwhile / before:.1f} times")  # fmt: skip


STUCK = ["/sleep", "/lock", "/deaf", "/gil"]


@pytest.mark.parametrize(
    ("path", "isolation", "times"),
    [
        *((path, "subinterpreter", 1) for path in STUCK),
        ("/lock", "process", 1),
        *(full(path, kind, 5) for path in STUCK for kind in ("subinterpreter", "process")),
    ],
)
def test_a_handler_that_cannot_be_interrupted(
    path: str, isolation: str, times: int, folder: Path, figure: Figure
) -> None:
    """It blocks in C, waits for a lock, swallows what is raised in it, keeps the GIL: its worker is replaced."""
    if path == "/gil" and isolation == "subinterpreter" and free_threaded():
        pytest.skip("no GIL to keep; and a C call that never detaches holds up what stops the world (CPython)")
    options = ("--isolation", isolation, "--workers", "2", "--timeout", "1.5", "--grace", "0.1")
    took = []
    with Watched(folder, *options, "--close-timeout", "1") as server:
        with Clients(server.port, "/", clients=CLIENTS, every=0.03) as clients:
            clients.more(10)
            for number in range(times):
                assert server.status(path) == 504
                begin = time.monotonic()
                pool = until(lambda number=number: gone(server, isolation, number + 1))
                took.append(time.monotonic() - begin)
                server.whole()
                clients.more(10)
        if (path, isolation) != ("/gil", "process"):
            assert clients.failures == []
        else:  # what was sent to it and not begun only its own process could give back
            assert {one.status for one in clients.failures} <= {504}
            assert len(clients.failures) <= times * CLIENTS
        pool = server.whole()
        assert pool["abandoned"] == (times if isolation == "subinterpreter" else 0)
        assert sum(worker["restarts"] for worker in pool["workers"]) == times
        end = server.stop()
    figure(f"replaced {max(took):.2f} s after its 504 at most; the server ended in {end:.2f} s")


def gone(server: Watched, isolation: str, times: int) -> bool:
    """Whether that many workers were replaced."""
    pool = server.pool()
    return pool is not None and sum(worker["restarts"] for worker in pool["workers"]) >= times


# threads that stay


@pytest.mark.parametrize("times", [1, full(5)])
@pytest.mark.parametrize("isolation", ["subinterpreter", "process"])
def test_a_thread_that_an_app_left_behind(isolation: str, times: int, folder: Path, figure: Figure) -> None:
    """Its worker is replaced all the same, and so is the server's end within its deadline."""
    options = ("--isolation", isolation, "--workers", "1", "--timeout", "1", "--close-timeout", "1")
    resets = KEEPS_MEMORY and isolation == "subinterpreter"  # its interpreter is not ended, nor is the thread
    took = [0.0]
    with Watched(folder, *options) as server:
        with Clients(server.port, "/", clients=2, every=0.03) as clients:
            for number in range(times):
                clients.more(5)
                pid, token = server.get("/leave").split()
                begin = time.monotonic()
                server.signal(signal.SIGHUP)
                server.said("reloaded", number + 1)
                assert server.get("/").split()[1] != token
                if resets:
                    continue
                server.said("it did not end after it was replaced", number + 1)
                took.append(time.monotonic() - begin)
                if isolation == "process":
                    until(lambda pid=pid: not alive(int(pid)))
        assert clients.failures == []
        told = [line for line in server.lines if "threads running: left-behind" in line]
        assert len(told) == (0 if resets else times)
        assert server.pool()["abandoned"] == (times if isolation == "subinterpreter" and not resets else 0)
        server.get("/leave")
        end = server.stop()
    figure(f"given up {max(took):.2f} s after the reload, its limit is 2 s; the server ended in {end:.2f} s, limit 1 s")
