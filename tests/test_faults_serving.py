"""What a server promises while it ends, renews itself, is full, lacks descriptors, or has a request that takes long.
Real processes under their guard, real clients.

Each test has a short form for every run and a full one for `make soak`.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import DEADLINE, KINDS

pytest.importorskip("click")
pytest.importorskip("httptools")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")

import proc_kit
from fault_kit import Clients, Outcome, quantile
from guard_kit import Command, background, until
from http_kit import Peer, get
from ops_kit import short_folder
from proc_kit import MB

from subpool.remote import Remote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

Figure = Callable[[str], None]


def full(*values: Any, seconds: float = 300.0) -> Any:
    """The parameters of a full form."""
    return pytest.param(*values, marks=[pytest.mark.soak, pytest.mark.timeout(seconds)])


def ms(outcomes: list[Outcome], share: float, status: int = 200) -> str:
    """The time within which that share of the answers with `status` came."""
    return f"{quantile(outcomes, share, status) * 1000:.1f} ms"


class Operated:
    """A server, and what it says of itself."""

    def __init__(self, server: Command, path: str) -> None:
        self.server = server
        self.port = server.port
        self._path = path

    def status(self) -> dict[str, Any]:
        with Remote(self._path) as remote:
            return dict(remote.ask("status", DEADLINE))

    def workers(self) -> list[dict[str, Any]]:
        (pool,) = self.status()["pools"]
        return list(pool["workers"])

    def in_flight(self) -> int:
        return sum(worker["in_flight"] for worker in self.workers())

    def pid(self) -> int:
        """Of the server's process, not the guard's."""
        return int(self.status()["pid"])


@contextlib.contextmanager
def operated(app: str, *options: str) -> Iterator[Operated]:
    with short_folder() as folder:
        path = str(folder / "control")
        with Command(f"serving_app:{app}", "--control-socket", path, *options) as server:
            yield Operated(server, path)


# TERM

ENDINGS = [("asgi", "subinterpreter"), ("wsgi", "process")]
MORE_ENDINGS = [(app, kind) for app in ("asgi", "wsgi") for kind in KINDS]


@pytest.mark.parametrize(
    ("app", "isolation", "drain", "late"),
    [*[(*one, 2.2, 8.0) for one in ENDINGS], *[full(*one, 10.0, 1.0) for one in MORE_ENDINGS]],
)
def test_term_finishes_what_can_be_finished(
    app: str, isolation: str, drain: float, late: float, figure: Figure
) -> None:
    """Of a request that takes 1.5 s and one that takes 600: the first is answered, the second is cut in time."""
    options = ("--isolation", isolation, "--workers", "2", "--graceful-timeout", f"{drain}", "--timeout", "700")
    with operated(app, *options) as site:
        server = site.server
        with (
            background(lambda: server.get("/sleep?1.5")) as short,
            background(lambda: server.fails("/sleep?600")) as long,
        ):
            until(lambda: site.in_flight() == 2)
            begin = time.monotonic()
            server.signal(signal.SIGTERM)
            until(server.refuses)
            refused = time.monotonic() - begin
            assert short() == "done"
            answered = time.monotonic() - begin
            assert server.wait() == 0
            ended = time.monotonic() - begin
            long()
        figure(
            f"refused after {refused * 1000:.0f} ms, answered after {answered:.2f} s, "
            f"ended {ended - drain:+.2f} s from graceful_timeout"
        )
        assert refused < answered
        assert ended < drain + late


# HUP, and workers whose time has come


class Watch:
    """How few workers were ready while it looked."""

    def __init__(self, site: Operated) -> None:
        self.fewest = 1000
        self.looks = 0
        self._site = site
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            ready = {one["id"] for one in self._site.workers() if one["state"] in ("ready", "stalled")}
            self.fewest = min(self.fewest, len(ready))
            self.looks += 1

    def end(self) -> None:
        self._over.set()


@pytest.mark.parametrize("seconds", [3.0, full(30.0)])
@pytest.mark.parametrize("isolation", ["subinterpreter", "process"])
def test_renewal_under_load_fails_no_request(isolation: str, seconds: float, figure: Figure) -> None:
    """By HUP and by max_requests at once; there are never fewer workers than `min`."""
    options = ("--isolation", isolation, "--workers", "2-3", "--max-requests", "200", "--max-requests-jitter", "50",
               "--max-restarts", "1")  # fmt: skip
    with operated("asgi", *options) as site, ThreadPoolExecutor(1) as executor:
        watch = Watch(site)
        watching = executor.submit(watch.run)
        reloads = 0
        try:
            with Clients(site.port, lambda number: f"/sleep?{number % 7 / 1000}", clients=16) as clients:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    clients.more(800)  # so that workers' requests are counted out too
                    site.server.signal(signal.SIGHUP)
                    reloads += 1
                    site.server.said("INFO subpool: reloaded: ", reloads)
        finally:
            watch.end()
        watching.result(DEADLINE)
        (pool,) = site.status()["pools"]
        figure(
            f"{len(clients.outcomes)} requests, {len(clients.failures)} failed, p99 {ms(clients.outcomes, 0.99)}; "
            f"{reloads} reloads, {pool['recycled']} workers replaced; "
            f"of min=2 never fewer than {watch.fewest} ready in {watch.looks} looks"
        )
        assert clients.failures == []
        assert watch.fewest >= 2
        assert pool["recycled"] >= 2 * reloads
        assert site.server.said("is replaced: it has served")
        until(lambda: sorted(one["id"] for one in site.workers()) in ([1, 2], [1, 2, 3]))
        assert [line for line in site.server.lines if " INFO " not in line] == []


# a full queue


@pytest.mark.parametrize(("seconds", "late"), [(2.0, 1.0), full(30.0, 0.05)])
def test_a_full_queue_refuses_at_once(seconds: float, late: float, figure: Figure) -> None:
    """Without a wait and without growing; what was taken is answered."""
    options = ("--max-pending", "8", "--max-concurrency", "1", "--window", "1")
    with operated("wsgi", *options) as site:
        pid = site.pid()
        with Clients(site.port, "/sleep?0.05", clients=60, every=0.1) as clients:
            clients.go_on(seconds / 3)
            before = proc_kit.rss(pid)
            seen = clients.go_on(seconds)
            after = proc_kit.rss(pid)
        refused = [one for one in seen if one.status == 503]
        figure(
            f"{len(refused)} of {len(seen)} refused, p50 {ms(refused, 0.5, 503)}, p99 {ms(refused, 0.99, 503)}; "
            f"RSS {before / MB:.1f} -> {after / MB:.1f} MB"
        )
        assert {one.status for one in clients.outcomes} == {200, 503}
        assert len(refused) > len(seen) / 2
        assert all(one.retry_after.isdigit() for one in refused)
        assert quantile(refused, 0.99, 503) < late
        assert after - before < 4 * MB
        assert site.server.get("/done") == "done"


# no descriptors left


@pytest.mark.parametrize("seconds", [1.5, full(15.0)])
def test_without_descriptors_it_serves_on_and_does_not_spin(seconds: float, figure: Figure) -> None:
    with (
        operated("asgi", "--keepalive-timeout", "600", "--head-timeout", "600") as site,
        contextlib.ExitStack() as stack,
    ):
        pid, address = site.pid(), ("127.0.0.1", site.port)
        lowest, highest = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(proc_kit.descriptors(pid)) + 10, highest))
        peers = [stack.enter_context(Peer(address)) for _ in range(40)]
        site.server.said("no connections are accepted for the moment")
        begin, used = time.monotonic(), proc_kit.cpu(pid)
        answered = 0
        while time.monotonic() - begin < seconds:
            assert peers[answered % 8].ask(get("/done")).body == b"done"
            answered += 1
            assert peers[-1].quiet(0.1)
        used = proc_kit.cpu(pid) - used
        for peer in peers[:20]:
            peer.socket.close()
        begin = time.monotonic()
        fresh = stack.enter_context(Peer(address))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, highest))
        for peer in (*peers[20:], fresh):
            assert peer.ask(get("/done")).body == b"done"
        figure(
            f"{answered} answers on open connections in {seconds:g} s, {used / seconds:.1%} of a processor; "
            f"21 that waited were served {time.monotonic() - begin:.2f} s after there were descriptors"
        )
        assert used < 0.3 * seconds
        assert len([line for line in site.server.lines if " ERROR " in line]) == 1


# a request that takes long


LONG = [("wsgi", "/sleep", "subinterpreter"), ("asgi", "/burn", "subinterpreter"), ("asgi", "/burn", "thread")]
MORE_LONG = [(*one, kind) for one in (("wsgi", "/sleep"), ("asgi", "/burn")) for kind in KINDS]


@pytest.mark.parametrize(
    ("app", "path", "isolation", "seconds", "beat"),
    [*[(*one, 2.4, 1.0) for one in LONG], *[full(*one, 20.0, 5.0) for one in MORE_LONG]],
)
def test_a_long_request_is_no_silence(
    app: str, path: str, isolation: str, seconds: float, beat: float, figure: Figure
) -> None:
    """It is judged by `timeout`, not by heartbeats; others are served meanwhile."""
    options = ("--isolation", isolation, "--workers", "2", "--timeout", "60", "--heartbeat-timeout", f"{beat}")
    with operated(app, *options) as site:
        pids = {site.server.get("/pid") for _ in range(8)}
        limit = seconds + DEADLINE
        with background(lambda: site.server.get(f"{path}?{seconds}", limit), limit) as asked:
            until(lambda: site.in_flight() == 1)
            with Clients(site.port, "/done", clients=2, every=0.05) as clients:
                assert asked() == "done"
        figure(
            f"{seconds:g} s with heartbeat_timeout {beat:g} s; meanwhile {len(clients.outcomes)} others, "
            f"p50 {ms(clients.outcomes, 0.5)}, p99 {ms(clients.outcomes, 0.99)}"
        )
        assert clients.failures == []
        assert {one["generation"] for one in site.workers()} == {1}
        assert {site.server.get("/pid") for _ in range(8)} <= pids
        assert [line for line in site.server.lines if " INFO " not in line] == []
