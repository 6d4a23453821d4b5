"""What a running server can be asked and told: status, reload, recycle, scale; and its end, as clients see it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import DEADLINE, Fifo

pytest.importorskip("httptools")
pytest.importorskip("pydantic")

from http_kit import Site, get, serving

from subpool import PoolClosed
from subpool.restarts import FRESH

APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%s"})
"""


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[tuple[Site, Path]]:
    """A server of an app that the test changes."""
    file = tmp_path / "changing_app.py"
    file.write_text(APP % "old")
    with serving(app="changing_app:app", pythonpath=[str(tmp_path)], workers=2, lifespan="off") as site:
        yield site, file


def body(site: Site) -> bytes:
    return site.ask(get("/", "Connection: close")).body


def change(file: Path, text: str) -> None:
    file.write_text(text)
    os.utime(file, (1e9, 1e9))  # a cached .pyc is known by second and size


def test_status_is_plain_data() -> None:
    with serving(workers=2) as site, site.peer() as peer:
        assert peer.ask(get("/hello")).status == 200
        status = site.server.status()
        assert json.loads(json.dumps(status, allow_nan=False)) == status
        assert (status["pid"], status["state"], status["addresses"]) == (os.getpid(), "ready", site.addresses)
        assert (status["connections"], status["requests"]) == (1, 1)
        (pool,) = status["pools"]
        assert (pool["app"], pool["isolation"], pool["pending"]) == ("http_app:app", "subinterpreter", 0)
        assert [worker["id"] for worker in pool["workers"]] == [1, 2]
        assert {worker["state"] for worker in pool["workers"]} <= {"ready", "stalled"}
        assert pool["workers"][0]["p50"] is None or pool["workers"][1]["p50"] is None


def test_reload_serves_new_code(changing: tuple[Site, Path]) -> None:
    site, file = changing
    assert body(site) == b"old"
    change(file, APP % "new")
    assert site.call(site.server.reload()) is None
    assert body(site) == b"new"


def test_code_that_does_not_import_keeps_the_old_workers(changing: tuple[Site, Path]) -> None:
    site, file = changing
    change(file, "raise ZeroDivisionError('by hand')")
    reason = site.call(site.server.reload())
    assert "ZeroDivisionError: by hand" in reason
    assert body(site) == b"old"
    assert site.logged("not reloaded, the old workers stay")
    assert [one["generation"] for one in site.server.status()["pools"][0]["workers"]].count(1) == 2


def test_recycle_takes_the_number_of_a_worker() -> None:
    with serving(workers=2) as site:
        site.call(site.server.recycle(2))
        workers = site.server.status()["pools"][0]["workers"]
        assert [(worker["id"], worker["generation"]) for worker in workers] == [(1, 1), (2, 2)]
        with pytest.raises(ValueError, match="there is no worker 7"):
            site.call(site.server.recycle(7))


def test_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(workers=2) as site:
        told: list[int] = []
        crew = site.server.pools[0].engine.crew
        monkeypatch.setattr(crew, "scale", told.append, raising=False)
        assert [site.call(site.server.scale(4)), site.call(site.server.scale(delta=1))] == [[4], [3]]
        assert site.call(site.server.scale(delta=-5)) == [1], "one is left"
        assert told == [4, 3, 1]
        site.call(site.server.stop(0.0))
        with pytest.raises(PoolClosed, match="draining"):
            site.call(site.server.scale(4))


def test_threads_are_reloaded_by_a_fresh_process() -> None:
    with serving(isolation="thread") as site:
        assert "threads" in site.call(site.server.reload())
        asked: list[int] = []
        site.server.on_fresh = lambda: asked.append(1)
        assert site.call(site.server.reload()) is None
        assert asked == [1]


def test_without_a_guard_a_worn_out_server_drains() -> None:
    with serving() as site:
        server = site.server
        server.request_fresh()
        assert (server._stopping.is_set(), server._status) == (True, FRESH)


def test_a_connection_without_a_request_has_a_moment_at_the_end(fifo: Callable[[str], Fifo]) -> None:
    """Its request may be on its way: a client that was accepted is answered, or it was not accepted."""
    started, gate = fifo("started"), fifo("gate")
    with serving() as site, site.peer() as busy, ThreadPoolExecutor() as executor:
        busy.send(get(f"/gate?started={started}&gate={gate}"))
        started.wait_sync()
        with site.peer() as fresh:
            while site.server.status()["connections"] < 2:
                os.sched_yield()
            stopping = executor.submit(site.call, site.server.stop(DEADLINE))
            while site.server.state != "draining":
                os.sched_yield()
            reply = fresh.ask(get("/hello"))
            assert (reply.status, reply.get("connection")) == (200, "close")
            assert fresh.closed()
        gate.release()
        assert busy.reply().status == 200
        stopping.result(DEADLINE)


def test_a_silent_connection_does_not_hold_the_end() -> None:
    with serving() as site, site.peer() as silent:
        while site.server.status()["connections"] < 1:
            os.sched_yield()
        site.call(site.server.stop(20.0), 10.0)
        assert silent.closed()
