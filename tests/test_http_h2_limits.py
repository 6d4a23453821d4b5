"""HTTP/2: what is refused, what ends a connection, and the clocks."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from conftest import Fifo, eventually

pytest.importorskip("h2")
pytest.importorskip("httptools")
pytest.importorskip("pydantic")

from h2_kit import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    HEADERS,
    NO_ERROR,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Client,
    Pairs,
    calls,
    connect,
    connection,
    frame,
    script,
    serving,
)

pytestmark = pytest.mark.anyio

MakeFifo = Callable[[str], Fifo]
KIND = "subinterpreter"  # nothing here depends on it


@pytest.fixture(scope="module")
async def server(anyio_backend: str) -> AsyncIterator[Any]:
    async with serving(KIND) as server:
        yield server


@pytest.fixture
async def client(server: Any) -> AsyncIterator[Client]:
    async with await connect(server) as client:
        yield client


@pytest.fixture
async def journal(server: Any) -> AsyncIterator[Callable[[], Any]]:
    """What the app was called for."""
    async with await connect(server) as client:

        async def told() -> Any:
            return json.loads((await client.get("/journal")).body)

        await told()
        yield told


def plain(**changes: str | None) -> list[tuple[str, str]]:
    """The pseudo-headers of a good request, changed."""
    fields: dict[str, str | None] = {"method": "GET", "scheme": "http", "authority": "example.test", "path": "/never"}
    return [(":" + name, value) for name, value in {**fields, **changes}.items() if value is not None]


# requests that are none


MALFORMED: dict[str, Pairs] = {
    "upper case": [*plain(), ("X-Upper", "1")],
    "space in a name": [*plain(), ("x y", "1")],
    "colon in a name": [*plain(), ("x:y", "1")],
    "no name": [*plain(), ("", "1")],
    "line end in a value": [*plain(), ("x", "a\r\nb: c")],
    "NUL in a value": [*plain(), ("x", "a\0b")],
    "control in a value": [*plain(), ("x", "a\x1fb")],
    "space before a value": [*plain(), ("x", " a")],
    "space behind a value": [*plain(), ("x", "a\t")],
    "connection": [*plain(), ("connection", "close")],
    "transfer-encoding": [*plain(), ("transfer-encoding", "chunked")],
    "upgrade": [*plain(), ("upgrade", "h2c")],
    "keep-alive": [*plain(), ("keep-alive", "5")],
    "proxy-connection": [*plain(), ("proxy-connection", "close")],
    "te": [*plain(), ("te", "gzip")],
    "no method": plain(method=None),
    "no scheme": plain(scheme=None),
    "no path": plain(path=None),
    "empty path": plain(path=""),
    "a pseudo-header of responses": [*plain(), (":status", "200")],
    "unknown pseudo-header": [*plain(), (":colour", "blue")],
    "pseudo-header twice": [*plain(), (":path", "/never")],
    "pseudo-header behind": [*plain(path=None), ("x", "y"), (":path", "/never")],
    "method is no token": plain(method="GE T"),
    "CONNECT with a path": plain(method="CONNECT"),
    "protocol without CONNECT": [*plain(), (":protocol", "websocket")],
    "a length without a body": [*plain(), ("content-length", "5")],
}


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_request_is_reset(client: Client, journal: Any, head: Pairs) -> None:
    answer = await client.answer(client.request_raw(head))
    assert (answer.reset, answer.status) == (PROTOCOL_ERROR, 0)
    assert (await client.get("/hello")).status == 200
    assert await journal() == ["GET /hello"]


REFUSED: dict[str, tuple[Pairs, int]] = {
    "no authority": (plain(authority=None), 400),
    "another host": ([*plain(), ("host", "other.test")], 400),
    "two hosts": ([*plain(authority=None), ("host", "a.test"), ("host", "b.test")], 400),
    "user in the authority": (plain(authority="user@example.test"), 400),
    "path in the authority": (plain(authority="example.test/x"), 400),
    "path that is none": (plain(path="never"), 400),
    "absolute path": (plain(path="http://example.test/never"), 400),
    "space in the path": (plain(path="/never again"), 400),
    "fragment": (plain(path="/never#here"), 400),
    "star": (plain(path="*"), 400),
    "CONNECT": (plain(method="CONNECT", scheme=None, path=None), 405),
    "a protocol that we do not know": ([*plain(method="CONNECT"), (":protocol", "connect-udp")], 501),
    "long target": (plain(path="/" + "x" * 8190), 414),
    "long header": ([*plain(), ("x", "y" * 8190)], 431),
    "many headers": ([*plain(), *[(f"x-{number}", "") for number in range(101)]], 431),
    "large head": ([*plain(), *[(f"x-{number}", "y" * 8000) for number in range(9)]], 431),
}


@pytest.mark.parametrize(("head", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_gets_an_answer_of_the_server(client: Client, journal: Any, head: Pairs, status: int) -> None:
    answer = await client.answer(client.request_raw(head))
    assert (answer.status, answer.ended) == (status, True)
    assert answer.get("content-type") == "text/plain; charset=utf-8"
    assert answer.get("content-length") == str(len(answer.body))
    assert (await client.get("/hello")).status == 200
    assert await journal() == ["GET /hello"]


async def test_what_is_just_right(client: Client) -> None:
    many = [("x", "y" * 8189), *[(f"x-{number}", "") for number in range(98)], ("te", "trailers")]
    answer = await client.get("/scope", many)
    assert answer.status == 200
    assert (await client.get("/" + "x" * 8189)).status == 200
    scope = literal_eval((await client.answer(client.request_raw([*plain(method="OPTIONS", path="*")]))).body.decode())
    assert (scope["path"], scope["raw_path"]) == ("*", b"*")
    assert (await client.get("/hello", [("host", client.authority.upper())])).status == 200
    twice = [("content-length", "1"), ("content-length", "1")]
    assert (await client.get("/echo", twice, method="POST", body=b"x")).body == b"x"


async def test_bad_trailers(client: Client) -> None:
    for trailers in ([("X-Upper", "1")], [(":path", "/x")], [("connection", "close")]):
        number = client.request("/echo", method="POST", end=False)
        client.h2.send_headers(number, trailers, end_stream=True)
        client.flush()
        assert (await client.answer(number)).reset == PROTOCOL_ERROR


@pytest.mark.parametrize(("declared", "sent"), [(5, b"four"), (3, b"four"), (0, b"x"), (1, b"")])
async def test_a_small_body_that_is_not_as_long_as_it_says(
    client: Client, journal: Any, declared: int, sent: bytes
) -> None:  # fmt: skip
    """It is awaited, so that the app is not called."""
    number = client.request("/echo", [("content-length", str(declared))], method="POST", end=False)
    client.data(number, sent, end=True)
    assert (await client.answer(number)).reset == PROTOCOL_ERROR
    assert await journal() == []


@pytest.mark.parametrize(("declared", "sent"), [(20000, b"x" * 19999), (20000, b"x" * 20001), (20000, b"")])
async def test_a_body_that_is_not_as_long_as_it_says(
    client: Client, fifo: MakeFifo, declared: int, sent: bytes
) -> None:  # fmt: skip
    report, gate = fifo("report"), fifo("gate")
    waiting = client.request(f"/gate?gate={gate}")
    path = f"/listen?report={report}&started={report}"
    number = client.request(path, [("content-length", str(declared))], method="POST", end=False)
    assert await report.wait() == b"."
    client.data(number, sent, end=True)
    assert (await client.answer(number)).reset == PROTOCOL_ERROR
    told = b""
    while not told.endswith(b"http.disconnect;"):
        told += await report.wait()
    assert b"False" not in told  # the app never saw the end of the body
    gate.release()
    assert (await client.answer(waiting)).status == 200


@pytest.mark.parametrize("value", ["x", "-1", "1, 2", "+1", ""])
async def test_a_length_that_is_none(client: Client, value: str) -> None:
    """The library ends the connection for that."""
    client.request("/never", [("content-length", value)], method="POST", end=False)
    await client.ended()
    assert client.goaway is not None
    assert client.goaway[0] == PROTOCOL_ERROR


async def test_a_large_body(fifo: MakeFifo) -> None:
    started, report = fifo("started"), fifo("report")
    async with serving(KIND, max_body=1000) as server, await connect(server) as client:
        assert (await client.get("/echo", method="POST", body=b"x" * 1000)).body == b"x" * 1000
        answer = await client.get("/never", [("content-length", "1001")], method="POST", end=False)
        assert (answer.status, answer.ended) == (413, True)
        number = client.request(f"/listen?started={started}&report={report}", method="POST", end=False)
        await started.wait()
        client.data(number, b"x" * 900)
        assert await report.wait() == b"http.request 900 True;"
        client.data(number, b"x" * 101)
        assert (await client.answer(number)).status == 413
        assert await report.wait() == b"http.disconnect;"
        await eventually(lambda: not calls(server))


async def test_a_request_that_no_worker_takes(fifo: MakeFifo) -> None:
    gate, started = fifo("gate"), fifo("started")
    async with serving(KIND, window=1, max_pending=1) as server, await connect(server) as client:
        first = client.request(f"/block?gate={gate}&started={started}")
        await started.wait()
        more = [client.request("/hello") for _ in range(4)]
        await client.until(lambda: any(client.answers[one].over for one in more))
        refused = [client.answers[one] for one in more if client.answers[one].over]
        assert {answer.status for answer in refused} == {503}
        assert refused[0].get("retry-after") == "1"
        gate.release()
        assert (await client.answer(first)).status == 200


# connections that end


async def raw(server: Any, *frames: bytes) -> Client:
    """A client that sends these frames behind its greeting."""
    client = await connect(server)
    await client.pinged()
    client.transport.write(b"".join(frames))
    return client


async def test_the_wrong_preface(server: Any) -> None:
    client = await connect(server)
    assert client.goaway is None
    client.close()
    client = await raw(server, PREFACE)  # twice
    await client.ended()
    assert client.goaway is not None
    client.close()


ERRORS: dict[str, tuple[bytes, int]] = {
    "data on stream 0": (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "data on a stream that is idle": (frame(DATA, 0, 99, b"x"), PROTOCOL_ERROR),
    "a stream of the server": (frame(HEADERS, END_HEADERS | END_STREAM, 2, b"\x82\x84\x86\x41\x01a"), PROTOCOL_ERROR),
    "no header block": (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff"), PROTOCOL_ERROR),
    "a frame that is too large": (frame(DATA, 0, 1, b"x" * 16385)[:10], 6),  # and has not even come
    "settings of a wrong size": (frame(SETTINGS, 0, 0, b"xxxxx"), 6),
    "a window that is too wide": (frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"), FLOW_CONTROL_ERROR),
    "a window update of 0": (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), PROTOCOL_ERROR),
    "a window that overflows": (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), FLOW_CONTROL_ERROR),
    "a continuation of nothing": (frame(CONTINUATION, END_HEADERS, 1, b"x"), PROTOCOL_ERROR),
    "something between header frames": (frame(HEADERS, 0, 1, b"\x82") + frame(PING, 0, 0, b"12345678"), PROTOCOL_ERROR),
    "a reset of stream 0": (frame(RST_STREAM, 0, 0, b"\0\0\0\0"), PROTOCOL_ERROR),
    "a ping of a wrong size": (frame(PING, 0, 0, b"1234"), 6),
}


@pytest.mark.parametrize(("frames", "code"), ERRORS.values(), ids=ERRORS)
async def test_mistakes_that_end_the_connection(server: Any, frames: bytes, code: int) -> None:
    async with await raw(server, frames) as client:
        await client.ended()
        assert client.goaway is not None
        assert client.goaway[0] == code
    await eventually(lambda: not server.front.connections)


async def test_what_is_unknown_is_ignored(server: Any) -> None:
    unknown, setting = frame(0x42, 0xFF, 0, b"whatever"), frame(SETTINGS, 0, 0, b"\x99\0\0\0\0\1")
    async with await raw(server, unknown, setting, frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")) as client:
        assert (await client.get("/hello")).status == 200


async def test_a_window_that_overflows_on_a_stream(client: Client, fifo: MakeFifo) -> None:
    gate, report = fifo("gate"), fifo("report")
    waiting = client.request(f"/gate?gate={gate}")
    number = client.request(f"/listen?report={report}")
    assert await report.wait() == b"http.request 0 False;"
    client.raw(frame(WINDOW_UPDATE, 0, number, b"\x7f\xff\xff\xff"))
    assert (await client.answer(number)).reset == FLOW_CONTROL_ERROR
    assert await report.wait() == b"http.disconnect;"
    gate.release()
    assert (await client.answer(waiting)).status == 200


async def flooded(server: Any, client: Client, flood: bytes, times: int = 40) -> None:
    """The flood ends the connection, and is no burden: at most `times` pieces are sent."""
    with pytest.raises((AssertionError, TimeoutError)):  # `pinged` says that the connection is lost
        for _ in range(times):
            client.raw(flood)
            await client.pinged()
            assert client.goaway is None
    await client.ended()
    assert client.goaway is not None, client.why
    assert client.goaway[0] == ENHANCE_YOUR_CALM, client.why
    client.close()
    await eventually(lambda: not server.front.connections and not calls(server))


@pytest.mark.parametrize(
    "piece",
    [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS),
        frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"),
        frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
        frame(RST_STREAM, 0, 1, b"\0\0\0\x08"),
        frame(0x42),
    ],
    ids=["ping", "settings", "priority", "window", "resets of one stream", "unknown"],
)
async def test_floods_of_one_frame(server: Any, piece: bytes) -> None:
    client = await connect(server)
    await client.get("/hello")
    await flooded(server, client, piece * 500)


async def test_a_flood_of_empty_data(server: Any) -> None:
    client = await connect(server)
    number = client.request("/echo", method="POST", end=False)
    await flooded(server, client, frame(DATA, 0, number) * 100)


async def calmed(server: Any, client: Client, made: int) -> None:
    """The connection has ended for a flood, before 1,000 of it were made, and left no request behind."""
    await client.ended()
    assert client.goaway is not None
    assert client.goaway[0] == ENHANCE_YOUR_CALM
    assert made < 1000
    client.close()
    await eventually(lambda: not calls(server))


async def test_rapid_reset(server: Any) -> None:
    """CVE-2023-44487. It ends early, and the app is not left with the requests."""
    client = await connect(server)
    made = 0
    with pytest.raises((AssertionError, TimeoutError)):
        for _ in range(20):
            for _ in range(100):
                client.reset(client.request("/gate?gate=/dev/null"))
                made += 1
            await client.pinged()
            assert client.goaway is None
    await calmed(server, client, made)


async def test_resets_that_the_client_makes_us_send(server: Any) -> None:
    """CVE-2025-8671: each stream is good, and then is sent what breaks it."""
    client = await connect(server)
    made = 0
    with pytest.raises((AssertionError, TimeoutError)):
        for _ in range(20):
            for _ in range(50):
                number = client.request("/hello", [("content-length", "1")], method="POST", end=False)
                client.data(number, b"xx")
                made += 1
            await client.pinged()
            assert client.goaway is None
    await calmed(server, client, made)


@pytest.mark.parametrize("size", [0, 1, 16384])
async def test_a_header_block_without_end(server: Any, size: int) -> None:
    client = await connect(server)
    number = client.h2.get_next_available_stream_id()
    client.raw(frame(HEADERS, 0, number, b"\x82"))
    block = frame(CONTINUATION, 0, number, b"\x0f\x2b" + b"\x7f" * (size - 2) if size > 1 else b"\x82" * size)
    with pytest.raises((AssertionError, TimeoutError)):
        for _ in range(40):
            client.raw(block * 10)
            await client.pinged()
    await client.ended()
    assert client.goaway is not None
    client.close()


async def test_a_header_list_that_grows_out_of_few_bytes(server: Any) -> None:
    """Refused before it is there: a large value in the table, named again and again (CVE-2016-6581)."""
    client = await connect(server)
    large = client.h2.encoder.encode([*plain(), ("x", "y" * 4000)])
    client.raw(frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes(large)))
    again = bytes(client.h2.encoder.encode(plain())) + b"\xbe" * 8000
    client.raw(frame(HEADERS, END_HEADERS | END_STREAM, 3, again))
    await client.ended()
    assert client.goaway is not None
    assert client.goaway[0] == ENHANCE_YOUR_CALM
    client.close()


async def test_use_is_no_flood(server: Any) -> None:
    """Thousands of requests, pings and window updates, and some resets among them."""
    async with await connect(server) as client:
        for turn in range(40):
            numbers = [client.request("/hello") for _ in range(20)]
            if turn % 5 == 0:
                client.reset(client.request("/hello"))
            await client.pinged()
            for number in numbers:
                assert (await client.answer(number)).status == 200
        assert len((await client.get("/big?5000000")).body) == 5_000_000
        assert client.goaway is None


async def test_a_client_that_never_reads_what_it_asks_for(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to pings and the like are no way to fill our memory either: nothing more is read then."""
    from subpool.http import h2_guard, h2_row

    monkeypatch.setattr(h2_guard.Guard, "look", lambda self, data, now: [])  # whatever the budget says
    async with await connect(server) as client:
        await client.get("/hello")
        client.transport.pause_reading()
        found = connection(server)
        for _ in range(2000):
            client.raw(frame(PING, 0, 0, b"12345678") * 1000)
        await eventually(lambda: not found._transport.is_reading())
        assert found._transport.get_write_buffer_size() < h2_row.STUFFED + 2**20


# clocks


async def test_a_client_that_says_nothing() -> None:
    async with serving(KIND, head_timeout=0.3, keepalive_timeout=60.0) as server, await connect(server) as client:
        await client.ended()
        assert client.goaway == (NO_ERROR, 0)


async def test_an_idle_connection() -> None:
    async with serving(KIND, keepalive_timeout=0.3, head_timeout=60.0) as server, await connect(server) as client:
        assert (await client.get("/hello")).status == 200
        await client.ended()
        assert client.goaway == (NO_ERROR, 1)
        client.close()
        await eventually(lambda: not server.front.connections)


async def test_a_connection_with_a_stream_is_not_idle(fifo: MakeFifo) -> None:
    started, report = fifo("started"), fifo("report")
    async with serving(KIND, keepalive_timeout=0.2, timeout=None) as server, await connect(server) as client:
        number = client.request(f"/listen?started={started}&report={report}")
        await started.wait()
        front = server.front
        until = front.loop.time() + 0.6
        await eventually(lambda: front.now > until)
        assert client.goaway is None
        client.reset(number)
        await client.ended()


async def test_a_response_that_does_not_start(fifo: MakeFifo) -> None:
    started = fifo("started")
    async with serving(KIND, timeout=1.5) as server, await connect(server) as client:
        number = client.request(f"/forever?started={started}")
        assert (await client.get("/hello")).status == 200
        answer = await client.answer(number)
        assert (answer.status, answer.body) == (504, b"the app did not answer in time\n")
        await eventually(lambda: not calls(server))
        assert (await client.get("/hello")).status == 200


async def test_a_response_that_has_started_has_time(fifo: MakeFifo) -> None:
    gate = fifo("gate")
    async with serving(KIND, timeout=0.2) as server, await connect(server) as client:
        number = client.request(script(["start", 200], ["body", "x", True], ["wait", str(gate)], ["body", "y"]))
        await client.until(lambda: client.answers[number].body == b"x")
        front = server.front
        until = front.loop.time() + 0.6
        await eventually(lambda: front.now > until)
        gate.release()
        assert (await client.answer(number)).body == b"xy"


async def test_a_body_that_does_not_come() -> None:
    async with serving(KIND, body_timeout=0.3, timeout=60.0) as server, await connect(server) as client:
        number = client.request("/echo", method="POST", end=False)
        client.data(number, b"x")
        assert (await client.answer(number)).status == 408
        await eventually(lambda: not calls(server))


async def test_a_small_body_that_does_not_come() -> None:
    async with serving(KIND, body_timeout=0.3, timeout=60.0) as server, await connect(server) as client:
        number = client.request("/echo", [("content-length", "9")], method="POST", end=False)
        client.data(number, b"x")
        assert (await client.answer(number)).status == 408
        assert json.loads((await client.get("/journal")).body) == []


async def test_a_body_that_does_not_come_behind_the_start(fifo: MakeFifo) -> None:
    report = fifo("report")
    async with serving(KIND, body_timeout=0.3) as server, await connect(server) as client:
        steps = [["start", 200], ["body", "x", True], ["tell", str(report)]]
        answer = await client.get(script(*steps), method="POST", end=False)
        assert (answer.status, answer.body, answer.reset) == (200, b"x", CANCEL)
        assert await report.wait() == b"http.disconnect 0;"


async def test_a_body_that_the_app_does_not_read_has_time(fifo: MakeFifo) -> None:
    gate = fifo("gate")
    async with serving(KIND, body_timeout=0.2) as server, await connect(server) as client:
        path = script(["wait", str(gate)], ["read"], ["start", 200], ["body"])
        number = client.request(path, method="POST", end=False)
        client.data(number, b"x")
        front = server.front
        until = front.loop.time() + 0.6
        await eventually(lambda: front.now > until)
        client.data(number, b"x", end=True)
        gate.release()
        assert (await client.answer(number)).status == 200


async def test_a_client_that_opens_no_window(fifo: MakeFifo) -> None:
    report = fifo("report")
    async with serving(KIND, write_timeout=0.4) as server, await connect(server, reads=False) as client:
        number = client.request(f"/endless?report={report}")
        answer = await client.answer(number)
        assert (answer.status, len(answer.body), answer.reset) == (200, 65535, CANCEL)
        assert json.loads(await report.wait())[1] == "os"
        client.h2.increment_flow_control_window(100_000)
        client.flush()
        assert (await client.get("/hello")).status == 200


async def test_a_client_that_reads_slowly(fifo: MakeFifo) -> None:
    async with serving(KIND, write_timeout=0.5) as server, await connect(server, reads=False) as client:
        number = client.request("/big?165535")
        front = server.front
        for turn in range(6):
            size = 65535 + turn * 20000 if turn < 5 else 165535
            await client.until(lambda size=size: len(client.answers[number].body) >= size)
            until = front.loop.time() + 0.25
            await eventually(lambda until=until: front.now > until)
            client.read(number, 20000)
        assert (await client.answer(number)).ended


async def test_a_client_that_does_not_read_its_socket(fifo: MakeFifo) -> None:
    report = fifo("report")
    async with serving(KIND, write_timeout=0.4) as server:
        client = await connect(server, settings={4: 2**31 - 1}, reads=False)
        client.h2.increment_flow_control_window(2**30)
        client.request(f"/endless?report={report}")
        client.transport.pause_reading()
        sent, kind = json.loads(await report.wait())
        assert kind == "os"
        assert sent * 65536 < 16 * 2**20  # what sockets hold, and some
        await eventually(lambda: not server.front.connections)
        client.close()


@pytest.mark.parametrize("path", ["/hint-flood?report=", "/tiny?report="])
async def test_a_flood_of_small_things_waits_for_a_client_that_does_not_read(server: Any, path: str) -> None:
    """Such an app would never give its worker's thread up."""
    async with await connect(server) as flooded, await connect(server) as other:
        flooded.transport.pause_reading()
        flooded.request(path)
        await eventually(lambda: calls(server) == 1)
        assert (await other.get("/hello")).status == 200


async def test_the_rest_of_a_body_that_nobody_wants(server: Any, client: Client) -> None:
    """The response is there, the client does not come to its end: after a while it is told."""
    number = client.request("/hello", method="POST", end=False)
    assert (await client.answer(number)).ended
    assert client.answers[number].reset is None
    await client.until(lambda: client.answers[number].reset is not None)
    assert client.answers[number].reset == NO_ERROR
    assert not connection(server)._answered
