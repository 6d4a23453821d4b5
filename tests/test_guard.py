"""The guard: what happens to server processes and to the guard itself, and what clients see of it. All is real.

What fails under load is in `test_faults_guard`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import proc_kit
import pytest
from conftest import APPS, Fifo

pytest.importorskip("httptools")
pytest.importorskip("pydantic")
pytest.importorskip("click")
pytest.importorskip("yaml")

from guard_kit import Command, Load, alive, background, get, until

APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%s"})
"""


# the server process


def test_a_killed_servers_worker_processes_end_with_it() -> None:
    with Command("guard_app:app", "--isolation", "process") as server:
        worker, first = server.pids()
        with background(lambda: server.fails("/freeze?600")):
            server.accepted()
            os.kill(first, signal.SIGKILL)
            until(lambda: not alive(worker))
        other, second = server.pids()
        assert (other, second) != (worker, first)
        assert alive(server.process.pid)


def test_a_first_start_that_fails_ends_at_once() -> None:
    """With what the app said, as without a guard."""
    told = []
    for option in ("--guard", "--no-guard"):
        server = Command("broken_import:app", option)
        try:
            assert server.wait() == 1
            server._reader.join()
            told.append(server.lines)
        finally:
            server.end()
    guarded, plain = told
    assert [line for line in guarded if "File" not in line] == [line for line in plain if "File" not in line]
    assert guarded[0].startswith("Traceback")
    assert guarded[-1].startswith("subpool: error: cannot import")


def test_a_server_that_was_ready_is_started_again_whatever_it_has_served() -> None:
    """Killed at once, without a request and with its first: it had started, so this is no first start that fails."""
    with Command("guard_app:app") as server:
        (first,) = proc_kit.children(server.process.pid)
        os.kill(first, signal.SIGKILL)
        server.said(f"server process {first} was killed by SIGKILL; another is started in")
        second, _ = server.pids()
        os.kill(second, signal.SIGKILL)
        server.said(f"server process {second} was killed by SIGKILL; another is started")
        assert server.pids()[0] not in (first, second)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


SUBREAPER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER, which an exec keeps
os.execv(sys.argv[1], sys.argv[1:])
"""
FIRST = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere init has every orphan")
@pytest.mark.parametrize("role", ["the first process of a container", "a subreaper"])
def test_orphans_are_reaped(role: str, fifo: Callable[[str], Fifo]) -> None:
    """By the guard if the system makes it their parent; what ends of its own is noticed all the same."""
    before: tuple[str, ...] = (sys.executable, "-c", SUBREAPER)
    if role != "a subreaper":
        before = FIRST
        if shutil.which("unshare") is None or subprocess.run([*FIRST, "true"], check=False).returncode:
            pytest.skip("no namespaces of processes here")
    with Command("guard_app:app", "--log-level", "debug", before=before) as server:
        first, guard = server.pids()
        gates = [fifo(f"gate{number}") for number in range(3)]
        orphans = [int(server.get(f"/orphan?{gate}")) for gate in gates]
        for orphan in orphans:
            parent, state = server.get(f"/process?{orphan}").split()
            assert (int(parent), state == "Z") == (guard, False)
        for gate in gates:
            gate.release()
        for orphan in orphans:
            until(lambda orphan=orphan: server.get(f"/process?{orphan}") == "none")
            server.said(f"process {orphan}, an orphan, has ended")
        server.fails("/abort")
        server.said(f"server process {first} was killed by SIGABRT; another is started")
        assert server.pids()[0] != first


def test_an_address_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = Command(bind=f"127.0.0.1:{taken.getsockname()[1]}")
        try:
            assert server.wait() == 1
            assert server.said("error").startswith("subpool: error: cannot listen on 127.0.0.1:")
        finally:
            server.end()


# the guard's end


def test_a_server_that_hangs_is_killed_at_the_deadline() -> None:
    with Command("guard_app:app", "--graceful-timeout", "0.5") as server:
        pid, _ = server.pids()
        os.kill(pid, signal.SIGSTOP)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        server.said(f"server process {pid} did not end within")
        assert not alive(pid)
        assert server.refuses()


def test_a_second_signal_ends_at_once(fifo: Callable[[str], Fifo]) -> None:
    started = fifo("started")
    with Command("http_app:app", "--graceful-timeout", "600") as server:
        with background(lambda: server.fails(f"/forever?started={started}")):
            started.wait_sync()
            server.signal(signal.SIGINT)
            server.said("SIGINT: draining")
            server.signal(signal.SIGTERM)
            assert server.wait() == 128 + signal.SIGTERM
        server.said("SIGTERM again: ending at once")


def test_a_terminals_signal_reaches_all_and_the_guard_decides(fifo: Callable[[str], Fifo]) -> None:
    started, gate = fifo("started"), fifo("gate")
    with Command("http_app:app", "--isolation", "process") as server:
        with background(lambda: server.get(f"/gate?started={started}&gate={gate}")) as asked:
            started.wait_sync()
            os.killpg(server.process.pid, signal.SIGTERM)
            server.said("SIGTERM: draining")
            gate.release()
            assert asked() == "through"
            assert server.wait() == 0


# signals


def test_reload_under_load_fails_no_request(tmp_path: Path) -> None:
    file = tmp_path / "changing.py"
    file.write_text(APP % "old")
    with Command("changing:app", "--workers", "2", cwd=str(tmp_path)) as server:
        with Load(("127.0.0.1", server.port)) as load:
            load.more()
            file.write_text(APP % "newer")
            server.signal(signal.SIGHUP)
            server.said("reloaded: 2 sub-interpreters")
            load.more()
        assert (load.failures, load.bodies[0], load.bodies[-1]) == ([], "old", "newer")
        file.write_text("1 / 0")
        server.signal(signal.SIGHUP)
        server.said("not reloaded, the old workers stay: cannot import 'changing'")
        assert server.get() == "newer"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_upgrade_under_load_refuses_nobody(kind: str, tmp_path: Path) -> None:
    """A new guard, with the configuration as it is now, on the same sockets; who leaves takes no file along."""
    path = str(tmp_path / "socket")
    (tmp_path / "config.yaml").write_text(f"bind: ['127.0.0.1:0', 'unix:{path}']\nworkers: 1\npythonpath: [{APPS}]\n")
    with Command("guard_app:app", "--config", str(tmp_path / "config.yaml"), "--bind", f"unix:{path}") as server:
        address = ("127.0.0.1", server.port) if kind == "tcp" else path
        old = int(get(address).split()[1])
        assert old == server.process.pid
        with Load(address) as load:
            load.more()
            server.signal(signal.SIGUSR2)
            assert server.wait() == 0
            load.more()
        assert load.failures == []
        server.said("has taken over: draining")
        pid, new = get(address).split()
        assert int(new) != old
        os.kill(int(new), signal.SIGTERM)
        until(lambda: not alive(int(pid)) and not alive(int(new)))
        assert not os.path.exists(path)


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Because its configuration is wrong, or its app does not start; the next one may succeed."""
    file, module, path = tmp_path / "config.yaml", tmp_path / "changing.py", str(tmp_path / "socket")
    file.write_text("workers: 1\n")
    module.write_text(APP % "old")
    options = ("--config", str(file), "--bind", f"unix:{path}")
    with Command("changing:app", *options, cwd=str(tmp_path)) as server:
        file.write_text("wrokers: 1\n")
        server.signal(signal.SIGUSR2)
        server.said("ended with status 1; this one goes on")
        server.said("did you mean 'workers'?")
        file.write_text("workers: 1\n")
        module.write_text("1 / 0")
        server.signal(signal.SIGUSR2)
        server.said("ended with status 1; this one goes on", 2)
        server.said("ZeroDivisionError")
        assert (server.get(), get(path)) == ("old", "old")
        module.write_text(APP % "newer")
        server.signal(signal.SIGUSR2)
        assert server.wait() == 0
        assert (server.get(), get(path)) == ("newer", "newer")


def test_a_fresh_process_takes_over_without_a_failure() -> None:
    """Reloading threads takes a new process: it is ready before the old one drains."""
    with Command("guard_app:app", "--isolation", "thread", "--max-restarts", "1") as server:
        first, guard = server.pids()
        with Load(("127.0.0.1", server.port)) as load:
            for times in (1, 2):
                load.more()
                server.signal(signal.SIGHUP)
                server.said("is ready", times)
                load.more()
        assert load.failures == []
        server.said(f"server process {first} asks for a fresh one in its place")
        assert server.pids()[1] == guard
        until(lambda: not alive(first))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_workers_are_added_and_removed() -> None:
    from subpool.crew import Crew

    with Command() as server:
        server.pids()
        server.signal(signal.SIGTTIN)
        if not hasattr(Crew, "scale"):
            pytest.skip("this pool has a fixed number of workers")
        server.said("scaled: 2 workers")
        server.signal(signal.SIGTTOU)
        server.said("scaled: 1 workers")


def test_logs_are_opened_again(tmp_path: Path) -> None:
    access, errors = tmp_path / "access.log", tmp_path / "error.log"
    with Command("guard_app:app", "--access-log", "common", "--access-log-file", str(access)) as server:
        server.get("/before")
        until(lambda: "/before" in access.read_text())
        access.rename(tmp_path / "access.1")
        server.signal(signal.SIGUSR1)
        server.said("log files opened again")
        assert access.exists()
        server.get("/behind")
        until(lambda: "/behind" in access.read_text())
        assert "/behind" not in (tmp_path / "access.1").read_text()
    server = Command("guard_app:app", "--log-file", str(errors))
    try:
        until(lambda: errors.exists() and "listening on" in errors.read_text())
        errors.rename(tmp_path / "error.1")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "SIGTERM: draining" in errors.read_text()
        assert server.lines == []
    finally:
        server.end()


# several server processes


def test_two_processes_share_an_address() -> None:
    """One's death leaves the other serving."""
    with Command("guard_app:app", "--processes", "2") as server:
        server.said("is ready")

        def both() -> set[int]:
            seen = {server.pids()[0] for _ in range(8)}
            return seen if len(seen) == 2 else set()

        one, other = until(both)
        os.kill(one, signal.SIGKILL)
        server.said(f"server process {one} was killed")
        for _ in range(5):
            assert server.get()
        server.said("is ready", 2)
        assert alive(other)
        assert len(until(both)) == 2
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not alive(other)


def test_one_process_without_a_guard(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("guard: false\n")
    with Command("guard_app:app", "--config", str(tmp_path / "config.yaml")) as server:
        pid, _ = server.pids()
        assert pid == server.process.pid
        server.signal(signal.SIGHUP)
        server.said("reloaded: 1 sub-interpreter")
        server.signal(signal.SIGUSR1)
        server.said("log files opened again")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_more_processes_need_the_guard() -> None:
    server = Command("guard_app:app", "--no-guard", "--processes", "2")
    try:
        assert server.wait() == 1
        assert server.said("processes").endswith("is 2, but without the guard there is one process")
    finally:
        server.end()


# what is not for everybody's eyes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_secrets_are_in_no_command_line_and_no_environment() -> None:
    with Command("guard_app:app", SUBPOOL_SERVER_HEADER="sesame") as server:
        for pid in server.pids():
            assert b"sesame" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            names = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"SUBPOOL_SOCKETS" not in names
            fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            assert len([one for one in fds if one.startswith("socket:")]) < 12, json.dumps(fds)
