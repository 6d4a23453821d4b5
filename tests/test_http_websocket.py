"""WebSocket through the server, over HTTP/1.1: a real client, and raw sockets for what no real client sends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import math
import os
import struct
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from conftest import APPS, DEADLINE, eventually, in_flight, whole
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ws_client import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, Raw, deflated, frame, port, upgrade

pytest.importorskip("wsproto")
pytest.importorskip("httptools")
pytest.importorskip("pydantic")
websockets = pytest.importorskip("websockets")

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def serving(isolation: str, app: str = "ws_app:app", **options: Any) -> AsyncIterator[Any]:
    """A server on a free port."""
    from subpool.http.config import ServerConfig
    from subpool.http.server import Server

    server = Server(
        ServerConfig(app=app, bind=["127.0.0.1:0"], isolation=isolation, pythonpath=[APPS],
                     **{"workers": 1, "close_timeout": 5.0, **options})
    )  # fmt: skip
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0.0)


@pytest.fixture(scope="module")
async def server(isolation: str, anyio_backend: str) -> AsyncIterator[Any]:
    """Shared by the tests that leave nothing behind."""
    async with serving(isolation, websocket_max_message=1 << 20) as server:
        yield server


def url(server: Any, path: str, scheme: str = "ws") -> str:
    return str(server.addresses[0]).replace("http", scheme, 1) + path


def connect(server: Any, path: str, **options: Any) -> Any:
    """The real client; without compression unless a test wants it."""
    return websockets.connect(url(server, path), **{"compression": None, "proxy": None, "max_size": None, **options})


def only_connection(server: Any) -> Any:
    (connection,) = server.front.connections
    return connection


async def quiet(server: Any) -> None:
    """No connection is open and no request under way."""
    await eventually(lambda: not server.front.connections)
    await eventually(lambda: not any(map(in_flight, server.pools)))


# messages


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_echo(isolation: str, compression: str | None) -> None:
    async with serving(isolation, websocket_compress=True) as server:
        async with connect(server, "/echo", compression=compression) as socket:
            assert ("sec-websocket-extensions" in socket.response.headers) is (compression is not None)
            for message in (
                "text \u2603",
                b"bytes \xff",
                "",
                b"",
                "x" * 100_000,
                os.urandom(300_000),
                "\U0001f600" * 70_000,
            ):
                await socket.send(message)
                answer = await socket.recv()
                assert answer == message
                assert type(answer) is type(message)
        await quiet(server)


async def test_no_compression_unless_it_is_wanted(server: Any) -> None:
    async with connect(server, "/echo", compression="deflate") as socket:
        assert "sec-websocket-extensions" not in socket.response.headers


async def test_many_messages_keep_their_order(server: Any) -> None:
    async with connect(server, "/echo") as socket:

        async def send() -> None:
            for number in range(500):
                await socket.send(str(number))

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            assert [await socket.recv() for _ in range(500)] == [str(number) for number in range(500)]


async def test_messages_right_behind_accept(server: Any) -> None:
    for _ in range(20):
        async with connect(server, "/behind-accept") as socket:
            assert [await socket.recv() for _ in range(3)] == ["0", "1", "2"]
            with pytest.raises(websockets.ConnectionClosedOK) as caught:
                await socket.recv()
            assert caught.value.rcvd.code == 1000
    await quiet(server)


async def test_messages_right_behind_the_request(server: Any) -> None:
    """A client may not, but what came is not lost."""
    async with Raw(server) as raw:
        raw.send(upgrade("/echo") + frame(TEXT, b"early") + frame(PING, b"too"))
        assert (await raw.head())[0] == 101
        assert {await raw.frame(), await raw.frame()} == {(TEXT, b"early"), (PONG, b"too")}
    await quiet(server)


async def test_byte_by_byte(server: Any) -> None:
    async with Raw(server) as raw:
        for byte in upgrade("/echo"):
            raw.send(bytes([byte]))
            await raw.writer.drain()
            await asyncio.sleep(0)
        assert (await raw.head())[0] == 101
        text = "\u2603 snow".encode()
        data = frame(TEXT, text[:1], fin=False) + frame(PING, b"in between") + frame(CONTINUATION, text[1:])
        for byte in data + frame(BINARY, b"x" * 200):
            raw.send(bytes([byte]))
            await raw.writer.drain()
            await asyncio.sleep(0)
        assert await raw.frame() == (PONG, b"in between")
        assert await raw.frame() == (TEXT, text)
        assert await raw.frame() == (BINARY, b"x" * 200)
        for byte in frame(CLOSE, b"\x0f\xa1why"):
            raw.send(bytes([byte]))
            await raw.writer.drain()
        assert await raw.closed() == (4001, b"why")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.one_of(st.text(max_size=80), st.binary(max_size=80)), st.sampled_from([1, 1, 3, 700]),
                  st.lists(st.integers(0, 60), max_size=4)), max_size=8),
    st.integers(1, 4000),
)  # fmt: skip
async def test_any_messages_in_any_fragments(server: Any, messages: list[Any], piece: int) -> None:
    """Messages, how often each is repeated in itself, where it is cut; and how many bytes are written at once."""
    data, expected = b"", []
    for content, times, cuts in messages:
        whole = content * times
        opcode = TEXT if isinstance(content, str) else BINARY
        payload = whole.encode() if isinstance(whole, str) else whole
        expected.append((opcode, payload))
        bounds = [*sorted({min(cut, len(payload)) for cut in cuts} | {0}), len(payload)]
        parts = [payload[start:end] for start, end in itertools.pairwise(bounds)]
        for number, part in enumerate(parts):
            data += frame(opcode if not number else CONTINUATION, part, fin=number == len(parts) - 1)
    async with Raw(server) as raw:
        await raw.open("/echo")
        for start in range(0, len(data), piece):
            raw.send(data[start : start + piece])
            await raw.writer.drain()
        assert [await raw.frame() for _ in expected] == expected
        raw.send(frame(CLOSE))
        assert await raw.closed() == (1005, b"")


async def test_a_background_task_pushes(server: Any, fifo: Any) -> None:
    gate = fifo("gate")
    async with connect(server, f"/push?gate={gate}") as socket:
        for number in range(3):
            gate.release()
            assert await socket.recv() == str(number)


# the beginning


async def test_the_scope(server: Any) -> None:
    path = "/scope?choose=b&x=%20%C3%A9"
    headers = [("X-Two", "1"), ("X-Two", "2")]
    async with connect(server, path, subprotocols=["a", "b"], additional_headers=headers) as socket:
        scope = json.loads(await socket.recv())
        assert socket.subprotocol == "b"
        assert socket.response.headers.get_all("x-mine") == ["1", "2"]
        host, number = socket.local_address
    assert scope.pop("headers")[0] == ["host", f"127.0.0.1:{port(server)}"]
    extensions = scope.pop("extensions")
    assert extensions["websocket.http.response"] == {}
    assert scope == {
        "type": "websocket", "http_version": "1.1", "scheme": "ws", "path": "/scope", "raw_path": "/scope",
        "query_string": "choose=b&x=%20%C3%A9", "root_path": "", "subprotocols": ["a", "b"],
        "client": [host, number], "server": ["127.0.0.1", port(server)],
    }  # fmt: skip


async def test_headers_of_the_scope(server: Any) -> None:
    async with Raw(server) as raw:
        await raw.open(
            "/scope", b"X-Two: 1", b"sec-websocket-protocol: a,b", b"X-TWO: 2", b"sec-websocket-protocol:  c "
        )
        scope = json.loads((await raw.frame())[1])
    assert scope["subprotocols"] == ["a", "b", "c"]
    assert [pair for pair in scope["headers"] if pair[0] == "x-two"] == [["x-two", "1"], ["x-two", "2"]]


async def test_mounts_and_proxies(isolation: str) -> None:
    mounts = [{"prefix": "/mounted", "app": "ws_app:app"}]
    async with serving(isolation, None, mounts=mounts, root_path="/outer") as server:  # type: ignore[arg-type]
        async with Raw(server) as raw:
            said = (b"x-forwarded-for: 192.0.2.1", b"x-forwarded-proto: https", b"x-forwarded-host: real.test")
            raw.send(upgrade("", *said, target=b"http://example.test/mounted/sc%6Fpe?q=1"))
            assert (await raw.head())[0] == 101
            scope = json.loads((await raw.frame())[1])
        assert (scope["scheme"], scope["client"], scope["root_path"]) == ("wss", ["192.0.2.1", 0], "/outer/mounted")
        assert (scope["path"], scope["raw_path"]) == ("/mounted/scope", "/mounted/sc%6Fpe")
        assert ["host", "real.test"] in scope["headers"]
        async with Raw(server) as raw:
            raw.send(upgrade("/elsewhere"))
            assert (await raw.head())[0] == 404
            await raw.rest()


@pytest.mark.parametrize(
    ("without", "more", "status"),
    [
        ((b"sec-websocket-version",), [], 400),
        ((b"sec-websocket-version",), [b"sec-websocket-version: 8"], 426),
        ((), [b"sec-websocket-version: 8"], 426),
        ((b"sec-websocket-key",), [], 400),
        ((b"sec-websocket-key",), [b"sec-websocket-key: short"], 400),
        ((b"sec-websocket-key",), [b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=?"], 400),
        ((b"sec-websocket-key",), [b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAAAA"], 400),
        ((), [b"sec-websocket-key: " + KEY], 400),
        ((), [b"sec-websocket-protocol: a, b, a"], 400),
        ((), [b"sec-websocket-protocol: a b"], 400),
    ],
)
async def test_handshakes_that_are_refused(server: Any, without: Any, more: Any, status: int) -> None:
    async with Raw(server) as raw:
        raw.send(upgrade("/echo", *more, without=without))
        found, headers, _ = await raw.head()
        assert found == status
        assert headers[b"connection"] == b"close"
        if status == 426:
            assert headers[b"sec-websocket-version"] == b"13"
            assert headers[b"upgrade"] == b"websocket"
        assert len(await raw.rest()) == int(headers[b"content-length"])
    await quiet(server)


@pytest.mark.parametrize("body", [b"content-length: 3", b"transfer-encoding: chunked"])
async def test_a_request_with_a_body_opens_nothing(server: Any, body: bytes) -> None:
    async with Raw(server) as raw:
        raw.send(upgrade("/echo", body) + b"3\r\nabc\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = await raw.rest()
    assert b" 101 " not in answer
    assert b"/hidden" not in answer


async def test_plain_requests_pass(server: Any) -> None:
    """A WebSocket behind requests on the same connection, and a request for what is a WebSocket elsewhere."""
    async with Raw(server) as raw:
        raw.send(b"GET /echo HTTP/1.1\r\nhost: a\r\n\r\n")
        status, headers, _ = await raw.head()
        assert status == 200
        assert await raw.reader.readexactly(int(headers[b"content-length"])) == b"/echo"
        await raw.open("/echo")
        raw.send(frame(TEXT, b"hello"))
        assert await raw.frame() == (TEXT, b"hello")


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/refuse", 403, None),
        ("/deny?status=401&pieces=3", 401, b"xxx"),
        ("/deny?status=404&pieces=3,0,4", 404, b"x" * 7),
        ("/deny?status=200&pieces=100000,300000", 200, b"x" * 400_000),
        ("/deny?status=403&length=5&pieces=5", 403, b"xxxxx"),
        ("/deny?status=403&length=5&pieces=2,20", 403, b"xxxxx"),
        ("/deny?status=204&pieces=0", 204, b""),
        ("/deny?status=101&pieces=0", 500, None),
        ("/raise?early=1", 500, None),
        ("/accept?subprotocol=unasked", 500, None),
        ("/accept?header=sec-websocket-protocol", 500, None),
        ("/accept?header=Sec-WebSocket-Accept", 500, None),
        ("/accept?header=:path", 500, None),
    ],
)
async def test_denials(server: Any, path: str, status: int, body: bytes | None) -> None:
    with anyio.fail_after(DEADLINE), pytest.raises(websockets.InvalidStatus) as caught:
        async with connect(server, path):
            pytest.fail("entered")
    response = caught.value.response
    assert response.status_code == status
    assert response.headers["connection"] == "close"
    if body is not None:
        assert bytes(response.body or b"") == body
        assert response.headers["x-why"] == "because"
    await quiet(server)


@pytest.mark.parametrize("path", ["/refuse?", "/deny?status=401&pieces=1&"])
async def test_after_a_denial_the_app_is_told(server: Any, fifo: Any, path: str) -> None:
    report = fifo("report")
    with pytest.raises(websockets.InvalidStatus):
        async with connect(server, f"{path}report={report}"):
            pytest.fail("entered")
    assert json.loads(await report.wait()) == ["websocket.disconnect"]


async def test_a_denial_that_breaks_off(server: Any) -> None:
    """It does not look like a good end."""
    async with Raw(server) as raw:
        raw.send(upgrade("/deny?status=400&pieces=5,5&raise=1"))
        try:
            answer = await raw.rest()
        except ConnectionResetError:
            answer = b""
    assert not answer.endswith(b"0\r\n\r\n")
    await quiet(server)


@pytest.mark.parametrize("header", ["upgrade", "connection", "transfer-encoding"])
async def test_headers_that_are_the_servers(server: Any, header: str) -> None:
    async with Raw(server) as raw:
        raw.send(upgrade(f"/accept?header={header}"))
        status, _, pairs = await raw.head()
        assert status == 101
        assert [name for name, _ in pairs].count(header.encode()) == (header in ("upgrade", "connection"))
        assert (header.encode(), b"x") not in pairs


async def test_a_wsgi_app_has_no_websocket(isolation: str) -> None:
    async with serving(isolation, "wsgi_app:app") as server:
        async with Raw(server) as raw:
            raw.send(upgrade("/"))
            assert (await raw.head())[0] == 400
            await raw.rest()
        await quiet(server)


async def test_an_app_that_does_not_answer(isolation: str, fifo: Any) -> None:
    report, gate = fifo("report"), fifo("gate")
    async with serving(isolation, timeout=0.2) as server:
        async with Raw(server) as raw:
            raw.send(upgrade(f"/slow?report={report}&gate={gate}"))
            assert (await raw.head())[0] == 504
            await raw.rest()
        assert json.loads(await report.wait()) == ["CancelledError"]
        async with connect(server, "/echo") as socket:  # an open one has no such limit
            opened = server.front.now
            await eventually(lambda: server.front.now - opened > 0.3)
            await socket.send("still here")
            assert await socket.recv() == "still here"
        await quiet(server)


async def test_too_many_wait(isolation: str, fifo: Any) -> None:
    started, gate = fifo("started"), fifo("gate")
    async with serving(isolation, max_websockets=2) as server:
        async with Raw(server) as first, Raw(server) as second, Raw(server) as third:
            first.send(upgrade(f"/slow?started={started}&gate={gate}"))
            await started.wait()
            await second.open("/echo")
            third.send(upgrade("/echo"))
            status, headers, _ = await third.head()
            assert status == 503
            assert headers[b"retry-after"] == b"1"
            gate.release()
            assert (await first.head())[0] == 101
            first.send(frame(CLOSE))
            await first.closed()
            await eventually(lambda: server.pools[0].stats().websockets == 1)
            async with Raw(server) as fourth:
                await fourth.open("/echo")
        assert server.pools[0].stats().refused == 1
        await quiet(server)


@pytest.mark.parametrize("workers", [1, 2])
async def test_open_websockets_take_no_places_of_requests(isolation: str, workers: int, fifo: Any) -> None:
    """They are spread over the workers, counted apart, and how long they lasted is no latency."""
    started, gate = fifo("started"), fifo("gate")
    async with serving(isolation, workers=workers, max_concurrency=2, window=2) as server, asyncio.timeout(DEADLINE):
        stats = server.pools[0].stats
        async with contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(Raw(server)) for _ in range(20)]
            for raw in sockets:
                await eventually(lambda: whole(server.pools[0], workers))
                await raw.open("/echo")
            held = [worker.websockets for worker in stats().workers]
            assert sum(held) == 20
            assert min(held) >= 20 // workers - 5  # one that stalls with it loses it to another
            sockets[0].send(frame(CLOSE))
            await sockets[0].closed()
            await eventually(lambda: stats().websockets == 19)
            assert stats().served == 1
            assert all(math.isnan(worker.p99) for worker in stats().workers)
            sockets[0] = await stack.enter_async_context(Raw(server))  # one that is not open yet
            sockets[0].send(upgrade(f"/slow?started={started}&gate={gate}"))
            await started.wait()
            for _ in range(10):
                async with Raw(server) as raw:
                    raw.send(b"GET /plain HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                    assert (await raw.rest()).startswith(b"HTTP/1.1 200 ")
            assert (stats().in_flight, stats().websockets, stats().served) == (0, 20, 11)
            gate.release()
            assert (await sockets[0].head())[0] == 101
            for raw in sockets[1:]:
                raw.send(frame(TEXT, b"still here"))
                assert await raw.frame() == (TEXT, b"still here")
        await quiet(server)


async def test_no_more_connections_than_allowed(isolation: str) -> None:
    async with serving(isolation, max_connections=1) as server:
        async with Raw(server) as raw:
            await raw.open("/echo")
            async with Raw(server) as other:
                assert (await other.head())[0] == 503
            raw.send(frame(TEXT, b"mine stays"))
            assert await raw.frame() == (TEXT, b"mine stays")


# the end


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_the_client_closes(server: Any, fifo: Any, code: int) -> None:
    report = fifo("report")
    async with connect(server, f"/echo?report={report}") as socket:
        await socket.close(code, "bye \u2603")
        assert (socket.close_code, socket.close_reason) == (code, "bye \u2603")
    assert json.loads(await report.wait()) == [code, "bye \u2603"]
    await quiet(server)


async def test_the_client_closes_without_a_code(server: Any, fifo: Any) -> None:
    report = fifo("report")
    async with Raw(server) as raw:
        await raw.open(f"/echo?report={report}")
        raw.send(frame(CLOSE))
        assert await raw.closed() == (1005, b"")
    assert json.loads(await report.wait()) == [1005, ""]


@pytest.mark.parametrize("way", ["end", "reset"])
async def test_the_client_leaves_without_a_word(server: Any, fifo: Any, way: str) -> None:
    report = fifo("report")
    async with Raw(server) as raw:
        await raw.open(f"/echo?report={report}")
        if way == "reset":
            raw.writer.transport.abort()
        else:
            raw.writer.write_eof()
            assert await raw.rest() == b""
    assert json.loads(await report.wait()) == [1006, ""]
    await quiet(server)


@pytest.mark.parametrize("accept", ["&accept=1", ""])
async def test_what_came_before_the_end_is_received_first(server: Any, fifo: Any, accept: str) -> None:
    """An app that asks late still gets all in order, `websocket.connect` first of all."""
    report, started, gate = fifo("report"), fifo("started"), fifo("gate")
    async with Raw(server) as raw:
        raw.send(upgrade(f"/late?report={report}&started={started}&gate={gate}{accept}"))
        await started.wait()
        if accept:
            assert (await raw.head())[0] == 101
            raw.send(frame(TEXT, b"1") + frame(BINARY, b"x" * 60_000) * 3 + frame(CLOSE, b"\x0f\xa1"))
            assert await raw.closed() == (4001, b"")
    await eventually(lambda: not server.front.connections)
    gate.release()
    came = json.loads(await report.wait())
    if accept:
        large = [["websocket.receive", 60_000]] * 3
        assert came == [["websocket.receive", 1], *large, ["websocket.disconnect", 4001]]
    else:
        assert came == [["websocket.connect", None], ["websocket.disconnect", 1006]]
    await quiet(server)


async def test_the_client_leaves_before_the_accept(server: Any, fifo: Any) -> None:
    report, started, gate = fifo("report"), fifo("started"), fifo("gate")
    async with Raw(server) as raw:
        raw.send(upgrade(f"/slow?report={report}&started={started}&gate={gate}"))
        await started.wait()
    await eventually(lambda: not server.front.connections)
    gate.release()
    assert json.loads(await report.wait()) == ["ClientGone"]
    await quiet(server)


async def test_the_client_leaves_before_its_app_has_waited(isolation: str, fifo: Any) -> None:
    """The app runs, though its worker has not said so: it is told, and not cancelled. What is behind it is not run."""
    report, started, gate = fifo("report"), fifo("started"), fifo("gate")
    async with serving(isolation) as server:
        async with Raw(server) as raw, Raw(server) as other:
            raw.send(upgrade(f"/hold?report={report}&started={started}&gate={gate}"))
            await started.wait()
            other.send(upgrade("/echo"))
            await eventually(lambda: server.front.requests == 2)
        await eventually(lambda: not server.front.connections)
        gate.release()
        assert json.loads(await report.wait()) == [
            ["websocket.connect", None], ["websocket.disconnect", 1006], ["ClientGone", None],
        ]  # fmt: skip
        await quiet(server)
        async with Raw(server) as raw:
            raw.send(b"GET /begun HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert (await raw.rest()).endswith(b'"/hold"]')


async def test_an_app_that_does_not_end_with_its_client(isolation: str, fifo: Any) -> None:
    """It has the time of a request."""
    report = fifo("report")
    async with serving(isolation, timeout=0.2) as server:
        async with Raw(server) as raw:
            await raw.open(f"/stay?report={report}")
            raw.send(frame(CLOSE, b"\x0f\xa1"))
            assert await raw.closed() == (4001, b"")
        assert json.loads(await report.wait()) == ["websocket.disconnect", 4001, "CancelledError"]
        await quiet(server)


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (1000, "", (1000, "")),
        (4001, "because \u2603", (4001, "because \u2603")),
        (1005, "", (1000, "")),
        (3000, "\u2603" * 60, (3000, "\u2603" * 41)),
        (70_000, "", (1011, "")),
        (3, "", (1011, "")),
    ],
)
async def test_the_app_closes(server: Any, fifo: Any, code: int, reason: str, told: tuple[int, str]) -> None:
    report = fifo("report")
    async with connect(server, f"/close?code={code}&reason={reason}&report={report}") as socket:
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await socket.recv()
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == told
    assert json.loads(await report.wait()) == ["websocket.disconnect", told[0]]
    await quiet(server)


async def test_a_client_that_does_not_answer_the_close(server: Any, fifo: Any) -> None:
    report = fifo("report")
    async with Raw(server) as raw:
        await raw.open(f"/close?code=4001&report={report}")
        assert await raw.frame() == (CLOSE, b"\x0f\xa1")
        raw.send(frame(TEXT, b"nobody reads this") + frame(PING, b"nor answers this"))
        connection = only_connection(server)
        assert 0 < connection.deadline - server.front.now <= 5.1
        connection.deadline = 0.0
        with contextlib.suppress(ConnectionResetError):
            assert await raw.rest() == b""
    assert json.loads(await report.wait()) == ["websocket.disconnect", 1006]
    await quiet(server)


async def test_an_app_that_fails(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with connect(server, "/raise") as socket:
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await socket.recv()
        assert caught.value.rcvd.code == 1011
    await quiet(server)
    assert [record.name for record in caplog.records if "in the socket" in record.getMessage()] == ["subpool.error"]


async def test_text_that_is_no_text(server: Any, fifo: Any) -> None:
    report = fifo("report")
    async with connect(server, f"/surrogate?report={report}") as socket:
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await socket.recv()
        assert caught.value.rcvd.code == 1011
    await quiet(server)


@pytest.mark.parametrize("early", [True, False])
async def test_a_worker_that_dies(isolation: str, early: bool) -> None:
    if isolation != "process":
        pytest.skip("would end the test itself")
    async with serving(isolation) as server:
        async with Raw(server) as raw:
            if early:
                raw.send(upgrade("/exit?early=1"))
                assert (await raw.head())[0] == 502
            else:
                await raw.open("/exit")
                raw.send(frame(TEXT, b"now"))
                assert await raw.frame() == (CLOSE, b"\x03\xf3")
                raw.send(frame(CLOSE, b"\x03\xf3"))
                assert await raw.rest() == b""
        async with connect(server, "/echo") as socket:
            await socket.send("again")
            assert await socket.recv() == "again"


async def test_the_server_ends(isolation: str, fifo: Any) -> None:
    reports = fifo("open"), fifo("opening")
    started, gate = fifo("started"), fifo("gate")
    async with serving(isolation) as server:
        async with connect(server, f"/echo?report={reports[0]}") as socket, Raw(server) as raw:
            await socket.send("x")
            assert await socket.recv() == "x"
            raw.send(upgrade(f"/slow?report={reports[1]}&started={started}&gate={gate}"))
            await started.wait()
            async with anyio.create_task_group() as group:
                group.start_soon(server.stop, DEADLINE)
                with pytest.raises(websockets.ConnectionClosed) as caught:
                    await socket.recv()
                assert caught.value.rcvd.code == 1012
                assert json.loads(await reports[0].wait()) == [1012, ""]
                assert (await raw.head())[0] == 503
                await raw.rest()
                raw.writer.close()
                gate.release()
                assert json.loads(await reports[1].wait()) == ["ClientGone"]


# what must not be


BAD = {
    "not masked": (frame(TEXT, b"hello", mask=None), 1002),
    "reserved bit 1": (frame(TEXT, b"hello", rsv=4), 1002),
    "reserved bit 3": (frame(TEXT, b"hello", rsv=1), 1002),
    "unknown opcode": (frame(3, b"hello"), 1002),
    "unknown control opcode": (frame(11), 1002),
    "fragmented ping": (frame(PING, b"", fin=False), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"hello"), 1002),
    "message within a message": (frame(TEXT, b"one", fin=False) + frame(TEXT, b"two"), 1002),
    "length longer than needed": (b"\x81\xfe\x00\x05" + b"\0" * 9, 1002),
    "length beyond 63 bits": (b"\x82\xff" + b"\xff" * 8 + b"\0" * 4, 1002),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close with 1005": (frame(CLOSE, struct.pack("!H", 1005)), 1002),
    "close with 999": (frame(CLOSE, struct.pack("!H", 999)), 1002),
    "close with 5000": (frame(CLOSE, struct.pack("!H", 5000)), 1002),
    "close with a bad reason": (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
    "bad UTF-8": (frame(TEXT, b"\xce\xba\xe1\xff"), 1007),
    "bad UTF-8 before its message ends": (frame(TEXT, b"\xff", fin=False), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "half a character": (frame(TEXT, b"\xe2\x98"), 1007),
    "too long": (frame(BINARY, b"x" * ((1 << 20) + 1)), 1009),
    "too long in pieces": (frame(BINARY, b"x" * (1 << 20), fin=False) + frame(CONTINUATION, b"x"), 1009),
    "too long in UTF-8": (frame(TEXT, "\u2603".encode() * (1 << 19)), 1009),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_frames(server: Any, fifo: Any, name: str) -> None:
    data, code = BAD[name]
    report = fifo("report")
    async with Raw(server) as raw:
        await raw.open(f"/echo?report={report}")
        raw.send(frame(TEXT, b"good"))
        assert await raw.frame() == (TEXT, b"good")
        raw.send(data + frame(TEXT, b"nobody reads this"))
        assert (await raw.closed())[0] == code
    assert json.loads(await report.wait())[0] == code
    await quiet(server)


async def test_a_bad_frame_in_answer_to_the_close(server: Any) -> None:
    async with Raw(server) as raw:
        await raw.open("/close?code=4001")
        assert await raw.frame() == (CLOSE, b"\x0f\xa1")
        raw.send(frame(3))
        assert await raw.rest() == b""
    await quiet(server)


async def test_what_is_inflated_counts(isolation: str) -> None:
    """A thousand bytes of zeros are one when they come."""
    async with serving(isolation, websocket_compress=True, websocket_max_message=100_000) as server:
        for opcode, size, end in ((BINARY, 100_000, None), (BINARY, 100_001, 1009), (TEXT, 1 << 26, 1009)):
            async with Raw(server) as raw:
                headers = await raw.open("/echo", b"sec-websocket-extensions: permessage-deflate")
                assert headers[b"sec-websocket-extensions"].startswith(b"permessage-deflate")
                raw.send(frame(opcode, deflated(b"\0" * size), rsv=4))
                if end is None:
                    assert (await raw.frame())[0] == BINARY | 0x40
                else:
                    assert (await raw.closed())[0] == end
        async with Raw(server) as raw:
            await raw.open("/echo", b"sec-websocket-extensions: permessage-deflate")
            raw.send(frame(BINARY, b"\xff\xff\xff", rsv=4))
            assert (await raw.closed())[0] == 1007


# clocks


async def test_a_silent_client_is_pinged(isolation: str, fifo: Any) -> None:
    report = fifo("report")
    async with serving(isolation, websocket_idle_timeout=0.2) as server:
        async with Raw(server) as raw:
            await raw.open(f"/echo?report={report}")
            for answer in (frame(PONG), frame(PONG, b"unasked"), frame(TEXT, b"alive")):
                assert await raw.frame() == (PING, b"")
                raw.send(answer)
            assert await raw.frame() == (TEXT, b"alive")
            assert await raw.frame() == (PING, b"")
            assert (await raw.closed())[0] == 1011
        assert json.loads(await report.wait())[0] == 1006
        await quiet(server)


async def test_a_real_client_stays(isolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from subpool.http.ws_messages import Messages

    pings: list[bytes] = []
    ping = Messages.ping
    monkeypatch.setattr(Messages, "ping", lambda messages: pings.append(ping(messages)) or pings[-1])
    async with serving(isolation, websocket_idle_timeout=0.1) as server:
        async with connect(server, "/echo", ping_interval=None) as socket:
            await eventually(lambda: len(pings) == 4)
            await socket.send("still here")
            assert await socket.recv() == "still here"


async def test_a_client_that_waits_for_the_app_is_not_silent(isolation: str, fifo: Any) -> None:
    """Its pongs are not read while its messages are not."""
    gate = fifo("gate")
    async with serving(isolation, websocket_idle_timeout=0.1) as server:
        async with Raw(server) as raw:
            await raw.open(f"/count?gate={gate}")
            raw.send(frame(BINARY, b"\0" * 70_000) + frame(BINARY, b"\1" * 70_000) + frame(TEXT, b"end"))
            for _ in range(3):
                assert await raw.frame() == (PING, b"")
            gate.release()
            while (found := await raw.frame()) == (PING, b""):
                raw.send(frame(PONG))
            assert found == (TEXT, b"[140000, true]")


async def test_a_client_that_does_not_read(isolation: str, fifo: Any) -> None:
    """`write_timeout` without progress, and it is gone."""
    report = fifo("report")
    async with serving(isolation, write_timeout=0.3, websocket_idle_timeout=0.1) as server:
        async with Raw(server) as raw:
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
            raw.send(upgrade(f"/flood?report={report}"))
            assert int(await report.wait()) < 400
        await quiet(server)


# back-pressure


async def test_an_app_that_does_not_read_holds_the_client_back(server: Any, fifo: Any) -> None:
    """At most so much of what the client sends is here; all of it arrives when the app asks."""
    gate = fifo("gate")
    async with connect(server, f"/count?gate={gate}") as socket:
        size, count = 60_000, 300  # more than sockets hold

        async def send() -> None:
            for number in range(count):
                await socket.send(bytes([number % 256]) * size)
            await socket.send("end")

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            connection = only_connection(server)
            await eventually(lambda: not connection._reading)
            async with Raw(server) as other:  # others are served
                await other.open("/echo")
                for _ in range(20):
                    other.send(frame(TEXT, b"x"))
                    assert await other.frame() == (TEXT, b"x")
            assert not connection._reading
            assert connection._session._inbox._held < 64 * 1024 + size + 64
            gate.release()
            with anyio.fail_after(DEADLINE):
                assert json.loads(await socket.recv()) == [size * count, True]
            assert connection._reading


async def test_small_messages_are_held_back_too(server: Any, fifo: Any) -> None:
    gate = fifo("gate")
    async with Raw(server) as raw:
        await raw.open(f"/count?gate={gate}")
        raw.send(frame(BINARY) * 50_000 + frame(TEXT, b"end"))
        connection = only_connection(server)
        await eventually(lambda: not connection._reading)
        assert len(connection._session._inbox._events) < 2000
        gate.release()
        assert await raw.frame() == (TEXT, b"[0, true]")


async def test_a_client_that_reads_slowly_holds_the_app_back(server: Any, fifo: Any) -> None:
    report = fifo("report")
    async with Raw(server) as raw:
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        raw.send(upgrade(f"/flood?report={report}"))
        await eventually(lambda: server.front.connections)
        await eventually(only_connection(server)._transport.get_write_buffer_size)
        async with connect(server, "/echo") as socket:  # others are served
            for _ in range(20):
                await socket.send("x")
                assert await socket.recv() == "x"
        (connection,) = (one for one in server.front.connections if one._transport.get_write_buffer_size())
        assert connection._transport.get_write_buffer_size() < 1 << 20
        assert report.empty()
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await raw.head())[0] == 101
        for number in range(100):
            opcode, payload = await raw.frame()
            assert (opcode, payload[:8]) == (BINARY, b"%08d" % number)
        raw.send(frame(CLOSE))
    assert 100 <= int(await report.wait()) < 600
    await quiet(server)


async def test_a_flood_of_pings_is_answered_with_what_there_is_room_for(server: Any, fifo: Any) -> None:
    async with Raw(server) as raw:
        await raw.open("/echo")
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = only_connection(server)
        pings = frame(PING, b"x" * 125) * 500
        for _ in range(4000):
            raw.send(pings)
            await raw.writer.drain()
            await asyncio.sleep(0)
            if connection._transport.get_write_buffer_size():
                break
        assert 0 < connection._transport.get_write_buffer_size() < 1000
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        raw.send(frame(PING, b"last"))
        with anyio.fail_after(DEADLINE):
            while (await raw.frame())[1] != b"last":
                pass


# other loops


def test_under_uvloop(isolation: str, fifo: Any) -> None:
    """Its transports differ: in what they buffer, and when they say so."""
    uvloop = pytest.importorskip("uvloop")
    report, gate = fifo("report"), fifo("gate")

    async def main() -> None:
        async with serving(isolation) as server:
            async with connect(server, "/echo") as socket:
                for message in ("text", b"x" * 300_000, ""):
                    await socket.send(message)
                    assert await socket.recv() == message
            with pytest.raises(websockets.InvalidStatus):
                async with connect(server, "/deny?status=401&pieces=100000,300000"):
                    pytest.fail("entered")
            async with Raw(server) as raw:
                await raw.open("/echo")
                raw.send(frame(3))
                assert (await raw.closed())[0] == 1002
            async with Raw(server) as raw:
                await raw.open(f"/count?gate={gate}")
                raw.send(frame(BINARY, b"\0" * 60_000) * 5 + frame(TEXT, b"end"))
                await eventually(lambda: server.front.connections and not only_connection(server)._reading)
                gate.release()
                assert await raw.frame() == (TEXT, b"[300000, false]")
            async with Raw(server) as raw:
                await raw.open(f"/flood?report={report}")
                raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await eventually(only_connection(server).unsent)
                assert only_connection(server).unsent() < 1 << 20
            assert int(await report.wait()) < 600
            await quiet(server)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# logs


async def test_the_access_log(isolation: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(isolation, access_log="common") as server:
        async with connect(server, "/echo"):
            pass
        for path in ("/refuse", "/deny?status=401&pieces=3,4"):
            with pytest.raises(websockets.InvalidStatus):
                async with connect(server, path):
                    pass
        await quiet(server)
    lines = [record.getMessage() for record in caplog.records if record.name == "subpool.access"]
    assert [line.partition('"')[2].split()[1:4:2] for line in lines] == [
        ["/echo", "101"], ["/refuse", "403"], ["/deny?status=401&pieces=3,4", "401"],
    ]  # fmt: skip


async def test_what_an_app_gets_from_the_end_is_no_error(
    server: Any, caplog: pytest.LogCaptureFixture, fifo: Any
) -> None:
    """`send()` raises in an app whose client has left; that it lets this out is not worth a traceback."""
    report = fifo("report")
    async with Raw(server) as raw:
        await raw.open(f"/flood?report={report}")
        await raw.frame()
    await report.wait()
    await quiet(server)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
