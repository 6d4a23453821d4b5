"""`websocket`: a WebSocket app driven from Python."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from conftest import BOTH, DEADLINE, eventually, http_scope, in_flight, websocket_scope

from subpool import router

pytestmark = pytest.mark.anyio


@BOTH
async def test_echo_of_text_and_bytes(pool: Any) -> None:
    with anyio.fail_after(DEADLINE):
        async with pool.websocket(websocket_scope("/echo", subprotocols=["chat", "other"])) as socket:
            assert socket.subprotocol == "chat"
            assert (b"x-ws", b"yes") in socket.headers
            assert await socket.receive() == "welcome"
            for message in ("text \u2603", b"bytes \xff", "", b"", "x" * 100_000, b"x" * 300_000):
                await socket.send(message)
                answer = await socket.receive()
                assert answer == message
                assert type(answer) is type(message)
    await eventually(lambda: in_flight(pool) == 0)


@pytest.mark.parametrize("size", [0, 1])
async def test_many_small_messages(pool: Any, size: int) -> None:
    query = b"count=2000&size=%d&kind=text" % size
    with anyio.fail_after(DEADLINE):
        async with pool.websocket(websocket_scope("/many", query_string=query)) as socket:
            for _ in range(2000):
                assert await socket.receive() == "x" * size
    await eventually(lambda: in_flight(pool) == 0)


async def test_many_messages_keep_their_order(pool: Any) -> None:
    async with pool.websocket(websocket_scope("/echo")) as socket:
        assert await socket.receive() == "welcome"
        assert socket.subprotocol is None

        async def send() -> None:
            for number in range(300):
                await socket.send(str(number))

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            assert [await socket.receive() for _ in range(300)] == [str(number) for number in range(300)]


@BOTH
@pytest.mark.parametrize("given", [(), (4000, "bye")])
async def test_the_app_learns_the_close_code(pool: Any, fifo: Any, given: tuple[Any, ...]) -> None:
    report = fifo("report")
    async with pool.websocket(websocket_scope("/echo", query_string=f"report={report}".encode())) as socket:
        assert await socket.receive() == "welcome"
        await socket.close(*given)
    assert json.loads(await report.wait()) == list(given or (1000, ""))


async def test_leaving_without_a_close_tells_the_app(pool: Any, fifo: Any) -> None:
    report = fifo("report")
    async with pool.websocket(websocket_scope("/echo", query_string=f"report={report}".encode())) as socket:
        assert await socket.receive() == "welcome"
    assert json.loads(await report.wait())[0] in (1000, 1001, 1005, 1006)
    await eventually(lambda: in_flight(pool) == 0)


@BOTH
async def test_the_app_closes_with_its_code(pool: Any) -> None:
    from subpool import WebSocketClosed

    async with pool.websocket(websocket_scope("/close")) as socket:
        assert await socket.receive() == "last"
        for _ in range(2):
            with pytest.raises(WebSocketClosed) as caught:
                await socket.receive()
            assert (caught.value.code, caught.value.reason) == (4001, "done")
        with pytest.raises(WebSocketClosed):
            await socket.send("too late")
    await eventually(lambda: in_flight(pool) == 0)


async def test_messages_pushed_by_a_background_task(pool: Any) -> None:
    async with pool.websocket(websocket_scope("/push")) as socket:
        assert [await socket.receive() for _ in range(5)] == list("01234")
        await socket.send("end")


@BOTH
async def test_a_denial(pool: Any) -> None:
    from subpool import WebSocketDenied

    for path in ("/deny", "/nowhere"):
        if path == "/nowhere":
            continue
        with anyio.fail_after(DEADLINE), pytest.raises(WebSocketDenied) as caught:
            async with pool.websocket(websocket_scope(path)):
                pytest.fail("entered")
        assert caught.value.status == 403
    await eventually(lambda: in_flight(pool) == 0)


async def test_a_denial_with_a_response_of_its_own(pool: Any) -> None:
    from subpool import WebSocketDenied

    with anyio.fail_after(DEADLINE), pytest.raises(WebSocketDenied) as caught:
        async with pool.websocket(websocket_scope("/deny-response")):
            pytest.fail("entered")
    error = caught.value
    assert (error.status, error.body) == (401, b"who are you?")
    assert (b"x-why", b"because") in error.headers


async def test_an_error_after_the_accept(pool: Any) -> None:
    from subpool import AppError, WebSocketClosed

    with anyio.fail_after(DEADLINE):
        async with pool.websocket(websocket_scope("/raise")) as socket:
            with pytest.raises((WebSocketClosed, AppError)) as caught:
                await socket.receive()
            if isinstance(caught.value, WebSocketClosed):
                assert caught.value.code == 1011
    await eventually(lambda: in_flight(pool) == 0)


async def test_an_error_before_the_accept(pool: Any) -> None:
    from subpool import AppError, WebSocketDenied

    with anyio.fail_after(DEADLINE), pytest.raises((AppError, WebSocketDenied)) as caught:
        async with pool.websocket(websocket_scope("/raise-early")):
            pytest.fail("entered")
    if isinstance(caught.value, WebSocketDenied):
        assert caught.value.status == 500


@BOTH
async def test_a_receiver_that_is_slow_holds_the_app_back(make_pool: Any, fifo: Any) -> None:
    report = fifo("report")
    async with make_pool(workers=1) as pool:
        with anyio.fail_after(DEADLINE):
            scope = websocket_scope("/flood", query_string=f"report={report}".encode())
            async with pool.websocket(scope) as socket:
                for _ in range(5):
                    assert await socket.receive() == b"x" * 65536
                for _ in range(20):
                    assert (await pool.run_asgi(http_scope("/hello"))).status == 200
            assert 5 <= int(await report.wait()) <= 400


@pytest.mark.parametrize("message", [7, None, ["a"]])
async def test_messages_of_a_wrong_type_are_refused(pool: Any, message: Any) -> None:
    async with pool.websocket(websocket_scope("/echo")) as socket:
        assert await socket.receive() == "welcome"
        with pytest.raises(TypeError):
            await socket.send(message)
        await socket.send("still open")
        assert await socket.receive() == "still open"


async def test_a_scope_of_the_wrong_type_is_refused(pool: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="type"):
        async with pool.websocket(http_scope("/echo")):
            pytest.fail("entered")
    with pytest.raises((ValueError, TypeError), match="type"):
        await pool.run_asgi(websocket_scope("/echo"))


async def test_a_wsgi_app_has_no_websockets(make_pool: Any) -> None:
    from subpool import WebSocketUnsupported

    async with make_pool("wsgi_app:app", workers=1) as pool:
        with pytest.raises(WebSocketUnsupported, match="wsgi_app:app"):
            async with pool.websocket(websocket_scope("/echo")):
                pytest.fail("entered")


async def test_those_that_join_at_once_are_spread(make_pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while workers are silent for a moment, each for another: they join behind requests that hold the thread."""
    monkeypatch.setattr(router, "DEAF", DEADLINE)
    async with make_pool("asgi_app:app", workers=4) as pool:
        joined, leave = [], anyio.Event()

        async def burn(seconds: float) -> None:
            await pool.run_asgi(http_scope("/burn", query_string=b"%f" % seconds))

        async def join() -> None:
            async with pool.websocket(websocket_scope("/echo")) as socket:
                joined.append(await socket.receive())
                await leave.wait()

        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(burn, 0.01 + 0.03 * number)
                for _ in range(48):
                    group.start_soon(join)
                await eventually(lambda: len(joined) == 48)
                spread = [worker.websockets for worker in pool.stats().workers]
                leave.set()
        assert sum(spread) == 48
        assert max(spread) - min(spread) <= 2, spread
