"""Hooks on the server over HTTP/1.1: what they change, answer and break off, and what they leave alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("httptools")

from conftest import Fifo
from hooks_kit import Doing
from http_kit import SITES, Peer, Reply, Site, chunked, get, replies, request, script, seen, serving, site_name

from subpool import Hooks, Request, ResponseHead


class Hooked(Site):
    """A server whose hooks do what is asked of them."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self.doing = Doing(*(one["prefix"] for one in options.get("mounts", ()) if one["prefix"] != "/"))
        super().__init__(*given, host_hooks=self.doing.hooks, **options)

    def gate(self, name: str = "gate") -> Any:
        return self.doing.gate(name)

    def told(self) -> list[tuple[Any, ...]]:
        found, self.doing.told[:] = list(self.doing.told), []
        return found


@contextlib.contextmanager
def hooked(*given: Any, **options: Any) -> Iterator[Hooked]:
    site = Hooked(*given, **options)
    try:
        yield site
    finally:
        site.stop()


@pytest.fixture(scope="module", params=SITES, ids=site_name)
def site(request: pytest.FixtureRequest) -> Iterator[Hooked]:
    with hooked(*request.param) as site:
        yield site


@pytest.fixture(scope="module")
def asgi() -> Iterator[Hooked]:
    with hooked("asgi", access_log="common") as site:
        yield site


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> None:
    for name in ("site", "asgi"):
        if name in request.fixturenames:
            request.getfixturevalue(name).journal()
            request.getfixturevalue(name).told()


def is_own(reply: Reply) -> bool:
    """Whether it is `hooks_kit.OWN`, framed by the server."""
    return (reply.status, reply.body, reply.get("x-by"), reply.framing) == (418, b"by a hook", "hook", "length")


def again(peer: Peer) -> None:
    """The connection is as good as new, and no hook has left anything."""
    reply = peer.ask(get("/hello"))
    assert (reply.status, reply.body) == (200, b"Hello, World!")
    assert not {name for name, _ in reply.headers} - {"content-type", "content-length", "date"}


# which way requests go


def test_without_hooks_connections_are_the_plain_ones() -> None:
    from subpool.http.h1 import H1
    from subpool.http.h1_hooked import HookedH1
    from subpool.http.h1_responding import RespondingH1
    from subpool.http.server import h1_type

    def front_of(hooks: Hooks | None) -> Any:
        class Front:
            mounts = ()
            hooked = hooks is not None

        Front.hooks = hooks.chain() if hooks is not None else None  # type: ignore[attr-defined]
        return Front()

    asking, responding = Hooks(), Hooks()
    asking.on_request(lambda request: None)
    responding.on_response(lambda request, response: None)
    assert h1_type(front_of(None)) is H1
    assert h1_type(front_of(asking)) is HookedH1
    assert h1_type(front_of(responding)) is RespondingH1


def test_hooks_of_workers_alone_leave_requests_alone() -> None:
    hooks = Hooks()
    hooks.on_worker_ready(lambda worker: None)
    with serving(host_hooks=hooks) as site, site.peer() as peer:
        assert peer.ask(get("/hello")).status == 200
        assert site.server.front is not None
        assert not site.server.front.hooked


# what is changed


def test_what_is_changed_reaches_the_app(site: Hooked) -> None:
    steps = "path:/scope/%C3%B6é query:a=%20b method:PATCH set:x-user=me remove:x-old client:192.0.2.9 scheme:https"
    with site.peer() as peer:
        for number in range(4):  # parsed twice, then known by their bytes
            found = seen(peer.ask(get(f"/anything?{number}", f"X-Do: {steps}", "X-Old: 1")))
            if site.interface == "asgi":
                headers = dict(found["headers"])
                assert (found["path"], found["raw_path"]) == ("/scope/%C3%B6\xe9", b"/scope/%25C3%25B6%C3%A9")
                assert (found["query_string"], found["method"], found["scheme"]) == (b"a=%20b", "PATCH", "https")
                assert found["client"] == ("192.0.2.9", 7)
                assert headers[b"x-user"] == b"me"
                assert b"x-old" not in headers
                assert headers[b"host"] == b"example.test"
            else:
                assert found["PATH_INFO"] == "/scope/%C3%B6é".encode().decode("latin-1")
                assert (found["QUERY_STRING"], found["REQUEST_METHOD"]) == ("a=%20b", "PATCH")
                assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == ("192.0.2.9", "7")
                assert (found["wsgi.url_scheme"], found["HTTP_X_USER"]) == ("https", "me")
                assert "HTTP_X_OLD" not in found
        again(peer)


def test_a_hook_of_one_request_does_not_reach_the_next(site: Hooked) -> None:
    with site.peer() as peer:
        wanted = [get("/scope?plain"), get("/scope?odd", "X-Do: set:x-user=me path:/scope edit:1"), get("/scope?plain")]
        peer.send(b"".join(wanted * 5))
        for number in range(15):
            found = seen(peer.reply())
            names = {name.decode() for name, _ in found["headers"]} if site.interface == "asgi" else {
                name.removeprefix("HTTP_").replace("_", "-").lower() for name in found if name.startswith("HTTP_")
            }  # fmt: skip
            assert ("x-user" in names, "x-mixed" in names) == ((True, True) if number % 3 == 1 else (False, False))
            assert ("plain" in str(found)) is (number % 3 != 1)


def test_the_framing_of_a_request_stays(site: Hooked) -> None:
    with site.peer() as peer:
        for body in (b"small", b"l" * 100_000):
            reply = peer.ask(request("POST", "/echo", "X-Do: frame", body=body), "POST")
            assert (reply.status, reply.body) == (200, body)
        reply = peer.ask(chunked("/echo", b"one", b"two", headers=["X-Do: frame"]), "POST")
        assert reply.body == b"onetwo"
        again(peer)


def test_what_hooks_only_look_at_goes_on_as_bytes(asgi: Hooked) -> None:
    """Header lines that are known are sent to the worker as they are, though a hook has read them."""
    with asgi.peer() as peer:
        for _ in range(4):
            assert peer.ask(get("/hello", "X-Do: set:x-none=1 remove:x-none")).status == 200
        assert asgi.server.front is not None
        assert any(b"x-none" in block for block in asgi.server.front.heads)


@pytest.mark.parametrize(
    "steps",
    ["method:HEAD", "method:A\nB", "path:nowhere", "raw:/a?b", "query:#", "scheme:ws", "set:a=\r", "spoil", "raise",
     "nonsense", "status:99", "status:101", "status:700", "code:200"],
)  # fmt: skip
def test_a_mistake_is_answered_with_500_and_logged(site: Hooked, steps: str) -> None:
    if "\n" in steps or "\r" in steps:
        steps = {"method:A\nB": "method:A(B", "set:a=\r": "set:a(=b"}[steps]
    site.records.clear()
    with site.peer() as peer:
        reply = peer.ask(get("/hello", f"X-Do: {steps}"))
        assert (reply.status, reply.body) == (500, b"Internal Server Error\n")
        again(peer)
    assert site.logged("GET /hello: a hook failed")
    assert any(record.exc_info is not None for record in site.records)
    assert site.journal() == ["GET /hello"]


def test_the_log_names_the_hook_that_raised(site: Hooked) -> None:
    import traceback

    site.records.clear()
    site.ask(get("/hello", "X-Do: raise"))
    assert site.logged("a hook failed")
    (record,) = (one for one in site.records if one.exc_info)
    assert record.exc_info is not None
    text = "".join(traceback.format_exception(record.exc_info[1]))
    assert "LookupError: by a hook" in text
    assert "raised by the on_request hook hooks_kit:Doing._fill.<locals>.ask" in text


# answers in the app's place


def test_an_answer_in_the_apps_place(site: Hooked) -> None:
    with site.peer() as peer:
        for _ in range(4):
            assert is_own(peer.ask(get("/hello", "X-Do: answer")))
        reply = peer.ask(get("/hello", "X-Do: status:403"))
        assert (reply.status, reply.reason, reply.body) == (403, "Forbidden", b"Forbidden\n")
        again(peer)
    assert site.journal() == ["GET /hello"]


def test_answers_without_a_body(site: Hooked) -> None:
    with site.peer() as peer:
        reply = peer.ask(request("HEAD", "/hello", "X-Do: answer"), "HEAD")
        assert (reply.status, reply.get("content-length")) == (418, "9")
        for status in (204, 304):
            reply = peer.ask(get("/hello", f"X-Do: status:{status}"))
            assert (reply.status, reply.framing, reply.get("content-length")) == (status, "none", None)
        again(peer)


def test_an_answer_to_http_1_0(site: Hooked) -> None:
    with site.peer() as peer:
        assert is_own(peer.ask(get("/", "X-Do: answer", "Connection: keep-alive", version="1.0")))
        assert is_own(peer.ask(get("/", "X-Do: answer", version="1.0")))
        assert peer.closed()


def test_a_body_that_nobody_reads(site: Hooked) -> None:
    """A small one is read, and the connection stays; a large one is not waited for, and is the end."""
    with site.peer() as peer:
        assert is_own(peer.ask(request("POST", "/echo", "X-Do: answer", body=b"x" * 5000), "POST"))
        again(peer)
        head = request("POST", "/echo", "X-Do: answer", "Content-Length: 5000000")
        reply = peer.ask(head + b"x" * 100_000, "POST")
        assert is_own(reply)
        assert reply.closes
        assert peer.closed()
    with site.peer() as peer:
        reply = peer.ask(request("POST", "/echo", "X-Do: answer", "Content-Length: 10", "Expect: 100-continue"), "POST")
        assert is_own(reply)  # and no 100 before it
        assert peer.closed()
    with site.peer() as peer:
        assert is_own(peer.ask(chunked("/echo", b"one", headers=["X-Do: answer"], end=b""), "POST"))
        assert peer.closed()
    assert site.journal() == ["GET /hello"]


def test_pipelined_requests_are_answered_in_their_order(site: Hooked) -> None:
    kinds = ["", "X-Do: answer", "X-Do: wait:gate", "X-Do: raise", "X-Do: wait:gate answer"]
    with site.gate() as gate, site.peer() as peer:
        peer.send(b"".join(get(f"/hello?{number}", *filter(None, [kinds[number % 5]])) for number in range(20)))
        statuses = []
        for number in range(20):
            if "wait" in kinds[number % 5]:
                gate.reached()
                gate.open()
            statuses.append(peer.reply().status)
        assert statuses == [200, 418, 200, 500, 418] * 4
        again(peer)


# hooks that wait, or hold the loop


def test_others_go_on_while_a_hook_waits(site: Hooked) -> None:
    with site.gate() as gate, site.peer() as peer, site.peer() as other:
        peer.send(get("/hello?slow", "X-Do: wait:gate set:x-user=me"))
        gate.reached()
        again(other)
        gate.open()
        assert peer.reply().body == b"Hello, World!"
        again(peer)


def test_a_body_that_comes_while_a_hook_waits(site: Hooked) -> None:
    body = bytes(range(256)) * 4096
    with site.gate() as gate, site.peer() as peer:
        head = request("POST", "/echo", "X-Do: wait:gate", f"Content-Length: {len(body)}")
        peer.send(head + body[:1000])
        gate.reached()
        peer.socket.setblocking(False)
        sent = 1000
        with contextlib.suppress(BlockingIOError):
            while sent < len(body):
                sent += peer.socket.send(body[sent : sent + 65536])
        peer.socket.settimeout(15.0)
        gate.open()
        peer.send(body[sent:])
        reply = peer.reply("POST")
        assert (reply.status, reply.body) == (200, body)
        peer.send(chunked("/echo", b"whole", headers=["X-Do: wait:gate"]))
        gate.reached()
        gate.open()
        assert peer.reply("POST").body == b"whole"
        again(peer)


def test_a_hook_that_does_not_answer_in_time(fifo: Callable[[str], Fifo]) -> None:
    with hooked(timeout=0.3) as site:
        for steps in ("X-Do: wait:gate", "X-Then: wait:gate"):
            with site.gate() as gate, site.peer() as peer:
                reply = peer.ask(get("/hello", steps))
                assert (reply.status, reply.body) == (504, b"a hook did not answer in time\n")
                assert gate.cancelled.wait(5.0)
                again(peer)
        with site.gate() as gate, site.peer() as peer:
            reply = peer.ask(get("/raise", "X-Else: wait:gate"))
            assert (reply.status, reply.body) == (504, b"a hook did not answer in time\n")
            again(peer)


def test_a_client_that_leaves_cancels_its_hook(site: Hooked) -> None:
    for steps in ("X-Do: wait:gate", "X-Then: wait:gate"):
        with site.gate() as gate:
            with site.peer() as peer:
                peer.send(get("/hello", steps))
                gate.reached()
            assert gate.cancelled.wait(5.0)
    with site.peer() as peer:
        again(peer)


def test_a_server_that_ends_does_not_wait_for_hooks() -> None:
    with hooked() as site, site.gate() as gate:
        peer = site.peer()
        peer.send(get("/hello", "X-Do: wait:gate"))
        gate.reached()
        site.call(site.server.stop(0.1))
        assert gate.cancelled.wait(5.0)
        peer.socket.close()


def test_a_hook_that_holds_the_loop_is_named(site: Hooked) -> None:
    site.records.clear()
    with site.peer() as peer:
        for _ in range(3):
            assert peer.ask(get("/hello", "X-Else: none", "X-Do: hold")).status == 200
    if site.logged("the on_request hook hooks_kit:Doing._fill.<locals>.ask held the event loop for", 1.0):
        lines = [one for one in site.records if "held the event loop" in one.getMessage()]
        assert len(lines) == 1


# responses


@pytest.mark.parametrize("wait", ["", "wait:gate "])
def test_what_is_changed_reaches_the_client(site: Hooked, wait: str) -> None:
    with site.gate() as gate, site.peer() as peer:
        for _ in range(4):
            peer.send(get("/hello", f"X-Then: {wait}set:x-new=1 add:x-new=2 remove:content-type code:201 edit:3"))
            if wait:
                gate.reached()
                gate.open()
            reply = peer.reply()
            assert (reply.status, reply.reason, reply.body) == (201, "Created", b"Hello, World!")
            assert (reply.all("x-new"), reply.all("x-mixed")) == (["1", "2"], ["3"])
            assert reply.get("content-type") is None
        again(peer)


@pytest.mark.parametrize("wait", ["", "wait:gate "])
def test_streamed_responses_too(asgi: Hooked, fifo: Callable[[str], Fifo], wait: str) -> None:
    go = fifo("go")
    steps = [["start", 200, [["x-app", "1"]]], ["body", "one", True], ["wait", str(go)], ["big", 600_000, True],
             ["body", "end"]]  # fmt: skip
    with asgi.gate() as gate, asgi.peer() as peer:
        peer.send(script(*steps, headers=[f"X-Then: {wait}set:x-new=1 frame"]))
        if wait:
            gate.reached()
            go.release()
            gate.open()
        else:
            peer.until(b"one")
            peer.data[:0] = b""
            go.release()
            peer.until(b"end\r\n0\r\n\r\n")
            again(peer)
            return
        reply = peer.reply()
        assert (reply.framing, reply.get("x-new"), reply.get("x-app")) == ("chunked", "1", "1")
        assert reply.body == b"one" + b"b" * 600_000 + b"end"
        again(peer)


@pytest.mark.parametrize("wait", ["", "wait:gate "])
def test_large_bodies_and_files(site: Hooked, tmp_path: Path, wait: str) -> None:
    data = bytes(range(256)) * 1000
    file = tmp_path / "file"
    file.write_bytes(data)
    asked = [get("/big?200000", f"X-Then: {wait}set:x-new=1")]
    if site.interface == "asgi":
        asked.append(script(["start", 200], ["pathsend", str(file)], headers=[f"X-Then: {wait}set:x-new=1"]))
    else:
        asked.append(get(f"/real-file?path={file}", f"X-Then: {wait}set:x-new=1"))
    with site.gate() as gate, site.peer() as peer:
        for number, one in enumerate(asked):
            peer.send(one)
            if wait:
                gate.reached()
                gate.open()
            reply = peer.reply()
            assert reply.get("x-new") == "1"
            assert len(reply.body) == len(data) if number else len(reply.body) >= 200_000
            assert not number or reply.body == data
        again(peer)


def test_the_framing_of_a_response_stays(site: Hooked) -> None:
    with site.peer() as peer:
        reply = peer.ask(get("/hello", "X-Then: frame"))
        assert (reply.framing, reply.body, reply.closes) == ("length", b"Hello, World!", False)
        reply = peer.ask(request("HEAD", "/hello", "X-Then: frame set:x-new=1"), "HEAD")
        assert (reply.status, reply.get("x-new")) == (200, "1")
        again(peer)


def test_statuses_with_and_without_a_body(site: Hooked, tmp_path: Path) -> None:
    """The body goes, or there is an empty one; the connection stays as good."""
    file = tmp_path / "file"
    file.write_bytes(b"f" * 100_000)
    sent = script(["start", 200], ["pathsend", str(file)], headers=["X-Then: code:204"]) if (
        site.interface == "asgi"
    ) else get(f"/real-file?path={file}", "X-Then: code:204")  # fmt: skip
    streamed = script(["start", 200], ["body", "one", True], ["big", 500_000, True], ["body", "end"],
                      headers=["X-Then: code:304"])  # fmt: skip
    with site.peer() as peer:
        for one, status in (
            (get("/hello", "X-Then: code:204"), 204), (get("/big?200000", "X-Then: code:304"), 304),
            (streamed, 304), (sent, 204),
        ):  # fmt: skip
            reply = peer.ask(one)
            assert (reply.status, reply.framing) == (status, "none")
            assert (reply.get("content-length"), reply.get("transfer-encoding")) == (None, None)
            again(peer)
        reply = peer.ask(script(["start", 204], ["body"], headers=["X-Then: code:200"]))
        assert (reply.status, reply.framing, reply.body) == (200, "length", b"")
        reply = peer.ask(request("HEAD", "/hello", "X-Then: code:204"), "HEAD")
        assert (reply.status, reply.get("content-length")) == (204, None)
        again(peer)


def test_103_hints_are_not_touched(site: Hooked) -> None:
    with site.peer() as peer:
        peer.send(get("/hints", "X-Then: set:x-new=1 code:202"))
        found = []
        while not found or found[-1].status < 200:
            found.append(peer.reply())
        assert [one.status for one in found[:-1]] == [103] * (len(found) - 1) != []
        assert all(one.get("x-new") is None for one in found[:-1])
        assert (found[-1].status, found[-1].get("x-new")) == (202, "1")
        again(peer)


@pytest.mark.parametrize("steps", ["raise", "spoil", "status:200", "wait:gate raise", "code:103"])
def test_a_hook_of_a_response_that_raises(site: Hooked, steps: str) -> None:
    streamed = script(["start", 200], ["body", "one", True], ["big", 500_000, True], ["body", "end"],
                      headers=[f"X-Then: {steps}"])  # fmt: skip
    site.records.clear()
    with site.gate() as gate, site.peer() as peer:
        for one in (get("/hello", f"X-Then: {steps}"), streamed, get("/raise", f"X-Then: {steps}")):
            peer.send(one)
            if "wait" in steps:
                gate.reached()
                gate.open()
            reply = peer.reply()
            assert (reply.status, reply.body) == (500, b"Internal Server Error\n")
            again(peer)
    assert site.logged("a hook failed")


def test_every_answer_of_the_server_is_seen(fifo: Callable[[str], Fifo]) -> None:
    """To a request that hooks saw; one that is no request of HTTP is refused without them."""
    mounts = [{"prefix": "/app", "app": "http_app:app"}]
    with hooked(mounts=mounts, max_body=20_000) as site, site.peer() as peer:
        for one, status in (
            (get("/nowhere", "X-Then: set:x-new=1"), 404),
            (get("/nowhere", "X-Do: answer", "X-Then: set:x-new=1"), 418),
            (get("/app/raise", "X-Then: set:x-new=1"), 500),
            (get("/app/hello", "X-Do: raise", "X-Then: set:x-new=1"), 500),
            (request("POST", "/app/echo", "X-Then: set:x-new=1", "Content-Length: 30000"), 413),
        ):
            reply = peer.ask(one)
            assert (reply.status, reply.get("x-new")) == (status, "1"), one
        assert site.told()[-1] == ("response", "", "/app/echo", 413)
        assert [one.status for one in replies(site.talk(b"GET / HTTP/1.1\r\n\r\n"))] == [400]
        assert site.told() == []


# errors


def test_errors_become_answers(site: Hooked) -> None:
    site.records.clear()
    with site.peer() as peer:
        assert is_own(peer.ask(get("/raise", "X-Else: answer")))
        assert is_own(peer.ask(get("/silent", "X-Else: answer")))
        reply = peer.ask(get("/raise"))
        assert (reply.status, reply.body) == (500, b"Internal Server Error\n")
        assert peer.ask(get("/raise", "X-Else: raise")).status == 500
        again(peer)
        assert [one[3] for one in site.told() if one[0] == "error"] == ["AppError"] * 4
    assert site.logged("LookupError")


def test_an_error_behind_the_start_breaks_off(asgi: Hooked) -> None:
    with asgi.peer() as peer:
        peer.send(get("/raise-half", "X-Else: answer"))
        assert b"418" not in peer.rest()


@pytest.mark.parametrize("wait", ["", "wait:gate "])
def test_timeouts_and_lost_workers_become_answers(wait: str) -> None:
    with hooked("asgi", "process", timeout=0.5) as site, site.gate() as gate, site.peer() as peer:
        for path, name in (("/forever", "PoolTimeout"), ("/os-exit", "WorkerLost")):
            peer.send(get(path, f"X-Else: {wait}answer"))
            if wait:
                gate.reached()
                gate.open()
            assert is_own(peer.reply())
            assert ("error", "", path, name) in site.told()


def test_overload_becomes_an_answer(fifo: Callable[[str], Fifo]) -> None:
    gate, started = fifo("gate"), fifo("started")
    with hooked(max_concurrency=1, window=1, max_pending=1) as site, contextlib.ExitStack() as stack:
        first = stack.enter_context(site.peer())
        first.send(get(f"/gate?gate={gate}&started={started}"))
        started.wait_sync()
        others = [stack.enter_context(site.peer()) for _ in range(4)]
        for one in others:
            one.send(get("/hello", "X-Else: answer"))
        refused = next(one for one in reversed(others) if one.reply().status == 418)
        assert refused is others[-1]
        gate.release()
        assert first.reply().status == 200


# mounts


def test_hooks_of_the_server_and_of_a_mount() -> None:
    mounts = [{"prefix": "/", "app": "http_app:app"}, {"prefix": "/api", "app": "http_app:other"}]
    with hooked(mounts=mounts) as site, site.peer() as peer:
        assert json.loads(peer.ask(get("/api/x", "X-Do-Api: set:x-a=1")).body)[:3] == ["other", "/api", "/api/x"]
        assert site.told() == [
            ("request", "", "GET", "/api/x"), ("request", "/api", "GET", "/api/x"), ("response", "/api", "/api/x", 200),
            ("response", "", "/api/x", 200),
        ]  # fmt: skip
        assert peer.ask(get("/hello", "X-Do-Api: answer", "X-Then-Api: raise")).status == 200
        assert [one[:2] for one in site.told()] == [("request", ""), ("response", "")]
        # the server's hooks may send it to another mount, whose own hooks see it then
        moved = peer.ask(get("/hello", "X-Do: path:/api/moved", "X-Then-Api: set:x-new=1"))
        assert (json.loads(moved.body)[2], moved.get("x-new")) == ("/api/moved", "1")
        assert peer.ask(get("/api", "X-Do: path:/hello", "X-Do-Api: answer")).body == b"Hello, World!"
        assert is_own(peer.ask(get("/api", "X-Do-Api: answer")))
        assert peer.ask(get("/api", "X-Do: answer", "X-Do-Api: raise")).status == 418


def test_hooks_of_a_mount_alone() -> None:
    hooks = Hooks()

    @hooks.at("/api").on_response
    def mark(request: Request, response: ResponseHead) -> None:
        response.set("x-mount", str(request.mount))

    mounts = [{"prefix": "/", "app": "http_app:app"}, {"prefix": "/api", "app": "http_app:other"}]
    with serving(mounts=mounts, host_hooks=hooks) as site, site.peer() as peer:
        for _ in range(3):
            assert peer.ask(get("/hello")).get("x-mount") is None
            assert peer.ask(get("/api")).get("x-mount") == "/api"


# beside


def test_the_access_log_has_the_request_as_it_came(asgi: Hooked, caplog: pytest.LogCaptureFixture) -> None:
    asgi.records.clear()
    with caplog.at_level("INFO", "subpool.access"), asgi.peer() as peer:
        peer.ask(get("/secret?a", "X-Do: path:/hello method:PUT client:192.0.2.1"))
        peer.ask(get("/other", "X-Do: answer", "X-Then: code:409"))
        assert asgi.logged('"GET /secret?a HTTP/1.1" 200 13')
        assert asgi.logged('"GET /other HTTP/1.1" 409 9')


def test_a_request_behind_a_proxy_is_seen_as_the_app_sees_it() -> None:
    seen_by_hook: list[Any] = []
    hooks = Hooks()

    @hooks.on_request
    def look(request: Request) -> None:
        seen_by_hook.append((request.client, request.scheme, request.get("host"), request.http_version, request.type))

    with serving(host_hooks=hooks) as site, site.peer() as peer:
        more = ["X-Forwarded-For: 198.51.100.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: far.example"]
        found = seen(peer.ask(get("/scope", *more)))
        assert (found["client"], found["scheme"]) == (("198.51.100.4", 0), "https")
        assert seen_by_hook == [(("198.51.100.4", 0), "https", "far.example", "1.1", "http")]
        peer.ask(get("http://abs.example/scope", version="1.0"))
        assert seen_by_hook[1][2:] == ("abs.example", "1.0", "http")
