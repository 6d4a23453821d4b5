"""Several server processes are one server to its operator: control socket, metrics, what was asked of their size."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import APPS, DEADLINE
from guard_kit import Command, alive, get, until
from ops_kit import answer, command, control_folder, serve

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("httptools")
pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families as families

from subpool.http.siblings import shown, together, wrong
from subpool.remote import Remote, live_servers

APP = "guard_app:app"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own for the control sockets of servers and commands."""
    with control_folder(monkeypatch) as made:
        yield made


def told(*arguments: str) -> str:
    status, out, err = command(*arguments)
    assert (status, err) == (0, "")
    return out


def ask(what: str, seconds: float = DEADLINE, /, **arguments: Any) -> Any:
    """The answer of the one server that runs."""
    (path,) = live_servers()
    with Remote(path) as remote:
        return remote.ask(what, seconds, **arguments)


def sizes(status: dict[str, Any]) -> list[int]:
    """How many workers that will stay each process has, in the only pool."""
    (pool,) = status["pools"]
    places = [worker["process"] for worker in pool["workers"] if worker["state"] != "stopping"]
    return [places.count(place) for place in sorted(set(places))]


def measured(text: str) -> dict[str, float]:
    """Prometheus's samples by name and labels."""
    found = {}
    for family in families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}"
            assert name not in found, f"{name} is there twice"
            found[name] = sample.value
    return found


def wait_for(state: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: (now := ask("status"))["state"] == state and now)
    return found


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process hangs meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_commands_reach_all(folder: Path) -> None:
    with serve("--guard", "--processes", "2", app=APP) as served:
        served.wait_for("is ready")
        assert os.listdir(folder) == [f"{served.pid}.sock"]
        first = wait_for("ready")
        assert (first["pid"], first["guard"]) == (served.pid, served.pid)
        assert [one["state"] for one in first["processes"]] == ["ready", "ready"]
        assert sizes(first) == [1, 1]
        assert told("scale", "2") == "workers: 2\n"
        assert sizes(ask("status")) == [2, 2]
        until(lambda: all(worker["state"] == "ready" for worker in ask("status")["pools"][0]["workers"]))
        assert told("recycle", "2") == "recycled worker 2\n"
        assert told("reload") == "reloaded\n"
        status = ask("status")
        workers = [worker for worker in status["pools"][0]["workers"] if worker["state"] != "stopping"]
        generations = {(worker["process"], worker["id"]): worker["generation"] for worker in workers}
        assert len(generations) == 4
        assert all(generation > 1 for generation in generations.values())
        assert status["pools"][0]["recycled"] == 6
        assert command("recycle", "9")[2] == "subpool: error: there is no worker 9\n"
        for _ in range(7):
            assert served.get("/")[0] == 200
        assert ask("status")["requests"] == 7
        lines = told("status").splitlines()
        assert f"pid {served.pid}" in lines[0]
        assert "guarded by" not in lines[0]
        assert [line.partition(": ")[0] for line in lines if line.startswith("process")] == ["process 1", "process 2"]
        assert sorted(line.split()[0] + line.split()[-1] for line in lines if " ready " in line) == [
            "11", "12", "21", "22",
        ]  # fmt: skip
        assert told("stop") == "stopped\n"
        assert served.end() == 0
        assert os.listdir(folder) == []


def test_metrics_are_of_all_and_outlive_a_death(folder: Path) -> None:
    with serve("--guard", "--processes", "2", "--metrics-bind", "127.0.0.1:0", app=APP) as served:
        served.wait_for("is ready")
        assert served.get("/readyz", served.metrics) == (200, "ready\n")
        for _ in range(5):
            assert served.get("/")[0] == 200
        shown = measured(served.get("/metrics", served.metrics)[1])
        assert shown["subpool_ready{}"] == 1
        assert sum(value for name, value in shown.items() if name.startswith("subpool_requests_total")) == 5
        for place in (1, 2):
            assert shown[f"subpool_workers{{pool=1,process={place},state=ready}}"] == 1
            assert shown[f"subpool_pool_info{{app={APP},isolation=subinterpreter,pool=1,process={place}}}"] == 1
            assert shown[f"process_resident_memory_bytes{{process={place}}}"] > 1e6
        pids = [one["pid"] for one in ask("status")["processes"]]
        with stopped(pids[1]):  # so that its replacement is not there before we look
            os.kill(pids[0], signal.SIGKILL)
            until(lambda: not alive(pids[0]))
            status, why = served.get("/readyz", served.metrics)
            assert (status, "process 2 is silent" in why) == (503, True)
            assert served.get("/healthz", served.metrics) == (200, "alive\n")
        until(lambda: served.get("/readyz", served.metrics)[0] == 200)
        shown = measured(served.get("/metrics", served.metrics)[1])
        assert shown["subpool_workers{pool=1,process=1,state=ready}"] == 1
        assert "subpool_requests_total{process=3}" not in shown


def test_one_that_hangs_holds_nobody_up(folder: Path, figure: Callable[[str], None]) -> None:
    with serve("--guard", "--processes", "2", app=APP) as served:
        served.wait_for("is ready")
        one, two = [process["pid"] for process in wait_for("ready")["processes"]]
        with stopped(two):
            begin = time.monotonic()
            status = ask("status")
            took = time.monotonic() - begin
            figure(f"told {took:.1f} s after a process began to hang")
            assert took < 9
            assert status["state"] == "degraded"
            assert [process["state"] for process in status["processes"]] == ["ready", "silent"]
            assert sizes(status) == [1]
            assert command("scale", "3")[2] == f"subpool: error: server process {two}: it does not answer\n"
            assert sizes(ask("status")) == [3]
        until(lambda: sizes(ask("status")) == [3, 3])  # it heard of it all the same
        assert told("stop") == "stopped\n"
        assert served.end() == 0
        assert not alive(one)


def test_one_that_is_killed_while_it_is_asked(folder: Path) -> None:
    """Its answer is missing, and nobody waits for it; whoever asked through it asks another."""
    with serve("--guard", "--processes", "2", app=APP) as served:
        served.wait_for("is ready")
        one, two = [process["pid"] for process in wait_for("ready")["processes"]]
        (path,) = live_servers()
        os.kill(two, signal.SIGSTOP)
        with Remote(path) as remote:
            remote._socket.sendall(b'{"command": "reload"}\n')
            os.kill(two, signal.SIGKILL)
            remote._socket.settimeout(DEADLINE)
            said = json.loads(remote._file.readline())
        assert said in ({"result": None}, {"error": f"server process {two}: was killed by SIGKILL"},
                        {"error": f"server process {two}: it does not answer"})  # fmt: skip
        again = wait_for("ready")
        assert [process["pid"] == one for process in again["processes"]] == [True, False]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_size_is_remembered(processes: str, folder: Path) -> None:
    """By whichever way it was asked for, also when nobody is there to hear of it; and through an upgrade."""
    config = folder.parent / "config.yaml"
    config.write_text(f"processes: {processes}\npythonpath: [{APPS}]\n")
    options = ("--config", str(config), "--control-socket", str(folder.parent / "c.sock"))

    def now() -> list[int]:
        with Remote(str(folder.parent / "c.sock")) as remote:
            status = remote.ask("status")
        if "processes" in status:
            return sizes(status)
        return [len([one for one in pool["workers"] if one["state"] != "stopping"]) for pool in status["pools"]]

    def all_have(count: int) -> bool:
        return now() == [count] * int(processes)

    with Command(APP, *options, cwd=str(folder.parent)) as server:

        def kill() -> None:
            pid, _ = server.pids()
            os.kill(pid, signal.SIGKILL)
            until(lambda: not alive(pid))

        until(lambda: all_have(1))
        assert told("scale", "3", "--socket", str(folder.parent / "c.sock")) == "workers: 3\n"
        kill()
        until(lambda: all_have(3))
        server.signal(signal.SIGTTIN)
        until(lambda: all_have(4))
        for _ in range(6):
            server.signal(signal.SIGTTOU)
            time.sleep(0.01)  # signals of one number that come at once are one
        until(lambda: all_have(1))
        server.signal(signal.SIGTTIN)
        until(lambda: all_have(2))
        kill()
        until(lambda: all_have(2))
        os.kill(server.pids()[0], signal.SIGKILL)
        server.signal(signal.SIGTTIN)  # where there is one process, nobody hears this now
        until(lambda: all_have(3))
        if processes == "2":
            return
        server.signal(signal.SIGUSR2)
        assert server.wait() == 0
        until(lambda: all_have(3))
        guard = server.pids()[1]
        config.write_text(f"mounts: [{{prefix: /x, app: '{APP}', workers: 2, threads: 2}}]\npythonpath: [{APPS}]\n")
        os.kill(guard, signal.SIGUSR2)
        until(lambda: not alive(guard))
        until(lambda: now() == [1, 2])  # the configuration says something else by now, and its word holds
        guard = server.pids()[1]
        os.kill(guard, signal.SIGTERM)
        until(lambda: not alive(guard))
        assert not (folder.parent / "c.sock").exists()


def test_an_upgrade_passes_the_addresses_on(folder: Path) -> None:
    """Whoever asks has an answer all the time, from the guard that serves, and 200 from /readyz."""
    path, metrics = str(folder.parent / "c.sock"), str(folder.parent / "m.sock")
    options = ("--control-socket", path, "--metrics-bind", f"unix:{metrics}", "--graceful-timeout", "2")
    with Command(APP, *options) as server:
        until(lambda: os.path.exists(metrics) and get(metrics, "/healthz"))
        assert get(metrics, "/readyz") == "ready\n"
        server.signal(signal.SIGUSR2)
        guards = set()
        while server.process.poll() is None:
            assert get(metrics, "/readyz") == "ready\n"
            with Remote(path) as remote:
                status = remote.ask("status")
            guards.add(status["guard"])
            assert status["state"] == "ready" or status["guard"] == server.process.pid
        _, new = server.pids()
        assert guards <= {server.process.pid, new}
        with Remote(path) as remote:
            assert remote.ask("status")["guard"] == new
            limit = remote.ask("stop")["limit"]
            remote.wait_for_end(limit)
        until(lambda: not alive(new))
        assert not os.path.exists(path)
        assert not os.path.exists(metrics)


def test_a_control_socket_that_cannot_be(folder: Path) -> None:
    for option in ("--control-socket", "--metrics-bind"):
        bind = "unix:/nowhere/x.sock" if option == "--metrics-bind" else "/nowhere/x.sock"
        status, _, err = command("serve", "a:b", "--bind", "127.0.0.1:0", option, bind)
        assert (status, err) == (
            1, "subpool: error: cannot listen on unix:/nowhere/x.sock: No such file or directory\n",
        )  # fmt: skip
    folder.chmod(0o755)
    with serve("--guard", app=APP) as served:
        assert served.get("/")[0] == 200
        served.wait_for("WARNING subpool: there is no control socket: .*must be 0700")


def test_a_drain_can_be_seen(folder: Path, tmp_path: Path) -> None:
    from conftest import Fifo

    started, gate = Fifo(tmp_path / "started"), Fifo(tmp_path / "gate")
    options = ("--guard", "--processes", "2", "--metrics-bind", "127.0.0.1:0")
    try:
        with serve(*options, app="http_app:app") as served:
            served.wait_for("is ready")
            with served.asked(f"/gate?started={started}&gate={gate}") as peer:
                started.wait_sync()
                served.process.terminate()
                served.wait_for("SIGTERM: draining")
                until(lambda: served.get("/readyz", served.metrics) == (503, "draining\n"))
                assert ask("status")["state"] == "draining"
                assert command("scale", "2")[2] == "subpool: error: the server is draining\n"
                gate.release()
                assert answer(peer) == (200, "through")
            assert served.end() == 0
    finally:
        gate.release(8)
        gate.close()
        started.close()


# their answers, together


def one(place: int, state: str = "ready", pid: int = 0, **more: Any) -> dict[str, Any]:
    pool = {"app": "a:b", "isolation": "thread", "pending": 1, "refused": 2, "workers": [{"id": 1, "state": "ready"}]}
    value = {"version": "1", "python": "3", "uptime": 1.0, "pid": pid, "state": state, "addresses": ["x"],
             "connections": 3, "requests": 4, "pools": [pool]}  # fmt: skip
    return {"pid": pid or place, "place": place, "state": state, **(more or {"value": value})}


def test_together() -> None:
    status = together([one(2), one(1)], 2, 7, 5.0)
    assert (status["state"], status["pid"], status["uptime"]) == ("ready", 7, 5.0)
    assert (status["connections"], status["requests"], status["addresses"]) == (6, 8, ["x"])
    assert status["pools"] == [{
        "app": "a:b", "isolation": "thread", "pending": 2, "refused": 4,
        "workers": [{"id": 1, "state": "ready", "process": 1}, {"id": 1, "state": "ready", "process": 2}],
    }]  # fmt: skip
    assert set(status["each"]) == {1, 2}


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([one(1), one(2)], "ready"),
        ([one(1)], "degraded"),
        ([], "starting"),
        ([one(1, "starting", value=None), one(2, "starting", value=None)], "starting"),
        ([one(1, "draining"), one(2, "draining")], "draining"),
        ([one(1), one(2, error="it does not answer")], "degraded"),
        ([one(1, error="x"), one(2, error="x")], "silent"),
        ([one(1, "draining", 5), one(1, "ready", 6), one(2)], "ready"),
        ([one(1, "ready", 5), one(1, "starting", 6, value=None), one(2)], "ready"),
    ],
)
def test_the_state_of_all(answers: list[dict[str, Any]], state: str) -> None:
    assert together(answers, 2, 7, 0.0)["state"] == state


def test_of_two_in_one_place_the_one_that_serves_is_shown() -> None:
    answers = [one(1, "draining", 5), one(1, "ready", 6), one(2, "ready", 8), one(2, "starting", 9, value=None)]
    assert [answer["pid"] for answer in shown(answers)] == [6, 8]


def test_what_went_wrong() -> None:
    assert wrong([one(1), one(2)]) is None
    assert wrong([one(1, error="x"), one(2, error="x")]) == "x"
    assert wrong([one(1, error="x"), one(2)]) == "server process 1: x"
    assert wrong([one(1, error="x"), one(2, error="y")]) == "server process 1: x; server process 2: y"
