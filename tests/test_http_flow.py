"""Bytes in motion: back-pressure both ways, clients that leave, uploads, events, and many connections at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("httptools")

from conftest import Fifo
from http_kit import (
    SITES,
    Peer,
    Reply,
    Site,
    chunked,
    get,
    last,
    process,
    replies,
    request,
    script,
    serving,
    site_name,
)

MB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module", params=SITES, ids=site_name)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for each interface on two kinds of worker."""
    interface, isolation, loop = request.param
    with serving(interface, isolation, loop, unix=str(tmp_path_factory.mktemp("flow") / "s")) as site:
        yield site


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def asgi(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving("asgi", loop=request.param, unix=str(tmp_path_factory.mktemp("flow") / "s")) as site:
        yield site


@pytest.fixture(scope="module")
def wsgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving("wsgi", unix=str(tmp_path_factory.mktemp("flow") / "s")) as site:
        yield site


def reset(peer: Peer) -> None:
    """Leave with RST in place of FIN."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()


def wait_for(fifo: Fifo, mark: bytes, *marks: bytes) -> bytes:
    """Read what the app reports until all marks are there."""
    got = b""
    while not all(one in got for one in (mark, *marks)):
        got += fifo.wait_sync()
    return got


# app to client


def test_an_app_waits_for_a_slow_reader(site: Site, fifo: Callable[[str], Fifo]) -> None:
    """`send()` waits, a generator is not asked for more; others are served; the end is an OSError, or close()."""
    started, report = fifo("started"), fifo("report")
    with site.peer(receive_buffer=65536) as peer:
        peer.send(get(f"/endless?started={started}&report={report}"))
        started.wait_sync()
        if site.interface == "asgi":
            for _ in range(20):
                assert site.ask(get("/hello")).status == 200
        select.select([], [], [], 0.2)  # it would send 100 MB meanwhile
        assert report.empty()
    said = json.loads(report.wait_sync())
    sent, how = said if isinstance(said, list) else (said, "os")
    assert how == "os"
    assert sent < 24 * MB // 65536
    assert site.ask(get("/hello")).status == 200


def test_a_slow_reader_gets_everything(site: Site) -> None:
    """What was held back comes, whole and in order."""
    body = os.urandom(2 * MB)
    streamed = script(["start", 200], *[["big", 50000, True]] * 40, ["body", "end"])
    with site.peer(receive_buffer=8192) as peer:
        sender = threading.Thread(target=peer.send, args=(request("POST", "/echo", body=body) + streamed + last(),))
        sender.start()
        assert select.select([peer.socket], [], [], 10)[0]
        data = b""
        while got := peer.socket.recv(3000):
            data += got
        sender.join()
    assert [one.body for one in replies(data)] == [body, b"b" * 2_000_000 + b"end", b"Hello, World!"]


def test_a_large_body_in_one_message_is_not_held_up_by_others(asgi: Site) -> None:
    with asgi.peer(receive_buffer=8192) as peer:
        peer.send(get(f"/big?{20 * MB}"))
        assert select.select([peer.socket], [], [], 10)[0]
        for _ in range(10):
            assert asgi.ask(get("/hello")).status == 200
        assert len(peer.reply().body) == 20 * MB
        assert peer.ask(get("/hello")).status == 200


def test_pipelining_is_bounded(site: Site) -> None:
    """A client that asks and does not read: the server stops answering ahead, and mixes nothing up."""
    site.journal()
    with site.peer(receive_buffer=8192) as peer:
        peer.send(b"".join(get(f"/big?{50_000 + number}") for number in range(1000)))
        calls = 0
        while more := len(site.journal()):
            calls += more
            assert peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            select.select([], [], [], 0.1)  # nothing tells that it has stopped
        assert calls < 400  # 20 MB
        for number in range(calls + 100):
            assert len(peer.reply().body) == 50_000 + number
    assert site.ask(get("/hello")).status == 200


# client to app


def test_an_upload_comes_as_it_is_sent(asgi: Site, fifo: Callable[[str], Fifo]) -> None:
    report = fifo("report")
    steps: list[list[Any]] = [["tell", str(report)]] * 3 + [["start", 200], ["body", "done"]]
    data = script(*steps, method="POST", headers=["Transfer-Encoding: chunked", "Connection: close"])
    with asgi.peer() as peer:
        peer.send(data)
        for size in (5, 70):
            peer.send(b"%x\r\n%s\r\n" % (size, b"x" * size))
            assert report.wait_sync() == b"http.request %d;" % size
            assert peer.quiet(0.01)
        peer.send(b"0\r\n\r\n")
        assert report.wait_sync() == b"http.request 0;"
        assert peer.reply().body == b"done"


def test_a_wsgi_upload_comes_as_it_is_sent(wsgi: Site, fifo: Callable[[str], Fifo]) -> None:
    report = fifo("report")
    steps: list[list[Any]] = [["readline", str(report)]] * 2 + [["start", 200], ["body", "done"]]
    with wsgi.peer() as peer:
        peer.send(script(*steps, method="POST", headers=["Transfer-Encoding: chunked", "Connection: close"]))
        for text in (b"one\n", b"second\n"):
            peer.send(b"%x\r\n%s\r\n" % (len(text), text))
            assert report.wait_sync() == text
        peer.send(b"0\r\n\r\n")
        assert peer.reply().body == b"done"


def test_large_uploads(site: Site) -> None:
    """64 MB, counted piece by piece; the messages of ASGI are of bounded size."""
    block = os.urandom(MB)
    size = 64 * MB
    digest = hashlib.sha256()
    for _ in range(64):
        digest.update(block)
    path = "/digest" if site.interface == "asgi" else "/sizes"
    with site.peer() as peer:
        peer.send(request("POST", path, f"Content-Length: {size}"))
        for _ in range(64):
            peer.send(block)
        told = json.loads(peer.reply().body)
        if site.interface == "asgi":
            assert (told[0], told[2]) == (size, digest.hexdigest())
            assert told[1] <= 2 * MB
        else:
            assert told == size
        assert peer.ask(get("/hello")).status == 200


def test_an_app_that_answers_without_reading(site: Site) -> None:
    """The answer comes; what follows is the next request's answer, or the connection is closed."""
    for size in (10, 100_000, 8 * MB):
        for coded in (False, True):
            body = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * (size // 36 + 1)
            data = chunked("/hello", body) if coded else request("POST", "/hello", body=body)
            site.journal()
            with site.peer() as peer:
                sender = threading.Thread(target=peer.send, args=(data + last(),))
                sender.start()
                found = replies(peer.rest())
                sender.join()
            assert [(one.status, one.body) for one in found] in (
                [(200, b"Hello, World!")] * 2, [(200, b"Hello, World!")],
            )  # fmt: skip
            assert not [call for call in site.journal() if "smuggled" in call]


def test_a_small_body_that_comes_slowly_holds_nobody_up(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(site.peer()) for _ in range(20)]
        for number, peer in enumerate(slow):
            peer.send(request("POST", "/echo", "Content-Length: 10") + b"x" * (number % 10))
        for _ in range(20):
            assert site.ask(get("/hello")).status == 200
        for number, peer in enumerate(slow):
            peer.send(b"y" * (10 - number % 10))
            assert peer.reply().body == b"x" * (number % 10) + b"y" * (10 - number % 10)


def test_slow_clients_hold_nobody_up(asgi: Site, fifo: Callable[[str], Fifo]) -> None:
    """Slow heads, slow bodies, clients that do not read: others are served at once."""
    started = fifo("started")
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(asgi.peer()).send(b"GET /hello HTTP/1.1\r\nHos")
            stack.enter_context(asgi.peer()).send(chunked("/echo", b"hello", end=b"5\r\nhe"))
            stack.enter_context(asgi.peer()).send(request("POST", "/echo", "Content-Length: 100000") + b"x" * 50000)
        for _ in range(5):
            peer = stack.enter_context(asgi.peer(receive_buffer=8192))
            peer.send(get(f"/endless?started={started}"))
            started.wait_sync()
        begin = time.monotonic()
        for _ in range(50):
            assert asgi.ask(get("/hello")).status == 200
        assert time.monotonic() - begin < 5.0


# memory: more of it in `test_http_memory`


def memory(pid: int, field: str) -> int:
    """Bytes of a field of /proc/<pid>/status, as VmRSS or VmHWM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


LIMIT = 32 * MB


@linux
@pytest.mark.parametrize("path", ["/tiny", "/hint-flood"])
@pytest.mark.parametrize("app", ["http_app:app", "http_wsgi:app"])
def test_memory_of_small_pieces_that_nobody_reads(app: str, path: str, fifo: Callable[[str], Fifo]) -> None:
    """Bytes are not all that a piece weighs."""
    report = fifo("report")
    with process(app=app, workers=2) as (child, address), contextlib.ExitStack() as stack:
        peer = stack.enter_context(Peer(address))
        assert peer.ask(get("/hello")).status == 200
        before = memory(child.pid, "VmRSS")
        stuck = stack.enter_context(Peer(address, receive_buffer=8192))
        stuck.send(get(f"{path}?report={report}"))
        with contextlib.suppress(TimeoutError):
            for _ in range(2):
                report.wait_sync(1.0)
        assert memory(child.pid, "VmHWM") - before < LIMIT
        assert peer.ask(get("/hello")).status == 200
        reset(stuck)


@linux
def test_memory_of_a_file(tmp_path: Path) -> None:
    """256 MB that the kernel sends: to a client that does not read, and to one that does."""
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.truncate(256 * MB)
    with process(app="http_wsgi:app") as (child, address), Peer(address) as peer:
        assert peer.ask(get("/hello")).status == 200
        before = memory(child.pid, "VmRSS")
        with Peer(address, receive_buffer=8192) as stuck:
            stuck.send(get(f"/real-file?path={file}"))
            stuck.until(b"\r\n\r\n")
            assert peer.ask(get("/hello")).status == 200
        peer.send(get(f"/real-file?path={file}", "Connection: close"))
        got = 0
        while count := len(peer.socket.recv(MB)):
            got += count
        assert got > 256 * MB
        assert memory(child.pid, "VmHWM") - before < LIMIT


# clients that leave


@pytest.mark.parametrize("leave", [lambda peer: peer.socket.close(), reset], ids=["fin", "rst"])
def test_an_app_hears_of_the_disconnect(asgi: Site, fifo: Callable[[str], Fifo], leave: Callable[[Peer], None]) -> None:
    for number, (data, messages) in enumerate((
        (get("/listen?started={}&report={}"), [b"http.request 0 False;"]),
        (request("POST", "/listen?started={}&report={}", body=b"hello"), [b"http.request 5 False;"]),
        (request("POST", "/listen?started={}&report={}", "Content-Length: 100000") + b"x" * 50000, [b"True;"]),
        (chunked("/listen?started={}&report={}", b"hello", end=b""), [b"http.request 5 True;"]),
        (chunked("/listen?started={}&report={}", b"hello", end=b"5\r\nhe"), [b"True;"]),
    )):  # fmt: skip
        started, report = fifo(f"started{number}"), fifo(f"report{number}")
        first, second = (str(one).encode() for one in (started, report))
        with asgi.peer() as peer:
            peer.send(data.replace(b"{}", first, 1).replace(b"{}", second, 1))
            started.wait_sync()
            got = wait_for(report, *messages)
            leave(peer)
            got += wait_for(report, b"http.disconnect;") if b"disconnect" not in got else b""
            assert got.count(b"False;") == (1 if b"False" in messages[0] else 0)
            assert got.endswith(b"http.disconnect;")
    assert asgi.ask(get("/hello")).status == 200


def test_send_raises_when_the_client_has_left(asgi: Site, fifo: Callable[[str], Fifo]) -> None:
    started, told, report = fifo("started"), fifo("told"), fifo("report")
    steps: list[list[Any]] = [
        ["signal", str(started)], ["read"], ["tell", str(told)], ["start", 200], ["body", "x", True], ["body", "y"],
    ]  # fmt: skip
    with asgi.peer() as peer:
        peer.send(script(*steps, report=report))
        started.wait_sync()  # an app that has not begun is not run for a client that has left
    assert told.wait_sync() == b"http.disconnect 0;"
    assert report.wait_sync() in (b"start OSError", b"body OSError")


def test_a_client_that_leaves_is_no_error_of_the_app(asgi: Site, fifo: Callable[[str], Fifo]) -> None:
    """Nothing at level ERROR: clients leave every day."""
    asgi.records.clear()
    started, report = fifo("started"), fifo("report")
    with asgi.peer() as peer:
        peer.send(get(f"/endless?started={started}&report={report}"))
        started.wait_sync()
    report.wait_sync()
    assert asgi.ask(get("/hello")).status == 200
    assert [record.getMessage() for record in asgi.records if record.levelname == "ERROR"] == []


def test_wsgi_input_of_a_client_that_left(wsgi: Site, fifo: Callable[[str], Fifo]) -> None:
    """An OSError, not a short body; close() is called once, and the worker is free."""
    for number, data in enumerate((b"Content-Length: 100000", b"Transfer-Encoding: chunked")):
        started, report, closed = (fifo(f"{name}{number}") for name in ("started", "report", "closed"))
        steps = [["signal", str(started)], ["read"], ["start", 200], ["body", "x"]]
        with wsgi.peer() as peer:
            peer.send(script(*steps, method="POST", headers=[data], report=report, closed=closed))
            peer.send(b"5\r\nhello\r\n")
            started.wait_sync()
        assert report.wait_sync() == b"read OSError"
        assert closed.wait_sync() == b"c"
        assert wsgi.ask(get("/hello")).status == 200
        assert closed.empty()


def test_wsgi_close_on_disconnect(wsgi: Site, fifo: Callable[[str], Fifo]) -> None:
    started, report = fifo("started"), fifo("report")
    with wsgi.peer(receive_buffer=8192) as peer:
        peer.send(get(f"/endless?started={started}&report={report}"))
        started.wait_sync()
        reset(peer)
    assert int(report.wait_sync()) < 24 * MB // 65536
    assert wsgi.ask(get("/hello")).status == 200
    assert report.empty()


def test_a_client_that_leaves_while_it_waits_is_not_served(wsgi: Site, fifo: Callable[[str], Fifo]) -> None:
    """Its request has not begun: the app is not called for nobody."""
    started, gate = fifo("started"), fifo("gate")
    wsgi.journal()
    with wsgi.peer() as busy:
        busy.send(get(f"/block?started={started}&gate={gate}"))
        started.wait_sync()
        for _ in range(5):
            with wsgi.peer(unix=True) as peer:
                peer.send_pieces([get("/hello?gone")])
        probe = wsgi.peer()
        probe.send(get("/hello"))
        gate.release()
        assert busy.reply().body == b"through"
        assert probe.reply().status == 200
        probe.socket.close()
    assert wsgi.journal() in (["GET /block", "GET /hello"], ["GET /block", *["GET /hello"] * 2])


@pytest.mark.parametrize("leave", [lambda peer: peer.socket.close(), reset], ids=["fin", "rst"])
@pytest.mark.parametrize("path", ["/spin", "/block"])
def test_a_client_that_leaves_does_not_lift_the_clock(
    fifo: Callable[[str], Fifo], leave: Callable[[Peer], None], path: str
) -> None:
    """A handler that never ends is ended by `timeout`, whether somebody waits for it or not."""
    started, gate = fifo("started"), fifo("gate")
    with serving("wsgi", timeout=0.5, grace=0.2) as site:
        with site.peer() as peer:
            peer.send(get(f"{path}?started={started}&gate={gate}"))
            started.wait_sync()
            leave(peer)
        end = time.monotonic() + 5.0
        while site.ask(get("/hello")).status != 200:
            assert time.monotonic() < end


def test_a_client_that_leaves_while_the_app_is_imported(
    monkeypatch: pytest.MonkeyPatch, fifo: Callable[[str], Fifo]
) -> None:
    """The worker learns it, and does not wait for the rest of that body for ever."""
    started, gate = fifo("started"), fifo("gate")
    monkeypatch.setenv("HTTP_LATE_STARTED", str(started))
    monkeypatch.setenv("HTTP_LATE_GATE", str(gate))
    with serving("wsgi", app="http_late:app", preload_app=False) as site:
        with site.peer() as peer:
            peer.send(chunked("/echo", b"x" * 60, end=b""))
            started.wait_sync()
        gate.release()
        with site.peer() as peer:
            peer.socket.settimeout(5.0)
            assert peer.ask(get("/hello")).status == 200


def test_half_closed_clients(site: Site) -> None:
    """A client that shuts down its side has left, or is answered; half a request is none."""
    with site.peer() as peer:
        peer.send(get("/hello"))
        peer.socket.shutdown(socket.SHUT_WR)
        found = replies(peer.rest(3.0))  # it does not wait for a next request
        assert [one.body for one in found] in ([b"Hello, World!"], [])
    with site.peer() as peer:
        peer.send(request("POST", "/echo", "Content-Length: 10") + b"hello")
        peer.socket.shutdown(socket.SHUT_WR)
        assert [one.status for one in replies(peer.rest())] in ([], [400])


def test_calls_that_fail_give_their_places_back(fifo: Callable[[str], Fifo]) -> None:
    """Whether they raised or their clients left: `max_concurrency` counts what runs."""
    gate, started, report = fifo("gate"), fifo("started"), fifo("report")
    with serving("asgi", max_concurrency=2) as site:
        for _ in range(5):
            gate.release()
            assert site.ask(script(["wait", str(gate)], ["fail"])).status == 500
            with site.peer(receive_buffer=8192) as peer:
                peer.send(get(f"/endless?started={started}&report={report}"))
                started.wait_sync()
            report.wait_sync()
        assert site.ask(get("/hello")).status == 200


# events


def test_events(asgi: Site, fifo: Callable[[str], Fifo]) -> None:
    """Server-sent events: each is with the client before the next is made."""
    gate = fifo("gate")
    with asgi.peer() as peer:
        peer.send(get(f"/events?gate={gate}&count=3", "Accept: text/event-stream", "Connection: close"))
        head = peer.until(b"\r\n\r\n")
        assert b"content-type: text/event-stream" in head.lower()
        for number in range(3):
            assert peer.quiet(0.01)
            gate.release()
            assert b"id: %d\n" % number in peer.until(b"data: event %d\n\n\r\n" % number)
        assert peer.rest() == b"0\r\n\r\n"


def test_many_listeners(asgi: Site, fifo: Callable[[str], Fifo]) -> None:
    gate, report = fifo("gate"), fifo("report")
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(asgi.peer()) for _ in range(40)]
        for peer in peers:
            peer.send(get(f"/events?gate={gate}&count=2&report={report}"))
        for peer in peers:
            peer.until(b"\r\n\r\n")
        gate.release(80)
        for peer in peers[:20]:
            peer.socket.close()
        for peer in peers[20:]:
            peer.until(b"event 0\n\n")
        assert asgi.ask(get("/hello")).status == 200


# many at once


def test_answers_reach_the_ones_who_asked(site: Site) -> None:
    """Many connections, pipelined, with bodies of all sizes: nobody gets another's answer."""

    def client(number: int) -> None:
        with site.peer(unix=number % 2 == 0) as peer:
            for turn in range(20):
                bodies = [b"%d-%d-%d " % (number, turn, place) * (1, 10, 4000)[place] for place in range(3)]
                sender = threading.Thread(
                    target=peer.send, args=(b"".join(request("POST", "/echo", body=body) for body in bodies),)
                )
                sender.start()
                for body in bodies:
                    assert peer.reply().body == body
                sender.join()

    with ThreadPoolExecutor(12) as executor:
        list(executor.map(client, range(12)))


def test_connections_come_and_go(site: Site) -> None:
    """300 connections, a third of which leave at every possible place."""
    data = request("POST", "/echo", body=b"hello")
    for number in range(300):
        with site.peer() as peer:
            if number % 3:
                peer.send(data[: number % len(data)])
                if number % 2:
                    reset(peer)
            else:
                assert peer.ask(data).body == b"hello"
    assert site.ask(get("/hello")).status == 200


def test_two_workers_share_the_work(fifo: Callable[[str], Fifo]) -> None:
    """One blocked handler holds no other connection up."""
    started, gate = fifo("started"), fifo("gate")
    with serving("wsgi", workers=2) as site, site.peer() as busy:
        busy.send(get(f"/block?started={started}&gate={gate}"))
        started.wait_sync()
        found: list[Reply] = [site.ask(get("/worker")) for _ in range(20)]
        assert {one.status for one in found} == {200}
        gate.release()
        assert busy.reply().body == b"through"
