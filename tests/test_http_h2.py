"""HTTP/2 through the server: requests, responses, their errors, flow control. The client is `h2_kit.Client`."""

from __future__ import annotations

import asyncio
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
    INTERNAL_ERROR,
    NO_ERROR,
    REFUSED_STREAM,
    Client,
    calls,
    connect,
    connection,
    script,
    serving,
)

pytestmark = pytest.mark.anyio

MakeFifo = Callable[[str], Fifo]


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def interface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def server(isolation: str, anyio_backend: str) -> AsyncIterator[Any]:
    """Serves ASGI; shared by the tests that leave nothing behind."""
    async with serving(isolation) as server:
        yield server


@pytest.fixture(scope="module")
async def both(isolation: str, interface: str, anyio_backend: str) -> AsyncIterator[Any]:
    """Serves each interface once."""
    async with serving(isolation, "http_app:app" if interface == "asgi" else "http_wsgi:app") as server:
        yield server


@pytest.fixture
async def client(server: Any) -> AsyncIterator[Client]:
    async with await connect(server) as client:
        yield client


@pytest.fixture
async def other(both: Any) -> AsyncIterator[Client]:
    """A client of `both`."""
    async with await connect(both) as client:
        yield client


# what apps see


async def test_a_request_and_its_response(other: Client, interface: str) -> None:
    answer = await other.get("/hello")
    assert (answer.status, answer.body, answer.ended, answer.reset) == (200, b"Hello, World!", True, None)
    assert answer.get("content-type") == "text/plain"
    if interface == "asgi":
        assert answer.get("content-length") == "13"
    assert answer.get("date")
    assert answer.get("server") is None


async def test_the_scope(server: Any, client: Client) -> None:
    answer = await client.get("/scope?a=%20b", [("x-one", "1"), ("accept", "*/*"), ("x-one", "2")])
    scope = literal_eval(answer.body.decode())
    assert scope["http_version"] == "2"
    assert (scope["type"], scope["method"], scope["scheme"], scope["root_path"]) == ("http", "GET", "http", "")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/scope", b"/scope", b"a=%20b")
    authority = client.authority.encode()
    assert scope["headers"] == [(b"host", authority), (b"x-one", b"1"), (b"accept", b"*/*"), (b"x-one", b"2")]
    assert scope["server"] == ("127.0.0.1", int(client.authority.rpartition(":")[2]))
    assert scope["client"] == client.transport.get_extra_info("sockname")
    assert scope["extensions"].keys() == {"http.response.trailers", "http.response.early_hint", "subpool"}


async def test_a_path_is_decoded_and_kept_raw(client: Client) -> None:
    scope = literal_eval((await client.get("/any/%C3%A9%2Fx?q=%C3%A9")).body.decode())
    assert (scope["path"], scope["raw_path"]) == ("/any/é/x", b"/any/%C3%A9%2Fx")
    assert scope["query_string"] == b"q=%C3%A9"


async def test_the_environ(isolation: str) -> None:
    async with serving(isolation, "http_wsgi:app") as server, await connect(server) as client:
        answer = await client.get("/environ?a=b", [("cookie", "a=1"), ("cookie", "b=2"), ("x-one", "1")])
        environ = literal_eval(answer.body.decode())
        assert environ["SERVER_PROTOCOL"] == "HTTP/2"
        assert (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("GET", "/environ", "a=b")
        assert (environ["HTTP_HOST"], environ["HTTP_COOKIE"]) == (client.authority, "a=1; b=2")
        assert environ["HTTP_X_ONE"] == "1"


async def test_cookies_are_joined_for_the_app_and_kept_apart_for_the_client(client: Client) -> None:
    scope = literal_eval((await client.get("/scope", [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")])).body.decode())
    assert scope["headers"][1:] == [(b"x", b"y"), (b"cookie", b"a=1; b=2")]
    answer = await client.get("/cookies")
    assert [value for name, value in answer.headers if name == "set-cookie"] == ["a=1", "b=2", "a=1"]


async def test_host_in_place_of_the_authority(client: Client) -> None:
    head = [(":method", "GET"), (":scheme", "http"), (":path", "/scope"), ("x", "y"), ("host", "example.test")]
    answer = await client.answer(client.request_raw(head))
    assert literal_eval(answer.body.decode())["headers"] == [(b"host", b"example.test"), (b"x", b"y")]


async def test_no_request_sees_the_one_before(client: Client) -> None:
    await client.get("/mutate", [("x-own", "1")])
    scope = literal_eval((await client.get("/scope")).body.decode())
    assert scope["headers"] == [(b"host", client.authority.encode())]
    assert "leak" not in str(scope).lower()


@pytest.mark.parametrize("size", [0, 1, 16384, 65535, 1_000_000])
async def test_bodies_both_ways(other: Client, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    number = other.request("/echo", method="POST", end=False)
    await other.upload(number, body[:size])
    answer = await other.answer(number)
    assert (answer.status, answer.body == body[:size]) == (200, True)


async def test_padding_and_empty_frames_are_no_body(client: Client) -> None:
    number = client.request("/echo", method="POST", end=False)
    for piece in (b"ab", b"", b"c"):
        client.h2.send_data(number, piece, pad_length=200)
    client.h2.end_stream(number)
    client.flush()
    assert (await client.answer(number)).body == b"abc"


async def test_trailers_of_a_request_are_dropped(client: Client) -> None:
    number = client.request("/echo", method="POST", end=False)
    client.data(number, b"body")
    client.h2.send_headers(number, [("x-checksum", "1")], end_stream=True)
    client.flush()
    assert (await client.answer(number)).body == b"body"


async def test_every_piece_is_a_message_of_its_own(server: Any, client: Client, fifo: MakeFifo) -> None:
    told = fifo("told")
    path = script(["tell", str(told)], ["tell", str(told)], ["tell", str(told)], ["start", 200], ["body"])
    number = client.request(path, method="POST", end=False)
    for piece in (b"abc", b"de"):
        client.data(number, piece)
        assert await told.wait() == b"http.request %d;" % len(piece)
    client.data(number, b"", end=True)
    assert await told.wait() == b"http.request 0;"
    assert (await client.answer(number)).status == 200


async def test_receive_waits_after_the_end(client: Client, fifo: MakeFifo) -> None:
    report = fifo("report")
    answer = await client.get(f"/receive-after-end?report={report}", method="POST", body=b"x")
    assert answer.body == b"x"
    assert json.loads(await report.wait()) == [False, "http.disconnect", "http.disconnect"]


async def test_many_streams_at_once(server: Any, client: Client, fifo: MakeFifo) -> None:
    gate = fifo("gate")
    waiting = [client.request(f"/gate?gate={gate}") for _ in range(50)]
    assert [(await client.get("/hello")).status for _ in range(5)] == [200] * 5
    gate.release(50)
    assert {(await client.answer(number)).body for number in waiting} == {b"through"}


async def test_a_stream_too_many_is_refused(client: Client, fifo: MakeFifo) -> None:
    gate, started = fifo("gate"), fifo("started")
    waiting = [client.request(f"/gate?gate={gate}&started={started}") for _ in range(100)]
    client.h2.remote_settings.max_concurrent_streams = 200
    client.h2.remote_settings.acknowledge()
    assert (await client.get("/hello")).reset == REFUSED_STREAM
    gate.release(100)
    assert [(await client.answer(number)).status for number in waiting] == [200] * 100
    assert (await client.get("/hello")).status == 200


async def test_wsgi_calls_wait_for_one_another(isolation: str) -> None:
    async with serving(isolation, "http_wsgi:app", threads=3) as server, await connect(server) as client:
        numbers = [client.request("/hello") for _ in range(30)]
        assert [(await client.answer(number)).body for number in numbers] == [b"Hello, World!"] * 30


# what clients see


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_no_body_where_there_is_none(other: Client, method: str, status: int) -> None:
    path = script(["start", status, [["content-length", "5"]] if status != 204 else []], ["body", "hello"])
    answer = await other.get(path, method=method)
    assert (answer.status, answer.body, answer.ended) == (status, b"", True)
    assert answer.get("content-length") == (None if status == 204 else "5")


async def test_pieces_leave_as_they_come(client: Client, fifo: MakeFifo) -> None:
    gate = fifo("gate")
    number = client.request(f"/step-chunks?gate={gate}")
    await client.until(lambda: client.answers[number].body == b"first")
    assert client.answers[number].get("content-length") is None
    gate.release()
    answer = await client.answer(number)
    assert answer.body == b"firstsecond"


async def test_the_head_leaves_before_the_body(client: Client, fifo: MakeFifo) -> None:
    gate = fifo("gate")
    number = client.request(script(["start", 200, [["x-early", "1"]]], ["wait", str(gate)], ["body", "later"]))
    await client.until(lambda: client.answers[number].status == 200)
    gate.release()
    assert (await client.answer(number)).body == b"later"


async def test_informational_responses(client: Client) -> None:
    answer = await client.get("/hints")
    assert answer.informational == [(103, [("link", "</a.css>")])] * 2
    assert (answer.status, answer.body) == (200, b"final")
    answer = await client.get(script(["links", "</a.css>", "</b.css>"], ["start", 200], ["body"]))
    assert answer.informational == [(103, [("link", "</a.css>"), ("link", "</b.css>")])]


async def test_early_hints_of_wsgi(isolation: str) -> None:
    async with serving(isolation, "http_wsgi:app") as server, await connect(server) as client:
        answer = await client.get(script(["hint", [["Link", "</a.css>"]]], ["start", 200], ["body", "x"]))
        assert answer.informational == [(103, [("link", "</a.css>")])]
        assert (answer.status, answer.body) == (200, b"x")


async def test_expect_is_answered_when_the_app_reads(client: Client, fifo: MakeFifo) -> None:
    gate = fifo("gate")
    path = script(["wait", str(gate)], ["read"], ["start", 200], ["body"])
    number = client.request(path, [("expect", "100-continue")], method="POST", end=False)
    await client.pinged()
    assert not client.answers[number].informational
    gate.release()
    await client.until(lambda: client.answers[number].informational)
    assert client.answers[number].informational == [(100, [])]
    client.data(number, b"x", end=True)
    assert (await client.answer(number)).status == 200


async def test_trailers(client: Client) -> None:
    steps = [["start", 200, [], {"trailers": True}], ["body", "abc"], ["trailers", [["X-One", "1"]], True],
             ["trailers", [["x-two", " 2 "], ["connection", "close"]]]]  # fmt: skip
    answer = await client.get(script(*steps))
    assert (answer.status, answer.body, answer.ended) == (200, b"abc", True)
    assert answer.trailers == [("x-one", "1"), ("x-two", "2")]
    answer = await client.get(script(steps[0], ["body"], ["trailers", []]))
    assert (answer.ended, answer.trailers) == (True, [])


async def test_headers_of_the_connection_are_left_out(client: Client) -> None:
    ours = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]
    path = script(["start", 200, [["X-Kept", "  a b "], *[[name, "x"] for name in ours]]], ["body", "x"])
    answer = await client.get(path)
    assert answer.get("x-kept") == "a b"
    assert not {name for name, _ in answer.headers} & set(ours)


async def test_date_and_server() -> None:
    async with serving("subinterpreter", server_header="subpool", date_header=False) as server:
        async with await connect(server) as client:
            answer = await client.get("/hello")
            assert (answer.get("server"), answer.get("date")) == ("subpool", None)
            answer = await client.get(script(["start", 200, [["server", "mine"], ["date", "now"]]], ["body"]))
            assert (answer.get("server"), answer.get("date")) == ("mine", "now")


async def test_large_header_lists_both_ways() -> None:
    async with serving("subinterpreter", max_request_line=40000) as server, await connect(server) as client:
        answer = await client.get(script(["start", 200, [["x-large", "x" * 30000]]], ["body"]))
        assert len(answer.get("x-large") or "") == 30000
        many = [(f"x-{number}", "y" * 500) for number in range(90)]
        scope = literal_eval((await client.get("/scope", many)).body.decode())
        assert len(scope["headers"]) == 91


# errors of apps


async def test_an_error_before_the_start(other: Client, caplog: pytest.LogCaptureFixture) -> None:
    answer = await other.get("/raise")
    assert (answer.status, answer.ended) == (500, True)
    assert answer.body == b"Internal Server Error\n"
    assert [record.name for record in caplog.records if "LookupError" in record.getMessage()] == ["subpool.error"]
    assert (await other.get("/hello")).status == 200


async def test_an_error_after_the_start(other: Client) -> None:
    answer = await other.get("/raise-half")
    assert (answer.status, answer.ended, answer.reset) == (200, False, INTERNAL_ERROR)
    assert answer.body.startswith(b"half") or answer.body == b"first"
    assert (await other.get("/hello")).status == 200


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([["start", 101]], 500),
        ([["start", 200, [["bad name", "x"]]]], 500),
        ([["start", 200, [[":status", "200"]]]], 500),
        ([["links", "</a>\r\nx: y"]], 500),
        ([], 500),
        ([["start", 200], ["pathsend", "/etc/hostname"]], None),
        ([["start", 200], ["body", "x", True]], None),
        ([["start", 200, [["content-length", "5"]]], ["body", "four"]], None),
        ([["start", 200, [["content-length", "3"]]], ["body", "four"]], None),
    ],
)
async def test_what_an_app_may_not_send(client: Client, steps: list[Any], status: int | None) -> None:
    answer = await client.get(script(*steps))
    assert (answer.status, answer.ended) == (status, True) if status else answer.reset == INTERNAL_ERROR
    assert (await client.get("/hello")).status == 200


async def test_a_worker_that_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with serving("process") as server, await connect(server) as client:
        assert (await client.get("/os-exit")).status == 502
        await eventually(lambda: all(worker.state == "ready" for worker in server.pools[0].stats().workers))
        assert (await client.get("/hello")).status == 200


async def test_an_app_may_go_on_after_its_response(server: Any, client: Client, fifo: MakeFifo) -> None:
    gate, done = fifo("gate"), fifo("done")
    answer = await client.get(script(["start", 200], ["body", "x"], ["wait", str(gate)], ["signal", str(done)]))
    assert answer.body == b"x"
    assert calls(server) == 1
    gate.release()
    await done.wait()
    await eventually(lambda: not calls(server))


# clients that leave


async def test_a_reset_is_a_disconnect(server: Any, client: Client, fifo: MakeFifo) -> None:
    started, report = fifo("started"), fifo("report")
    number = client.request(f"/listen?started={started}&report={report}")
    assert await report.wait() == b"http.request 0 False;"
    client.reset(number)
    assert await report.wait() == b"http.disconnect;"
    await eventually(lambda: not calls(server))
    assert connection(server).abandoned == 0
    assert (await client.get("/hello")).status == 200


async def test_a_lost_connection_is_a_disconnect_for_all(server: Any, fifo: MakeFifo) -> None:
    reports = [fifo(f"report{number}") for number in range(3)]
    client = await connect(server)
    for report in reports:
        client.request(f"/listen?report={report}")
        assert await report.wait() == b"http.request 0 False;"
    client.close()
    for report in reports:
        assert await report.wait() == b"http.disconnect;"
    await eventually(lambda: not calls(server) and not server.front.connections)


async def test_send_raises_after_a_reset(server: Any, fifo: MakeFifo) -> None:
    started, report = fifo("started"), fifo("report")
    async with await connect(server, reads=False) as client:
        number = client.request(f"/endless?started={started}&report={report}")
        await started.wait()
        await client.until(lambda: len(client.answers[number].body) == 65535)
        client.reset(number)
        assert json.loads(await report.wait())[1] == "os"
        await eventually(lambda: not calls(server))


async def test_wsgi_write_raises_after_a_reset(isolation: str, fifo: MakeFifo) -> None:
    report = fifo("report")
    async with serving(isolation, "http_wsgi:app") as server, await connect(server, reads=False) as client:
        number = client.request(script(["start", 200], *[["big", 65536]] * 20, report=report) + f"&closed={report}")
        await client.until(lambda: len(client.answers[number].body) == 65535)
        client.reset(number)
        assert await report.wait() == b"c"
        client.read(number)
        assert (await client.get("/hello")).status == 200


@pytest.mark.parametrize("kind", ["subinterpreter", "thread"])  # a process has taken in what it was sent
async def test_what_was_reset_before_it_began_is_not_run(kind: str, fifo: MakeFifo) -> None:
    gate, started = fifo("gate"), fifo("started")
    async with serving(kind) as server, await connect(server) as client:
        await client.get("/journal")
        holding = client.request(f"/block?gate={gate}&started={started}")
        await started.wait()
        numbers = [client.request(f"/never{number}") for number in range(30)]
        for number in numbers:
            client.reset(number)
        await client.pinged()
        gate.release()
        assert (await client.answer(holding)).status == 200
        assert json.loads((await client.get("/journal")).body) == ["GET /block"]
        await eventually(lambda: not calls(server))
        assert connection(server).abandoned == 0


async def test_streams_that_were_reset_count_while_apps_run(server: Any, client: Client, fifo: MakeFifo) -> None:
    """Rapid reset that stays below the budget must not run more apps than there may be streams."""
    gate, started = fifo("gate"), fifo("started")
    numbers = [client.request(f"/gate?gate={gate}&started={started}") for _ in range(100)]
    seen = b""
    while len(seen) < 100:
        seen += await started.wait()
    for number in numbers:
        client.reset(number)
    assert (await client.get("/hello")).reset == REFUSED_STREAM
    gate.release(100)
    await eventually(lambda: not calls(server))
    assert (await client.get("/hello")).status == 200


# flow control


async def test_a_body_that_is_not_read_stops_its_client(server: Any, client: Client, fifo: MakeFifo) -> None:
    gate = fifo("gate")
    body = b"x" * 65535
    number = client.request(f"/digest?gate={gate}", method="POST", end=False)
    client.data(number, body)
    await client.pinged()
    assert client.h2.local_flow_control_window(number) == 0
    assert client.h2.outbound_flow_control_window > 60 * 65535  # other streams have room
    assert (await client.get("/echo", method="POST", body=b"y" * 65535)).body == b"y" * 65535
    assert client.h2.local_flow_control_window(number) == 0
    gate.release()
    await client.upload(number, b"x" * 200_000)
    size, widest, _ = json.loads((await client.answer(number)).body)
    assert size == 265_535
    assert widest <= 65535


async def test_a_body_that_nobody_reads_gives_its_room_back(client: Client) -> None:
    """The response is there, its request goes on: what comes is dropped, and the connection's window stays open."""
    before = client.h2.outbound_flow_control_window
    number = client.request("/hello", method="POST", end=False)
    assert (await client.answer(number)).body == b"Hello, World!"
    await client.upload(number, b"x" * 1_000_000)
    assert client.answers[number].reset is None
    await client.pinged()
    assert client.h2.outbound_flow_control_window > before - 100 * 65535 // 2
    assert (await client.get("/hello")).status == 200


@pytest.mark.parametrize(("method", "size"), [("GET", 0), ("GET", 1), ("GET", 40_000), ("HEAD", 1)])
async def test_many_pieces(both: Any, method: str, size: int) -> None:
    """Whatever becomes of a piece, the app may send the next."""
    count = 20 if size > 1 else 2000
    async with await connect(both) as client:
        answer = await client.get(f"/many?count={count}&size={size}", method=method)
        assert (answer.status, answer.reset) == (200, None)
        assert answer.body == (b"" if method == "HEAD" else b"x" * size * count + b"end")
        await eventually(lambda: calls(both) == 0)


async def test_a_response_that_is_not_read_stops_its_app(server: Any, fifo: MakeFifo) -> None:
    started, report = fifo("started"), fifo("report")
    async with await connect(server, reads=False, settings={4: 1000}) as client:
        number = client.request(f"/endless?started={started}&report={report}")
        await started.wait()
        await client.until(lambda: len(client.answers[number].body) == 1000)
        stream = connection(server)._streams[number]
        await eventually(lambda: stream.unsent > 3 * 65536)
        small = client.request("/big?900")
        assert (await client.answer(small)).body == b"b" * 900
        assert stream.unsent < 512 * 1024
        for _ in range(10):
            before = len(client.answers[number].body)
            client.h2.increment_flow_control_window(20000, number)
            client.h2.increment_flow_control_window(20000)
            client.flush()
            await client.until(lambda before=before: len(client.answers[number].body) == before + 20000)
        assert max(client.answers[number].frames) <= 16384
        client.reset(number)
        sent, kind = json.loads(await report.wait())
        assert kind == "os"
        assert sent * 65536 < 1024 * 1024


async def test_streams_take_turns(server: Any) -> None:
    """A small answer does not wait for a large one that was asked for before it."""
    async with await connect(server, settings={4: 2**20}, reads=False) as client:
        large = client.request("/big?200000")
        await client.until(lambda: len(client.answers[large].body) == 65535)
        small = client.request("/hello")
        await client.until(lambda: client.answers[small].status)
        client.h2.increment_flow_control_window(20000)
        client.flush()
        assert (await client.answer(small)).body == b"Hello, World!"
        await client.until(lambda: len(client.answers[large].body) == 65535 + 20000 - 13)
        client.h2.increment_flow_control_window(200000)
        client.flush()
        assert len((await client.answer(large)).body) == 200000


async def test_the_window_of_the_connection(server: Any) -> None:
    async with await connect(server, reads=False) as client:
        numbers = [client.request("/big?40000") for _ in range(4)]
        await client.until(lambda: sum(len(client.answers[one].body) for one in numbers) == 65535)
        empty = client.request(script(["start", 204], ["body"]))
        assert (await client.answer(empty)).status == 204  # heads need no window
        client.h2.increment_flow_control_window(200_000)
        client.flush()
        assert [len((await client.answer(one)).body) for one in numbers] == [40000] * 4


async def test_wider_windows_by_settings(server: Any) -> None:
    async with await connect(server, reads=False, settings={4: 0}) as client:
        client.h2.increment_flow_control_window(2**20)
        number = client.request("/big?100000")
        await client.until(lambda: client.answers[number].status)
        assert client.answers[number].body == b""
        client.h2.update_settings({4: 200_000})
        client.flush()
        assert len((await client.answer(number)).body) == 100_000


async def test_a_table_for_headers_that_a_client_would_have_larger(server: Any) -> None:
    async with await connect(server, settings={1: 2**24}) as client:
        for number in range(200):
            await client.get(script(["start", 200, [[f"x-{number}", "y" * 100]]], ["body"]))
        assert connection(server).h2.encoder.header_table_size == 4096


# the connection


async def test_a_client_that_says_goaway_gets_its_answers(server: Any, client: Client, fifo: MakeFifo) -> None:
    gate = fifo("gate")
    number = client.request(f"/gate?gate={gate}")
    await client.pinged()
    state = client.h2.state_machine.state
    client.h2.close_connection()
    client.h2.state_machine.state = state
    client.h2.ping(b"12345678")  # more behind it, in the same read
    client.flush()
    gate.release()
    assert (await client.answer(number)).body == b"through"
    await client.ended()


async def test_draining_finishes_what_is_under_way(fifo: MakeFifo) -> None:
    gate, started = fifo("gate"), fifo("started")
    async with serving("subinterpreter") as server:
        busy, idle = await connect(server), await connect(server)
        number = busy.request(f"/gate?gate={gate}&started={started}")
        await started.wait()
        for one in list(server.front.connections):
            one.drain()
        await idle.ended()
        assert idle.goaway == (NO_ERROR, 0)
        await busy.until(lambda: busy.goaway)
        assert busy.goaway == (NO_ERROR, number)
        assert (await busy.get("/hello")).reset == REFUSED_STREAM
        gate.release()
        assert (await busy.answer(number)).body == b"through"
        await busy.ended()
        busy.close()
        await eventually(lambda: not server.front.connections)


async def test_stopping_a_server_ends_its_connections(fifo: MakeFifo) -> None:
    gate, started = fifo("gate"), fifo("started")
    async with serving("subinterpreter") as server:
        client = await connect(server)
        number = client.request(f"/gate?gate={gate}&started={started}")
        await started.wait()
        await server.stop(0.0)
        await client.ended()
        assert not client.answers[number].ended


async def test_mounts() -> None:
    mounts = [{"prefix": "/one", "app": "http_app:app", "max_body": 10}, {"prefix": "/two", "app": "http_app:other"}]
    from subpool.http.config import MountConfig

    async with serving("subinterpreter", None, mounts=[MountConfig(**one) for one in mounts]) as server:
        async with await connect(server) as client:
            scope = literal_eval((await client.get("/one/scope")).body.decode())
            assert (scope["root_path"], scope["path"]) == ("/one", "/one/scope")
            assert json.loads((await client.get("/two/x?y")).body) == ["other", "/two", "/two/x", "/two/x"]
            assert (await client.get("/three")).status == 404
            assert (await client.get("/one/echo", method="POST", body=b"x" * 11)).status == 413


async def test_headers_of_proxies() -> None:
    said = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "public.test")]
    async with serving("subinterpreter") as server, await connect(server) as client:
        scope = literal_eval((await client.get("/scope", said)).body.decode())
        assert (scope["client"], scope["scheme"]) == (("192.0.2.1", 0), "https")
        assert scope["headers"][0] == (b"host", b"public.test")
    async with serving("subinterpreter", forwarded_allow_ips=["192.0.2.9"]) as server, await connect(server) as client:
        scope = literal_eval((await client.get("/scope", said)).body.decode())
        assert (scope["client"][0], scope["scheme"]) == ("127.0.0.1", "http")


async def test_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "subpool.access")
    async with serving("subinterpreter", access_log="json") as server, await connect(server) as client:
        await client.get("/hello?x=1", [("user-agent", "test")])
        await client.get("/raise-half")
        lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "subpool.access"]
    assert [(one["method"], one["target"], one["status"], one["bytes"], one["version"]) for one in lines] == [
        ("GET", "/hello?x=1", 200, 13, "2"),
        ("GET", "/raise-half", 200, 4, "2"),
    ]
    assert lines[0]["user_agent"] == "test"


async def test_on_a_unix_socket(tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    async with serving("subinterpreter", bind=[f"unix:{path}"]):
        _, client = await asyncio.get_running_loop().create_unix_connection(lambda: Client("example.test"), path)
        scope = literal_eval((await client.get("/scope")).body.decode())
        assert (scope["server"], scope["client"]) == ((path, None), None)
        client.close()


def test_byte_by_byte(tmp_path: Any) -> None:
    """Everything that a client sends, the preface too, may come in pieces of one byte."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived
    from h2_kit import PREFACE
    from http_kit import Peer, by_byte
    from http_kit import serving as site_of

    path = str(tmp_path / "socket")
    with site_of("asgi", "subinterpreter", unix=path, http_version=["h2", "http/1.1"]), Peer(path) as peer:
        talking = H2Connection(H2Configuration(client_side=True))
        talking.initiate_connection()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/echo")]
        talking.send_headers(1, head)
        talking.send_data(1, b"body", end_stream=True)
        sent = talking.data_to_send()
        assert sent.startswith(PREFACE)
        peer.send_pieces(by_byte(sent))
        body = b""
        while body != b"body":
            assert peer.fill()
            body += b"".join(
                event.data for event in talking.receive_data(bytes(peer.data)) if isinstance(event, DataReceived)
            )
            peer.data.clear()
