"""The pool as an ASGI app: `handle_asgi`, `pool.asgi()` in process, and behind a real server."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from conftest import BOTH, DEADLINE, eventually, http_scope, in_flight, websocket_scope

pytestmark = pytest.mark.anyio


class Peer:
    """A server's side of one exchange: messages to give, and those that came."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.sent: list[dict[str, Any]] = []
        self.changed = anyio.Event()
        self.left = anyio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.messages:
            return self.messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.changed.set()
        self.changed = anyio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"] == "http.response.body")


def request(body: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@BOTH
async def test_one_full_exchange(pool: Any) -> None:
    peer = Peer(request(b"one ", True), request(b"", True), request(b"two"))
    await pool.handle_asgi(http_scope("/echo", method="POST"), peer.receive, peer.send)
    assert peer.sent[0]["type"] == "http.response.start"
    assert peer.sent[0]["status"] == 200
    assert peer.body == b"one two"
    assert not peer.sent[-1].get("more_body", False)


async def test_a_streamed_exchange(pool: Any) -> None:
    peer = Peer(request())
    await pool.handle_asgi(http_scope("/chunks"), peer.receive, peer.send)
    assert peer.body == b"".join(b"chunk %d\n" % number for number in range(10))
    assert [message.get("more_body", False) for message in peer.sent[1:]][-1] is False


async def test_informational_responses_pass(pool: Any) -> None:
    """Where the peer offers no such thing they may be dropped, but the final response comes once."""
    peer = Peer(request())
    await pool.handle_asgi(http_scope("/hints"), peer.receive, peer.send)
    starts = [message["status"] for message in peer.sent if message["type"] == "http.response.start"]
    assert starts[-1] == 200
    assert starts.count(200) == 1
    assert peer.body == b"final"


@pytest.mark.parametrize("offered", [True, False])
async def test_early_hints_of_a_wsgi_app(wsgi_pool: Any, offered: bool) -> None:
    """They reach a peer that offers the extension (ASGI "Early Hints"), and no other."""
    peer = Peer(request())
    extensions = {"http.response.early_hint": {}} if offered else {}
    await wsgi_pool.handle_asgi(http_scope("/hints", extensions=extensions), peer.receive, peer.send)
    hint = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
    assert peer.sent[0]["type"] == (hint["type"] if offered else "http.response.start")
    assert peer.sent.count(hint) == offered
    assert peer.body == b"final"


async def test_a_whole_answer_of_wsgi_has_a_length(wsgi_pool: Any) -> None:
    peer = Peer(request())
    await wsgi_pool.handle_asgi(http_scope("/hello"), peer.receive, peer.send)
    assert (b"content-length", b"13") in peer.sent[0]["headers"]
    assert [message.get("more_body", False) for message in peer.sent[1:]] == [False]
    assert peer.body == b"Hello, World!"


@BOTH
async def test_an_app_error_is_raised_to_the_server(pool: Any) -> None:
    from subpool import AppError

    peer = Peer(request())
    with pytest.raises(AppError, match="no such thing"):
        await pool.handle_asgi(http_scope("/raise"), peer.receive, peer.send)
    assert peer.sent == []
    peer = Peer(request())
    with pytest.raises(AppError, match="in the middle"):
        await pool.handle_asgi(http_scope("/raise-half"), peer.receive, peer.send)
    assert all(message.get("more_body", True) for message in peer.sent)


async def test_a_client_that_leaves_is_reported_to_the_app(make_pool: Any, fifo: Any) -> None:
    report, started, gate = fifo("report"), fifo("started"), fifo("gate")
    async with make_pool(workers=1) as pool:
        peer = Peer(request(b"some", True))
        query = f"report={report}&started={started}&gate={gate}".encode()
        scope = http_scope("/digest", method="POST", query_string=query)
        async with anyio.create_task_group() as group:

            async def handle() -> None:
                with contextlib.suppress(Exception):
                    await pool.handle_asgi(scope, peer.receive, peer.send)

            group.start_soon(handle)
            await started.wait()
            peer.left.set()
            gate.release()
            assert await report.wait() == b"disconnect"
        await eventually(lambda: in_flight(pool) == 0)


@BOTH
async def test_a_websocket_exchange(pool: Any, fifo: Any) -> None:
    report = fifo("report")
    peer = Peer(
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hi", "bytes": None},
        {"type": "websocket.receive", "bytes": b"raw"},
        {"type": "websocket.disconnect", "code": 1001, "reason": "gone"},
    )
    scope = websocket_scope("/echo", query_string=f"report={report}".encode())
    with anyio.fail_after(DEADLINE):
        await pool.handle_asgi(scope, peer.receive, peer.send)
    assert peer.sent[0]["type"] == "websocket.accept"
    told = [message.get("text") or message.get("bytes") for message in peer.sent[1:]]
    assert told[0] == "welcome"
    assert told[1:] == ["hi", b"raw"][: len(told) - 1]
    assert json.loads(await report.wait())[0] == 1001


async def test_other_scope_types_are_refused(pool: Any) -> None:
    peer = Peer()
    with pytest.raises((ValueError, TypeError), match="type"):
        await pool.handle_asgi({**http_scope("/"), "type": "gopher"}, peer.receive, peer.send)


@BOTH
async def test_lifespan_starts_and_ends_the_pool(make_pool: Any) -> None:
    pool = make_pool(workers=1)
    app = pool.asgi()
    peer = Peer({"type": "lifespan.startup"})
    shutdown: dict[str, Any] = {"type": "lifespan.shutdown"}

    async def receive() -> dict[str, Any]:
        if peer.messages:
            return peer.messages.pop(0)
        await peer.left.wait()
        return shutdown

    state: dict[str, Any] = {}
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            group.start_soon(app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}, receive, peer.send)
            await eventually(lambda: peer.sent)
            assert peer.sent[0]["type"] == "lifespan.startup.complete"
            other = Peer(request())
            await app(http_scope("/hello"), other.receive, other.send)
            assert other.body == b"Hello, World!"
            peer.left.set()
    assert peer.sent[-1]["type"] == "lifespan.shutdown.complete"


async def test_lifespan_reports_a_pool_that_cannot_start(make_pool: Any) -> None:
    app = make_pool("broken_body:app", workers=1).asgi()
    peer = Peer({"type": "lifespan.startup"})
    with contextlib.suppress(Exception):
        with anyio.fail_after(DEADLINE):
            await app({"type": "lifespan", "asgi": {"version": "3.0"}}, peer.receive, peer.send)
    assert peer.sent[0]["type"] == "lifespan.startup.failed"
    assert "SETTINGS is not set" in peer.sent[0]["message"]


@BOTH
async def test_under_httpx(pool: Any) -> None:
    httpx = pytest.importorskip("httpx")
    transport = httpx.ASGITransport(app=pool.asgi())
    async with httpx.AsyncClient(transport=transport, base_url="http://example.test") as client:
        assert (await client.get("/hello")).text == "Hello, World!"
        assert (await client.post("/echo", content=b"x" * 100_000)).content == b"x" * 100_000
        assert (await client.get("/cookies")).headers.get_list("set-cookie") == ["a=1", "b=2", "a=1"]
        assert (await client.get("/nowhere")).status_code == 404


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """`app` under a real uvicorn on a free port; ends within the test's limit."""
    uvicorn = pytest.importorskip("uvicorn")
    listening = threading.Event()

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        async def startup(self, sockets: Any = None) -> None:
            try:
                await super().startup(sockets=sockets)
            finally:
                listening.set()

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, loop="asyncio", http="h11", ws="none", lifespan="on", log_config=None)
        server = Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="uvicorn")
        thread.start()
        try:
            assert listening.wait(DEADLINE)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
            assert not thread.is_alive()


def test_under_uvicorn(make_pool: Any) -> None:
    httpx = pytest.importorskip("httpx")
    with (
        served(make_pool().asgi()) as url,
        httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False) as client,
    ):
        assert client.get("/hello").text == "Hello, World!"
        assert client.post("/echo", content=b"x" * 1_000_000).content == b"x" * 1_000_000
        assert client.get("/cookies").headers.get_list("set-cookie") == ["a=1", "b=2", "a=1"]
        with client.stream("GET", "/chunks") as stream:
            assert b"".join(stream.iter_bytes()) == b"".join(b"chunk %d\n" % number for number in range(10))
        assert client.get("/raise").status_code == 500
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/raise-half")
        assert client.get("/hello").status_code == 200
