"""The control socket: who may talk to it and how, and the commands to a running server."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from conftest import DEADLINE, Fifo, eventually
from ops_kit import answer, clean, command, control_folder, run_on, serve

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("httptools")

from subpool import SubpoolError, control, reception
from subpool.control import Control
from subpool.reception import Peer
from subpool.remote import Remote, RemoteError, live_servers
from subpool.status_table import table

Main = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own for the control sockets of servers and commands."""
    with control_folder(monkeypatch) as made:
        yield made


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    """Run a coroutine function on a loop of each kind."""
    return lambda main: run_on(request.param, main)


class Client(Peer):
    """A connection to a control socket, from within the loop."""

    def __init__(self, path: str) -> None:
        super().__init__(socket.socket(socket.AF_UNIX))
        self.sock.connect(path)
        self.sock.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    async def ask(self, request: Any) -> Any:
        await self.send(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")
        return await self.told()

    async def told(self) -> Any:
        return json.loads(await self.until(b"\n", 1 << 24))

    async def ended(self) -> bool:
        try:
            await self.until(b"\n", 1 << 24)
        except (EOFError, ConnectionResetError):
            return True
        return False


@asynccontextmanager
async def controlled(folder: Path, **handlers: Any) -> AsyncIterator[Control]:
    async def status() -> dict[str, int]:
        return {"pid": 1}

    control = Control(str(folder.parent / "c.sock"), {"status": status, **handlers})
    await control.start()
    try:
        yield control
    finally:
        await control.close()


# the socket


def test_requests_and_replies(folder: Path, run: Callable[[Main], None], caplog: pytest.LogCaptureFixture) -> None:
    async def scale(workers: int) -> int:
        return workers

    async def refuse() -> None:
        raise SubpoolError("not now")

    async def fail() -> None:
        raise RuntimeError("hunter2")

    async def main() -> None:
        async with controlled(folder, scale=scale, refuse=refuse, fail=fail) as there:
            with Client(there.path) as one:
                assert await one.ask({"command": "status"}) == {"result": {"pid": 1}}
                assert await one.ask({"command": "scale", "arguments": {"workers": 3}}) == {"result": 3}
                assert await one.ask({"command": "refuse"}) == {"error": "not now"}
                assert await one.ask({"command": "fail"}) == {"error": "RuntimeError; the server's log has more"}
                told = "there is no command 'halt'; there are status, scale, refuse, fail"
                assert await one.ask({"command": "halt"}) == {"error": told}
                for wrong in (
                    b"\n", b"{\n", b"[]\n", b'"status"\n', b"\xff\n", b"[" * 4000 + b"\n", {"command": []},
                    {}, {"command": "scale"}, {"command": "status", "arguments": {"x": 1}},
                    {"command": "scale", "arguments": 3},
                ):  # fmt: skip
                    assert (await one.ask(wrong))["error"].startswith("this is no request: "), wrong
                await one.send(b'{"command": "status"}\n' * 3)
                assert [await one.told() for _ in range(3)] == [{"result": {"pid": 1}}] * 3
                assert "1 clients" in repr(there)

    run(main)
    assert "the command 'fail' failed" in caplog.text


def test_modes_and_the_end(folder: Path, run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with controlled(folder) as there:
            with Client(there.path) as one:
                assert stat.S_IMODE(os.stat(there.path).st_mode) == 0o600
                await there.close()
                assert await one.ended()
                assert not os.path.exists(there.path)

    run(main)


def test_what_stands_at_the_path(folder: Path) -> None:
    async def main() -> None:
        path = folder.parent / "c.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with controlled(folder) as there:  # nobody listened any more
            with pytest.raises(OSError, match=r"cannot listen on unix:.*c.sock: another server does"):
                await Control(there.path, {}).start()
            os.unlink(there.path)
            path.write_text("another's")
        assert path.read_text() == "another's"
        with pytest.raises(OSError, match="there is a file of that name"):
            await Control(str(path), {}).start()
        assert path.read_text() == "another's"
        with pytest.raises(OSError, match=r"cannot listen on unix:/nowhere/c.sock: No such file"):
            await Control("/nowhere/c.sock", {}).start()

    asyncio.run(main())


def test_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert control.folder() == str(folder)
    path = control.own_path(os.getpid())
    assert path == str(folder / f"{os.getpid()}.sock")
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    with control.listen(path, 0o600):
        assert control.own_path(os.getpid()) == str(folder / f"{os.getpid()}-2.sock")
    os.unlink(path)
    folder.chmod(0o750)
    with pytest.raises(PermissionError, match="must be 0700"):
        control.own_path(os.getpid())
    folder.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(PermissionError, match="another user's"):
            control.own_path(os.getpid())
    folder.rmdir()
    folder.symlink_to(folder.parent)
    with pytest.raises(NotADirectoryError, match="is no folder"):
        control.own_path(os.getpid())
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert os.path.basename(control.folder()) == f"subpool-{os.geteuid()}"


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system does not tell who the peer is")
def test_other_users_are_refused(folder: Path, run: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []
    peer_of = control.peer_of

    def another(sock: socket.socket) -> tuple[int, int]:
        seen.extend(peer_of(sock))
        return 1, 12345

    monkeypatch.setattr(control, "peer_of", another)

    async def main() -> None:
        async with controlled(folder) as there:
            with Client(there.path) as one:
                assert await one.told() == {"error": "this server is another user's"}
                assert await one.ended()

    run(main)
    assert seen == [os.getpid(), os.geteuid()]


def test_a_long_line(folder: Path, run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with controlled(folder) as there:
            with Client(there.path) as one:
                assert await one.ask(b" " * 10000 + b"\n") == {"error": "a request has at most 4096 bytes"}
                assert await one.ended()

    run(main)


def test_too_many_clients(folder: Path, run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with controlled(folder) as there:
            many = [Client(there.path) for _ in range(control.CLIENTS)]
            for one in many:
                assert await one.ask({"command": "status"})
            with Client(there.path) as one:
                assert await one.told() == {"error": "16 clients are connected already"}
                assert await one.ended()
            many.pop().sock.close()
            await eventually(lambda: "15 clients" in repr(there))
            with Client(there.path) as one:
                assert await one.ask({"command": "status"}) == {"result": {"pid": 1}}
            for one in many:
                one.sock.close()

    run(main)


def test_slow_clients_are_cut(folder: Path, run: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PATIENCE", 0.05)

    async def much() -> str:
        return "x" * 5_000_000

    async def stop() -> None:
        return

    async def main() -> None:
        async with controlled(folder, much=much, stop=stop) as there:
            with Client(there.path) as silent, Client(there.path) as slow, Client(there.path) as deaf:
                await slow.send(b'{"command"')
                await deaf.send(b'{"command": "much"}\n')
                assert await silent.ended()
                assert await slow.ended()
                await eventually(lambda: " 0 clients" in repr(there))
            with Client(there.path) as patient:  # it sees the end of the server
                assert await patient.ask({"command": "stop"}) == {"result": None}
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await patient.ended()
                await there.close()
                assert await patient.ended()

    run(main)


def test_a_handler_goes_on_without_its_client(folder: Path, run: Callable[[Main], None]) -> None:
    async def main() -> None:
        begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def reload() -> None:
            begun.set()
            await go.wait()
            done.set()

        async with controlled(folder, reload=reload) as there:
            with Client(there.path) as one:
                await one.send(b'{"command": "reload"}\n')
                await begun.wait()
                with Client(there.path) as other:
                    assert await other.ask({"command": "status"}) == {"result": {"pid": 1}}
            go.set()
            await done.wait()
            await eventually(lambda: " 0 clients" in repr(there))

    run(main)


def test_no_descriptors_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "RETRY", 0.01)
    tried = []

    async def main() -> None:
        accept = socket.socket.accept

        def accept_later(sock: socket.socket) -> Any:
            tried.append(sock)
            if len(tried) < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return accept(sock)

        monkeypatch.setattr(socket.socket, "accept", accept_later)
        async with controlled(folder) as there:
            with Client(there.path) as one:
                assert await one.ask({"command": "status"}) == {"result": {"pid": 1}}

    asyncio.run(main())
    assert 3 <= len(tried) <= 4


def test_who_waits_for_a_reply_at_the_end_has_it(folder: Path, run: Callable[[Main], None]) -> None:
    """Also who connected just before; who asks nothing holds nothing up for long."""

    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def slow() -> int:
            begun.set()
            await go.wait()
            return 7

        async with controlled(folder, slow=slow) as there:
            with Client(there.path) as one, Client(there.path) as idle:
                assert await idle.ask({"command": "status"})
                await one.send(b'{"command": "slow"}\n')
                await begun.wait()
                closing = asyncio.create_task(there.close())
                await asyncio.sleep(0)
                go.set()
                assert await one.told() == {"result": 7}
                await closing
                assert await idle.ended()

    run(main)


# the commands


def told(*arguments: str) -> str:
    """What a command that succeeds prints."""
    status, out, err = command(*arguments)
    assert (status, err) == (0, "")
    return out


def refused(*arguments: str) -> str:
    """What a command that fails says."""
    status, out, err = command(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("subpool: error: ")
    return err.removeprefix("subpool: error: ")


def test_status_scale_recycle_stop(folder: Path) -> None:
    with serve("--workers", "2") as served:
        assert served.get("/hello")[0] == 200
        lines = told("status").splitlines()
        assert f"pid {served.pid}" in lines[0]
        assert lines[1].startswith("ready, up ")
        assert lines[2] == f"http://127.0.0.1:{served.address[1]}"
        assert "pool 1: asgi_app:app in sub-interpreters" in lines
        assert [line.split()[:2] for line in lines if line[:1].isdigit() and "ready" in line] == [
            ["1", "ready"], ["2", "ready"],
        ]  # fmt: skip
        assert told("scale", "3") == "workers: 3\n"
        assert told("recycle", "2") == "recycled worker 2\n"
        status = json.loads(told("status", "--json"))
        assert (status["pid"], status["state"], status["requests"]) == (served.pid, "ready", 1)
        (pool,) = status["pools"]
        assert {worker["id"]: worker["generation"] for worker in pool["workers"] if worker["state"] != "stopping"} == {
            1: 1, 2: 2, 3: 1,
        }  # fmt: skip
        assert pool["recycled"] == 1
        assert refused("recycle", "9") == "there is no worker 9\n"
        assert command("scale", "0")[0] == 2
        assert told("stop") == "stopped\n"
        assert served.end() == 0
        assert os.listdir(folder) == []


def test_under_a_guard(folder: Path) -> None:
    """The socket has the guard's number; `stop` ends the guard too; a fresh server process takes over."""
    with serve("--guard", "--workers", "1") as served:
        assert served.get("/hello")[0] == 200
        status = json.loads(told("status", "--json"))
        assert (status["guard"], status["state"]) == (served.pid, "ready")
        assert status["pid"] != served.pid
        assert os.listdir(folder) == [f"{served.pid}.sock"]
        assert told("reload") == "reloaded\n"
        assert told("scale", "2") == "workers: 2\n"
        os.kill(status["pid"], signal.SIGKILL)
        served.wait_for("another is started")
        served.wait_for("is ready")
        again = json.loads(told("status", "--json"))
        assert (again["guard"], again["pid"] != status["pid"]) == (served.pid, True)
        assert told("stop") == "stopped\n"
        assert served.end() == 0
        assert os.listdir(folder) == []


def test_stop_drains(folder: Path, tmp_path: Path) -> None:
    gate = Fifo(tmp_path / "gate")
    here = Fifo(tmp_path / "here")
    (tmp_path / "waits.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        f"    with open({str(here)!r}, 'w') as pipe:\n        pipe.write('here')\n"
        f"    with open({str(gate)!r}) as pipe:\n        pipe.read(1)\n"
        "    start_response('200 OK', [])\n    return [b'done']\n"
    )
    try:
        with serve(app="waits:app", path=tmp_path) as served, served.asked("/") as peer:
            here.wait_sync()
            with subprocess.Popen([sys.executable, "-m", "subpool", "stop"], stdout=subprocess.PIPE, text=True,
                                  env=clean()) as stop:  # fmt: skip
                served.wait_for_state("draining")
                assert "draining" in told("status")
                assert refused("scale", "2") == "the server is draining\n"
                assert stop.poll() is None
                gate.release()
                assert answer(peer) == (200, "done")
                assert stop.communicate(timeout=DEADLINE)[0] == "stopped\n"
            assert served.end() == 0
    finally:
        gate.release(8)
        gate.close()
        here.close()


def test_reload_takes_the_new_code_or_keeps_the_old(folder: Path, tmp_path: Path) -> None:
    app = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'%s']\n"
    file = tmp_path / "page.py"
    file.write_text(app % "one")
    with serve(app="page:app", path=tmp_path, PYTHONDONTWRITEBYTECODE="1") as served:
        assert served.get("/") == (200, "one")
        file.write_text(app % "two")
        assert told("reload") == "reloaded\n"
        assert served.get("/") == (200, "two")
        file.write_text("import nothing_of_that_name\n")
        assert "No module named 'nothing_of_that_name'" in refused("reload")
        assert served.get("/") == (200, "two")


def test_which_server(folder: Path) -> None:
    assert refused("status").startswith("no server of yours runs here; --socket PATH names one")
    own = str(folder.parent / "own.sock")
    with serve() as one, serve() as two, serve("--control-socket", own) as three, serve("--control-socket", "none"):
        pids = {one.address and one.pid, two.address and two.pid}
        assert three.address
        paths = [str(folder / f"{pid}.sock") for pid in sorted(pids, key=str)]
        assert live_servers() == paths
        lines = refused("stop").splitlines()
        assert lines[0] == "several servers run; name one with --socket PATH:"
        assert [line.partition("  ")[0] for line in lines[1:]] == paths
        assert f"pid {one.pid}, http://127.0.0.1:{one.address[1]}" in "\n".join(lines)
        assert f"pid {three.pid}" in told("status", "--socket", own)
        one.process.send_signal(signal.SIGKILL)
        assert one.end() == -signal.SIGKILL
        assert f"pid {two.pid}" in told("status")
        assert os.listdir(folder) == [f"{two.pid}.sock"], "a dead server's socket is removed"
        status, out, err = command("stop", SUBPOOL_CONTROL_SOCKET=own)
        assert (status, out, err) == (0, "stopped\n", "")
        assert f"no server answers at {own}" in refused("status", "--socket", own)


def test_watch_ends_with_the_server(folder: Path) -> None:
    with serve() as served:
        assert served.address
        with subprocess.Popen([sys.executable, "-m", "subpool", "status", "--json", "--watch"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env=clean()) as watch:  # fmt: skip
            assert watch.stdout is not None
            states = [json.loads(watch.stdout.readline())["state"] for _ in range(2)]
            assert states == ["ready", "ready"]
            assert told("stop") == "stopped\n"
            _, err = watch.communicate(timeout=DEADLINE)
            assert watch.returncode == 1
            assert err.endswith("ended before it answered\n")


def test_no_place_for_a_socket(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with serve() as served:
        assert served.get("/hello")[0] == 200
        served.wait_for("WARNING subpool: there is no control socket: .*must be 0700")
        assert refused("status").startswith("no server of yours runs here")
    status, _, err = command("serve", "a:b", "--control-socket", "/nowhere/c.sock")
    assert status == 1
    assert err.endswith("subpool: error: cannot listen on unix:/nowhere/c.sock: No such file or directory\n")


def test_an_embedded_server(folder: Path) -> None:
    from http_kit import serving

    with serving():
        assert not folder.exists()
    path = str(folder.parent / "own.sock")
    with serving(control_socket=path) as site, Remote(path) as remote:
        assert remote.ask("status")["state"] == "ready"
        with pytest.raises(RemoteError, match="embedded"):
            remote.ask("stop")
        with pytest.raises(RemoteError, match="'2' is no whole number"):
            remote.ask("scale", workers="2")
        assert site.ask(b"GET / HTTP/1.0\r\n\r\n").status == 200


def test_a_server_that_does_not_answer(folder: Path) -> None:
    path = str(folder.parent / "deaf.sock")
    with control.listen(path, 0o600), Remote(path) as one, Remote(path) as two:
        with pytest.raises(RemoteError, match=r"did not answer within 0.05 s"):
            one.ask("status", 0.05)
        with pytest.raises(RemoteError, match=r"has not ended within 0.05 s"):
            two.wait_for_end(0.05)


def test_the_table() -> None:
    worker = {"id": 1, "state": "ready", "in_flight": 3, "served": 1200, "failed": 0, "restarts": 0, "p50": 0.0012,
              "p90": 0.1, "p99": 2.5, "rss": 31_400_000}  # fmt: skip
    pool = {"app": "site:app", "isolation": "process", "pending": 1, "refused": 2, "restarts": 3, "recycled": 4,
            "abandoned": 5, "workers": [worker, {**worker, "id": 12, "p50": None, "p90": None, "p99": None}],
            }  # fmt: skip
    status = {"version": "1.0", "python": "3.14.2", "pid": 7, "state": "ready", "uptime": 7500.0, "connections": 1,
              "addresses": ["http://127.0.0.1:80", "unix:/x"], "requests": 1200, "pools": [pool]}  # fmt: skip
    assert table(status) == (
        "subpool 1.0 on Python 3.14.2, pid 7\nready, up 2 h 5 min\nhttp://127.0.0.1:80, unix:/x\n"
        "1 connection, 1200 requests\n\npool 1: site:app in processes\n"
        "1 pending, 2 refused, 3 restarts, 4 recycled, 5 abandoned\n\n"
        "worker  state  in flight  served  failed  restarts     p50       p90        p99   memory\n"
        "1       ready          3    1200       0         0  1.2 ms  100.0 ms  2500.0 ms  31.4 MB\n"
        "12      ready          3    1200       0         0       -         -          -  31.4 MB"
    )
