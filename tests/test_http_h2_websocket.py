"""WebSocket over HTTP/2 (RFC 8441): what differs from HTTP/1.1. The session itself: test_http_websocket."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Fifo, eventually

pytest.importorskip("h2")
pytest.importorskip("wsproto")
pytest.importorskip("httptools")
pytest.importorskip("pydantic")

from h2_kit import CANCEL, NO_ERROR, REFUSED_STREAM, Answer, Client, calls, connect, connection, serving
from ws_client import BINARY, CLOSE, PING, PONG, TEXT, frame

pytestmark = pytest.mark.anyio

MakeFifo = Callable[[str], Fifo]


@pytest.fixture(scope="module")
async def server(isolation: str, anyio_backend: str) -> AsyncIterator[Any]:
    async with serving(isolation, "ws_app:app") as server:
        yield server


@pytest.fixture
async def client(server: Any) -> AsyncIterator[Client]:
    async with await connect(server) as client:
        yield client


def ask(client: Client, path: str, *more: tuple[str, str], **changes: str) -> int:
    """Ask for a WebSocket; the stream."""
    fields = {"method": "CONNECT", "protocol": "websocket", "scheme": "http", "path": path,
              "authority": client.authority, **changes}  # fmt: skip
    head = [(":" + name, value) for name, value in fields.items() if value]
    return client.request_raw([*head, ("sec-websocket-version", "13"), *more], end=False)


async def opened(client: Client, path: str, *more: tuple[str, str]) -> int:
    number = ask(client, path, *more)
    await client.until(lambda: client.answers[number].status or client.answers[number].over)
    assert client.answers[number].status == 200
    return number


def messages(answer: Answer) -> list[tuple[int, bytes]]:
    """The frames that are complete, as opcode and payload; a server does not mask."""
    found, at, data = [], 0, answer.body
    while len(data) - at >= 2:
        size, start = data[at + 1], at + 2
        if size == 126:
            size, start = struct.unpack_from("!H", data, start)[0], start + 2
        elif size == 127:
            size, start = struct.unpack_from("!Q", data, start)[0], start + 8
        if len(data) < start + size:
            break
        found.append((data[at] & 15, data[start : start + size]))
        at = start + size
    return found


def closed(code: int, reason: str = "") -> tuple[int, bytes]:
    return CLOSE, struct.pack("!H", code) + reason.encode()


async def test_messages_both_ways(server: Any, client: Client, fifo: MakeFifo) -> None:
    report = fifo("report")
    number = await opened(client, f"/echo?report={report}")
    answer = client.answers[number]
    assert answer.get("sec-websocket-accept") is None
    assert answer.get("upgrade") is None
    client.data(number, frame(TEXT, "héllo".encode()) + frame(BINARY, b"\0\1") + frame(PING, b"p"))
    await client.until(lambda: len(messages(answer)) == 3)
    assert sorted(messages(answer)) == [(TEXT, "héllo".encode()), (BINARY, b"\0\1"), (PONG, b"p")]
    client.data(number, frame(CLOSE, struct.pack("!H", 1000) + b"bye"))
    await client.until(lambda: answer.ended)
    assert messages(answer)[-1] == closed(1000, "bye")
    assert json.loads(await report.wait()) == [1000, "bye"]
    client.h2.end_stream(number)
    client.flush()
    await eventually(lambda: not calls(server) and not connection(server)._answered)
    assert answer.reset is None
    client.answers.clear()
    number = await opened(client, "/echo")  # the connection goes on


async def test_the_scope(client: Client) -> None:
    more = [("sec-websocket-protocol", "a, b"), ("cookie", "x=1")]
    number = await opened(client, "/scope?choose=b", *more)
    answer = client.answers[number]
    await client.until(lambda: len(messages(answer)) == 2)
    scope = json.loads(messages(answer)[0][1])
    assert (scope["type"], scope["http_version"], scope["scheme"]) == ("websocket", "2", "ws")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/scope", "/scope", "choose=b")
    assert scope["subprotocols"] == ["a", "b"]
    assert ["host", client.authority] in scope["headers"]
    assert ["cookie", "x=1"] in scope["headers"]
    assert answer.get("sec-websocket-protocol") == "b"
    assert [value for name, value in answer.headers if name == "x-mine"] == ["1", "2"]
    assert messages(answer)[1] == closed(1000)


async def test_many_on_one_connection(client: Client) -> None:
    numbers = [await opened(client, "/echo") for _ in range(20)]
    for number in numbers:
        client.data(number, frame(TEXT, b"%d" % number))
    for number in numbers:
        await client.until(lambda number=number: messages(client.answers[number]))
        assert messages(client.answers[number]) == [(TEXT, b"%d" % number)]


async def test_refusals(server: Any, client: Client, fifo: MakeFifo) -> None:
    report = fifo("report")
    assert (await client.answer(ask(client, f"/refuse?report={report}"))).status == 403
    assert json.loads(await report.wait()) == ["websocket.disconnect"]
    answer = await client.answer(ask(client, f"/deny?status=401&pieces=3,4&report={report}"))
    assert (answer.status, answer.body, answer.get("x-why")) == (401, b"x" * 7, "because")
    answer = await client.answer(ask(client, "/deny?status=401&pieces=3,4&length=5"))
    assert (answer.status, answer.body, answer.ended) == (401, b"x" * 5, True)
    answer = await client.answer(ask(client, "/deny?status=401&pieces=3&length=5"))
    assert (answer.status, answer.reset) == (401, CANCEL)
    answer = await client.answer(ask(client, "/deny?status=401&pieces=3,4&raise=1"))
    assert (answer.status, answer.reset) == (401, CANCEL)
    answer = await client.answer(ask(client, "/raise?early=1"))
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    assert (await client.answer(ask(client, "/echo", ("sec-websocket-version", "12")))).status == 426
    await eventually(lambda: not calls(server))


async def test_a_wsgi_app_has_none(isolation: str) -> None:
    async with serving(isolation, "wsgi_app:app") as server, await connect(server) as client:
        assert (await client.answer(ask(client, "/hello"))).status == 400
        assert (await client.get("/hello")).status == 200


@pytest.mark.parametrize("way", ["reset", "end", "lose"])
async def test_clients_that_leave(server: Any, fifo: MakeFifo, way: str) -> None:
    report = fifo("report")
    async with await connect(server) as client:
        number = await opened(client, f"/echo?report={report}")
        if way == "reset":
            client.reset(number)
        elif way == "end":
            client.h2.end_stream(number)
            client.flush()
            assert (await client.answer(number)).reset == CANCEL
        else:
            client.close()
        assert json.loads(await report.wait())[0] == 1006
        await eventually(lambda: not calls(server))


async def test_frames_that_are_wrong(client: Client, fifo: MakeFifo) -> None:
    report = fifo("report")
    number = await opened(client, f"/echo?report={report}")
    client.data(number, frame(TEXT, b"\xff"))
    answer = await client.answer(number)
    assert (messages(answer)[-1][1][:2], answer.ended) == (struct.pack("!H", 1007), True)
    assert json.loads(await report.wait())[0] == 1007


async def test_a_message_that_is_too_large() -> None:
    async with serving("subinterpreter", "ws_app:app", websocket_max_message=1000) as server:
        async with await connect(server) as client:
            number = await opened(client, "/echo")
            client.data(number, frame(BINARY, b"x" * 1001))
            answer = await client.answer(number)
            assert messages(answer)[-1][1][:2] == struct.pack("!H", 1009)


async def test_an_error_of_the_app(client: Client) -> None:
    number = await opened(client, "/raise")
    await client.until(lambda: messages(client.answers[number]))
    assert messages(client.answers[number]) == [closed(1011)]
    client.data(number, frame(CLOSE, struct.pack("!H", 1011)))
    assert (await client.answer(number)).ended


async def test_an_app_that_does_not_read_stops_its_client(server: Any, client: Client, fifo: MakeFifo) -> None:
    gate = fifo("gate")
    number = await opened(client, f"/count?gate={gate}")
    sent = 0
    while client.h2.local_flow_control_window(number) >= 10_000:
        client.data(number, frame(BINARY, bytes([sent // 8000 % 256]) * 8000))
        sent += 8000
        await client.pinged()
    assert sent < 200_000
    other = await opened(client, "/echo")
    client.data(other, frame(TEXT, b"x"))
    await client.until(lambda: messages(client.answers[other]))
    gate.release()
    await client.until(lambda: client.h2.local_flow_control_window(number) > 30_000)
    client.data(number, frame(TEXT, b"end"))
    await client.until(lambda: messages(client.answers[number]))
    assert json.loads(messages(client.answers[number])[0][1]) == [sent, True]


async def test_a_client_that_does_not_read_stops_the_app(server: Any, fifo: MakeFifo) -> None:
    report = fifo("report")
    async with await connect(server, reads=False) as client:
        number = await opened(client, f"/flood?report={report}")
        await client.until(lambda: len(client.answers[number].body) == 65535)
        stream = connection(server)._streams[number]
        await eventually(lambda: stream.unsent > 2 * 65536)
        for _ in range(5):
            before = len(client.answers[number].body)
            client.read(number)
            await client.until(lambda before=before: len(client.answers[number].body) >= before + 60000)
        client.reset(number)
        assert json.loads(await report.wait()) < 32


async def test_silence(isolation: str) -> None:
    async with serving(isolation, "ws_app:app", websocket_idle_timeout=0.3) as server, await connect(server) as client:
        number = await opened(client, "/echo")
        await client.until(lambda: messages(client.answers[number]) == [(PING, b"")])
        client.data(number, frame(PONG))
        await client.until(lambda: messages(client.answers[number]) == [(PING, b"")] * 2)
        answer = await client.answer(number)
        assert messages(answer)[-1][0] == CLOSE


async def test_draining() -> None:
    async with serving("subinterpreter", "ws_app:app") as server, await connect(server) as client:
        number = await opened(client, "/echo")
        connection(server).drain()
        await client.until(lambda: messages(client.answers[number]))
        assert messages(client.answers[number]) == [closed(1012)]
        client.data(number, frame(CLOSE, struct.pack("!H", 1012)), end=True)
        assert (await client.answer(number)).ended
        await client.ended()
        assert client.goaway == (NO_ERROR, number)


async def test_an_answer_that_takes_too_long(fifo: MakeFifo) -> None:
    gate, started = fifo("gate"), fifo("started")
    async with serving("subinterpreter", "ws_app:app", timeout=0.3) as server, await connect(server) as client:
        assert (await client.answer(ask(client, f"/slow?gate={gate}&started={started}"))).status == 504


async def test_a_bad_header_of_the_app(client: Client) -> None:
    answer = await client.answer(ask(client, f"/accept?header={quote('bad name')}"))
    assert answer.status == 500 or answer.reset is not None
    assert (await client.get("/x")).body == b"/x"


async def test_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "subpool.access")
    async with serving("subinterpreter", "ws_app:app", access_log="json") as server, await connect(server) as client:
        await opened(client, "/echo?x")
        await client.answer(ask(client, "/refuse"))
        lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "subpool.access"]
    assert [(one["method"], one["target"], one["status"], one["version"]) for one in lines] == [
        ("CONNECT", "/echo?x", 200, "2"),
        ("CONNECT", "/refuse", 403, "2"),
    ]


async def test_no_more_than_there_may_be(server: Any, client: Client) -> None:
    for _ in range(100):
        await opened(client, "/echo")
    client.h2.remote_settings.max_concurrent_streams = 200
    client.h2.remote_settings.acknowledge()
    assert (await client.answer(ask(client, "/echo"))).reset == REFUSED_STREAM
