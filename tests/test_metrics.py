"""What those see who watch a server: /metrics, /healthz and /readyz, on a listener of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self

import pytest
from conftest import DEADLINE, Fifo, eventually
from http_kit import Reply, get, parse, request
from ops_kit import answer, clean, command, run_on, serve, short_folder

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("httptools")
pytest.importorskip("prometheus_client")

from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict_families
from prometheus_client.parser import text_string_to_metric_families as families

from subpool.http import metrics
from subpool.http.metrics import Metrics
from subpool.reception import Peer

Main = Callable[[], Coroutine[Any, Any, None]]


def worker(number: int, generation: int = 1, state: str = "ready", **more: Any) -> dict[str, Any]:
    made = {"id": number, "kind": "subinterpreter", "generation": generation, "state": state, "in_flight": 2,
            "served": 10, "failed": 1, "restarts": 0, "p50": None, "p90": None, "p99": None, "rss": None}  # fmt: skip
    return {**made, **more}


def status(*workers: dict[str, Any], state: str = "ready", **more: Any) -> dict[str, Any]:
    """What `Server.status` gives."""
    pool = {"app": "site:app", "isolation": "subinterpreter", "workers": list(workers), "pending": 3, "refused": 4,
            "abandoned": 5, "not_isolatable": 0, "taken_back": 6, "restarts": 7, "recycled": 8}  # fmt: skip
    return {"pid": 1, "state": state, "addresses": [], "connections": 9, "requests": 100, "pools": [pool], **more}


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    """Run a coroutine function on a loop of each kind."""
    return lambda main: run_on(request.param, main)


class Listening:
    """A listener of metrics, for as long as the block."""

    def __init__(self, given: Callable[[], dict[str, Any]] | None = None, bind: str = "127.0.0.1:0") -> None:
        async def now() -> dict[str, Any]:
            return given() if given is not None else status(worker(1))

        self.metrics = Metrics(bind, 0o600, now)

    async def __aenter__(self) -> Self:
        await self.metrics.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.metrics.close()

    def peer(self) -> Peer:
        peer = Peer(socket.create_connection(("127.0.0.1", int(self.metrics.address.rpartition(":")[2]))))
        peer.sock.setblocking(False)
        return peer

    async def ask(self, data: bytes, method: str = "GET") -> Reply:
        """The response to `data`; the server closes behind it."""
        peer = self.peer()
        with peer.sock:
            await peer.send(data)
            told = parse(await rest(peer), method, True)
        assert told is not None
        reply, _ = told
        assert reply.closes
        assert reply.whole
        return reply


async def rest(peer: Peer) -> bytes:
    data = b""
    while got := await asyncio.get_running_loop().sock_recv(peer.sock, 1 << 16):
        data += got
    return data


async def cut(peer: Peer) -> bool:
    """Whether the server ends the connection without a word."""
    with peer.sock:
        try:
            return await rest(peer) == b""
        except ConnectionResetError:
            return True


def samples(text: str) -> dict[str, float]:
    """The values, by name and labels."""
    found: dict[str, float] = {}
    for family in families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in found, f"{name} is there twice"
            found[name] = sample.value
    return found


# the listener


def test_the_three_paths(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Listening() as there:
            for path, body in (("/healthz", b"alive\n"), ("/readyz", b"ready\n"), ("/readyz?verbose", b"ready\n")):
                reply = await there.ask(get(path))
                assert (reply.status, reply.body) == (200, body)
                head = await there.ask(request("HEAD", path), "HEAD")
                assert (head.status, head.body, head.get("content-length")) == (200, b"", str(len(body)))
                reply = await there.ask(request("POST", path, body=b"x" * 100_000))
                assert (reply.status, reply.get("allow")) == (405, "GET, HEAD")
            for path in ("/", "/metrics/", "/nothing", "//healthz"):
                assert (await there.ask(get(path))).status == 404
            for wrong in (b"", b"GET /metrics", b"get /metrics HTTP/1.1", b"\x16\x03\x01", b"GET /a b HTTP/1.1",
                          b"GET http://x/metrics HTTP/1.1", b"GET /metrics HTTP/2.0"):  # fmt: skip
                assert (await there.ask(wrong + b"\r\n\r\n")).status == 400
            assert (await there.ask(get("/metrics", "X: " + "x" * 9000))).status == 431

    run(main)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (status(worker(1), state="starting"), b"starting\n"),
        (status(worker(1), state="draining"), b"draining\n"),
        (status(worker(1, state="stalled"), worker(2, state="starting")), b"no worker of pool 1 is ready\n"),
        (status(), b"no worker of pool 1 is ready\n"),
        (status(worker(1, state="stalled"), worker(2)), b""),
    ],
)
def test_readiness(given: dict[str, Any], why: bytes) -> None:
    async def main() -> None:
        async with Listening(lambda: given) as there:
            reply = await there.ask(get("/readyz"))
            assert (reply.status, reply.body) == ((503, why) if why else (200, b"ready\n"))
            assert (await there.ask(get("/healthz"))).status == 200
            shown = samples((await there.ask(get("/metrics"))).body.decode())
            assert shown["subpool_ready"] == (0 if why else 1)

    asyncio.run(main())


def test_a_status_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> dict[str, Any]:
        raise RuntimeError("hunter2")

    async def main() -> None:
        async with Listening(fail) as there:
            for path in ("/metrics", "/readyz"):
                reply = await there.ask(get(path))
                assert (reply.status, reply.body) == (500, b"Internal Server Error\n")

    asyncio.run(main())
    assert caplog.text.count("could not be answered") == 2


def test_slow_clients_and_too_many_are_cut(run: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PATIENCE", 0.2)

    async def main() -> None:
        async with Listening() as there:
            silent, slow, deaf = there.peer(), there.peer(), there.peer()
            await slow.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
            await deaf.send(get("/metrics"))
            assert await cut(silent)
            assert await cut(slow)
            await eventually(lambda: " 0 clients" in repr(there.metrics))
            deaf.sock.close()
            monkeypatch.setattr(metrics, "PATIENCE", DEADLINE)
            many = [there.peer() for _ in range(metrics.CLIENTS)]
            await eventually(lambda: f" {metrics.CLIENTS} clients" in repr(there.metrics))
            assert await cut(there.peer())
            for one in many:
                one.sock.close()
            await eventually(lambda: " 0 clients" in repr(there.metrics))
            assert (await there.ask(get("/healthz"))).status == 200

    run(main)


def test_addresses() -> None:
    async def main() -> None:
        async with Listening() as there:
            taken = there.metrics.address.removeprefix("http://")
            with pytest.raises(OSError, match=f"cannot listen on {taken}: Address already in use"):
                await Metrics(taken, 0o600, there.metrics._status).start()
        with short_folder() as folder:
            path = f"{folder}/metrics.sock"
            async with Listening(bind=f"unix:{path}") as there:
                assert os.stat(path).st_mode & 0o777 == 0o600
                peer = Peer(socket.socket(socket.AF_UNIX))
                with peer.sock:
                    peer.sock.connect(path)
                    peer.sock.setblocking(False)
                    await peer.send(get("/healthz"))
                    assert (await rest(peer)).endswith(b"\r\n\r\nalive\n")
            assert not os.path.exists(path)

    asyncio.run(main())


# what is exposed


def test_the_metrics() -> None:
    given = status(
        worker(1, 1, "stopping", p50=0.1, p90=0.2, p99=0.3), worker(1, 2, rss=1000),
        worker(2, 1, p50=1.0, p90=2.0, p99=3.0), worker(2, 2, p50=4.0, p90=5.0, p99=6.0),
    )  # fmt: skip

    async def main() -> None:
        async with Listening(lambda: given) as there:
            reply = await there.ask(get("/metrics"))
            assert (reply.get("content-type") or "").startswith("text/plain; version=")
            shown = samples(reply.body.decode())
            ours = {name: value for name, value in shown.items() if name.startswith("subpool_")}
            assert shown["process_resident_memory_bytes"] > 0 or sys.platform != "linux"
            latency = {name: value for name, value in ours.items() if "latency" in name}
            assert latency == {
                f"subpool_latency_seconds{{pool=1,quantile={quantile},worker={number}}}": value
                for number, values in ((1, (0.1, 0.2, 0.3)), (2, (4.0, 5.0, 6.0)))
                for quantile, value in zip(("0.5", "0.9", "0.99"), values, strict=True)
            }
            expected = {
                "subpool_ready": 1, "subpool_connections": 9, "subpool_requests_total": 100,
                "subpool_pool_info{app=site:app,isolation=subinterpreter,pool=1}": 1, "subpool_pending{pool=1}": 3,
                "subpool_in_flight{pool=1}": 8, "subpool_workers{pool=1,state=ready}": 3,
                "subpool_workers{pool=1,state=stopping}": 1, "subpool_workers{pool=1,state=starting}": 0,
                "subpool_refused_total{pool=1}": 4, "subpool_abandoned_total{pool=1}": 5,
                "subpool_taken_back_total{pool=1}": 6, "subpool_worker_restarts_total{pool=1}": 7,
                "subpool_worker_recycles_total{pool=1}": 8, "subpool_worker_resident_bytes{pool=1,worker=1}": 1000,
            }  # fmt: skip
            assert {name: ours[name] for name in expected} == expected
            reply = await there.ask(get("/metrics", "Accept: application/openmetrics-text; version=1.0.0"))
            assert (reply.get("content-type") or "").startswith("application/openmetrics-text")
            names = {family.name for family in strict_families(reply.body.decode())}
            assert {"subpool_requests", "subpool_workers"} <= names

    asyncio.run(main())


def test_it_costs_nothing_where_it_is_not_wanted() -> None:
    code = (
        "import asyncio, sys\nfrom subpool import Server, ServerConfig\n"
        "async def main():\n    server = Server(ServerConfig(app='asgi_app:app', workers=1, bind=['127.0.0.1:0']))\n"
        "    await server.start()\n    await server.stop(1)\n"
        "asyncio.run(main())\nassert not {'prometheus_client', 'subpool.http.metrics'} & set(sys.modules)"
    )
    path = str(Path(__file__).parent / "apps")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=25, cwd=path, env=clean(PYTHONPATH=path))


def test_without_prometheus_client() -> None:
    code = "import sys\nsys.modules['prometheus_client'] = None\nfrom subpool.cli import main\nsys.exit(main())"
    line = ["serve", "a:b", "--no-guard", "--metrics-bind", "127.0.0.1:0"]
    done = subprocess.run([sys.executable, "-c", code, *line], text=True, capture_output=True, timeout=25, check=False,
                          env=clean())  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    told = "metrics_bind: needs prometheus_client, which is not installed: pip install 'subpool[metrics]'"
    assert done.stderr == f"subpool: error: {told}\n"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("fd://3",), "--metrics-bind: is 'fd://3'; it must be HOST:PORT or unix:PATH"),
        (("9100",), "--metrics-bind: is '9100'; it must be HOST:PORT"),
        (("127.0.0.1:9100", "--bind", "127.0.0.1:9100"), "--metrics-bind: is '127.0.0.1:9100', which bind names"),
    ],
)
def test_wrong_addresses(given: tuple[str, ...], told: str) -> None:
    status, _, err = command("serve", "a:b", "--metrics-bind", *given)
    assert status == 1
    assert told in err


# a real server


def test_from_the_start_to_the_end(tmp_path: Path) -> None:
    gates = [Fifo(tmp_path / name) for name in ("import", "here", "answer")]
    importing, here, answering = gates
    (tmp_path / "gated.py").write_text(
        f"with open({str(importing)!r}) as pipe:\n    pipe.read(1)\n"
        "def app(environ, start_response):\n"
        f"    with open({str(here)!r}, 'w') as pipe:\n        pipe.write('here')\n"
        f"    with open({str(answering)!r}) as pipe:\n        pipe.read(1)\n"
        "    start_response('200 OK', [])\n    return [b'done']\n"
    )
    try:
        with serve("--metrics-bind", "127.0.0.1:0", app="gated:app", path=tmp_path) as served:
            assert served.get("/readyz", served.metrics) == (503, "starting\n")
            assert served.get("/healthz", served.metrics) == (200, "alive\n")
            importing.release()
            assert served.address
            assert served.get("/readyz", served.metrics) == (200, "ready\n")
            with served.asked("/") as peer:
                here.wait_sync()
                shown = samples(served.get("/metrics", served.metrics)[1])
                assert (shown["subpool_requests_total"], shown["subpool_connections"]) == (1, 1)
                assert shown["subpool_in_flight{pool=1}"] == 1
                served.process.terminate()
                served.wait_for("SIGTERM: draining")
                assert served.get("/readyz", served.metrics) == (503, "draining\n")
                assert served.get("/healthz", served.metrics) == (200, "alive\n")
                answering.release()
                assert answer(peer) == (200, "done")
            assert served.end() == 0
            with pytest.raises(ConnectionRefusedError):
                served.get("/healthz", served.metrics)
    finally:
        for gate in gates:
            gate.release(8)
            gate.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says which processes are its workers")
def test_a_worker_that_is_killed_is_counted() -> None:
    with serve("--metrics-bind", "127.0.0.1:0", "--isolation", "process") as served:
        assert served.get("/hello")[0] == 200
        shown = samples(served.get("/metrics", served.metrics)[1])
        assert shown["subpool_worker_restarts_total{pool=1}"] == 0
        assert shown["subpool_worker_resident_bytes{pool=1,worker=1}"] > 1e6
        assert shown["subpool_latency_seconds{pool=1,quantile=0.5,worker=1}"] >= 0  # of a clock that ticks
        children = [path.read_text().split() for path in Path(f"/proc/{served.pid}/task").glob("*/children")]
        (child,) = [int(pid) for pids in children for pid in pids]
        os.kill(child, signal.SIGKILL)
        end = time.monotonic() + DEADLINE
        while shown["subpool_worker_restarts_total{pool=1}"] != 1 or not shown["subpool_ready"]:
            assert time.monotonic() < end, shown
            shown = samples(served.get("/metrics", served.metrics)[1])
        assert served.get("/hello")[0] == 200
