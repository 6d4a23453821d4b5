"""Hooks over HTTP/2, and hooks of WebSockets' handshakes over both protocols."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from conftest import eventually

pytest.importorskip("h2")
pytest.importorskip("wsproto")
pytest.importorskip("httptools")
pytest.importorskip("pydantic")

from h2_kit import Answer, Client, calls, connect, script, serving
from hooks_kit import Doing
from ws_client import Raw, upgrade

from subpool import Hooks, Request

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def hooked(isolation: str = "subinterpreter", **options: Any) -> AsyncIterator[tuple[Any, Doing]]:
    doing = Doing(*(one["prefix"] for one in options.get("mounts", ()) if one["prefix"] != "/"))
    if "mounts" in options:
        from subpool import MountConfig

        options |= {"app": None, "mounts": [MountConfig(**one) for one in options["mounts"]]}
    async with serving(isolation, host_hooks=doing.hooks, **options) as server:
        yield server, doing


@pytest.fixture(scope="module", params=["http_app:app", "http_wsgi:app"], ids=["asgi", "wsgi"])
async def hooked_server(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[tuple[Any, Doing]]:
    async with hooked(app=request.param) as found:
        yield found


@pytest.fixture
async def client(hooked_server: tuple[Any, Doing]) -> AsyncIterator[Client]:
    hooked_server[1].told.clear()
    async with await connect(hooked_server[0]) as client:
        yield client


@pytest.fixture
def doing(hooked_server: tuple[Any, Doing]) -> Doing:
    return hooked_server[1]


def is_own(answer: Answer) -> bool:
    return (answer.status, answer.body, answer.get("x-by"), answer.get("content-length")) == (
        418, b"by a hook", "hook", "9",
    )  # fmt: skip


async def again(client: Client) -> None:
    """The connection is as good as new, and no hook has left anything."""
    answer = await client.get("/hello")
    assert (answer.status, answer.body, answer.reset) == (200, b"Hello, World!", None)
    assert not {name for name, _ in answer.headers} - {"content-type", "content-length", "date"}


async def reached(gate: Any) -> None:
    await eventually(lambda: gate.waiting.acquire(blocking=False))


async def test_requests_are_changed(client: Client) -> None:
    steps = "path:/scope query:a=b method:PATCH set:x-user=me remove:x-old client:192.0.2.9 scheme:https frame"
    for _ in range(3):
        answer = await client.get("/anything", [("x-do", steps), ("x-old", "aged")], method="POST", body=b"body")
        shown = answer.body.decode()
        for text in ("PATCH", "192.0.2.9", "https", "a=b"):
            assert text in shown
        assert ("x-user" in shown or "HTTP_X_USER" in shown) is True
        assert "aged" not in shown
    plain = (await client.get("/scope")).body.decode().lower()
    assert "x-user" not in plain
    assert "x_user" not in plain


async def test_answers_in_the_apps_place(client: Client, doing: Doing) -> None:
    for _ in range(3):
        assert is_own(await client.get("/hello", [("x-do", "answer")]))
    assert (await client.get("/hello", [("x-do", "status:403")])).body == b"Forbidden\n"
    head = await client.get("/hello", [("x-do", "answer")], method="HEAD")
    assert (head.status, head.get("content-length"), head.body) == (418, "9", b"")
    for status in (204, 304):
        answer = await client.get("/hello", [("x-do", f"status:{status}")])
        assert (answer.status, answer.get("content-length"), answer.body) == (status, None, b"")
    assert is_own(await client.get("/echo", [("x-do", "answer"), ("content-length", "4")], method="POST", body=b"body"))
    number = client.request("/echo", [("x-do", "answer"), ("content-length", "900000")], method="POST", end=False)
    await client.until(lambda: client.answers[number].ended)  # nobody waits for the body
    assert is_own(client.answers[number])
    number = client.request("/echo", [("x-do", "answer"), ("expect", "100-continue")], method="POST", end=False)
    await client.until(lambda: client.answers[number].ended)
    assert not client.answers[number].informational
    await again(client)


@pytest.mark.parametrize("steps", ["raise", "nonsense", "spoil", "method:HEAD", "wait:gate raise"])
async def test_mistakes(client: Client, doing: Doing, steps: str, caplog: pytest.LogCaptureFixture) -> None:
    with doing.gate("gate") as gate:
        number = client.request("/hello", [("x-do", steps)])
        if "wait" in steps:
            await reached(gate)
            gate.open()
        answer = await client.answer(number)
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
        await again(client)
    assert "a hook failed" in caplog.text


async def test_other_streams_go_on_while_a_hook_waits(client: Client, doing: Doing) -> None:
    body = b"b" * 200_000
    with doing.gate("gate") as gate:
        number = client.request("/echo", [("x-do", "wait:gate")], method="POST", end=False)
        await reached(gate)
        sending = asyncio.ensure_future(client.upload(number, body))
        await again(client)
        await again(client)
        gate.open()
        await sending
        assert (await client.answer(number)).body == body
        small = client.request("/echo", [("x-do", "wait:gate"), ("content-length", "4")], method="POST", body=b"body")
        await reached(gate)
        gate.open()
        assert (await client.answer(small)).body == b"body"


async def test_a_stream_that_is_reset_cancels_its_hook(client: Client, doing: Doing) -> None:
    for steps in (("x-do", "wait:gate"), ("x-then", "wait:gate")):
        with doing.gate("gate") as gate:
            number = client.request("/hello", [steps])
            await reached(gate)
            client.reset(number)
            await eventually(gate.cancelled.is_set)
            await again(client)


async def test_a_hook_that_does_not_answer_in_time() -> None:
    async with hooked(timeout=0.3) as (server, doing), await connect(server) as client:
        for steps in (("x-do", "wait:gate"), ("x-then", "wait:gate"), ("x-else", "wait:gate")):
            with doing.gate("gate") as gate:
                answer = await client.get("/raise" if steps[0] == "x-else" else "/hello", [steps])
                assert (answer.status, answer.body) == (504, b"a hook did not answer in time\n")
                await eventually(gate.cancelled.is_set)
        await eventually(lambda: not calls(server))


@pytest.mark.parametrize("wait", ["", "wait:gate "])
async def test_responses_are_changed(client: Client, doing: Doing, wait: str) -> None:
    streamed = script(["start", 200], ["body", "one", True], ["big", 300_000, True], ["body", "end"])
    with doing.gate("gate") as gate:
        for path, body in (("/hello", b"Hello, World!"), ("/big?200000", b"b" * 200_000),
                           (streamed, b"one" + b"b" * 300_000 + b"end")):  # fmt: skip
            number = client.request(path, [("x-then", f"{wait}set:x-new=1 edit:2 frame code:201 remove:content-type")])
            if wait:
                await reached(gate)
                gate.open()
            answer = await client.answer(number)
            assert (answer.status, answer.body, answer.get("x-new"), answer.get("x-mixed")) == (201, body, "1", "2")
            assert answer.get("content-length") in (None, str(len(body)))
            assert answer.get("connection") is None
        await again(client)


async def test_statuses_with_and_without_a_body(client: Client) -> None:
    streamed = script(["start", 200], ["body", "one", True], ["big", 500_000, True], ["body", "end"])
    for path in ("/hello", "/big?200000", streamed):
        answer = await client.get(path, [("x-then", "code:204")])
        assert (answer.status, answer.body, answer.get("content-length"), answer.ended) == (204, b"", None, True)
    answer = await client.get(script(["start", 204], ["body"]), [("x-then", "code:200")])
    assert (answer.status, answer.body, answer.get("content-length")) == (200, b"", "0")
    await again(client)


async def test_hints_are_not_touched(client: Client) -> None:
    answer = await client.get("/hints", [("x-then", "set:x-new=1")])
    assert answer.informational
    assert all(name != "x-new" for _, headers in answer.informational for name, _ in headers)
    assert answer.get("x-new") == "1"


@pytest.mark.parametrize("steps", ["raise", "spoil", "wait:gate raise"])
async def test_a_hook_of_a_response_that_raises(client: Client, doing: Doing, steps: str) -> None:
    streamed = script(["start", 200], ["body", "one", True], ["big", 500_000, True], ["body", "end"])
    with doing.gate("gate") as gate:
        for path in ("/hello", streamed, "/raise"):
            number = client.request(path, [("x-then", steps)])
            if "wait" in steps:
                await reached(gate)
                gate.open()
            answer = await client.answer(number)
            assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
        await again(client)


async def test_errors_become_answers(client: Client) -> None:
    assert is_own(await client.get("/raise", [("x-else", "answer")]))
    assert (await client.get("/raise")).status == 500
    assert (await client.get("/raise", [("x-else", "raise")])).status == 500
    await again(client)


@pytest.mark.parametrize("wait", ["", "wait:gate "])
async def test_timeouts_and_lost_workers_become_answers(wait: str) -> None:
    async with hooked("process", timeout=0.5) as (server, doing), await connect(server) as client:
        with doing.gate("gate") as gate:
            for path, name in (("/forever", "PoolTimeout"), ("/os-exit", "WorkerLost")):
                number = client.request(path, [("x-else", f"{wait}answer")])
                if wait:
                    await reached(gate)
                    gate.open()
                assert is_own(await client.answer(number))
                assert ("error", "", path, name) in doing.told


async def test_mounts_and_own_answers() -> None:
    mounts = [{"prefix": "/app", "app": "http_app:app"}, {"prefix": "/api", "app": "http_app:other"}]
    async with hooked(mounts=mounts, max_body=20_000) as (server, _), await connect(server) as client:
        answer = await client.get("/app/hello", [("x-do", "path:/api/moved"), ("x-then-api", "set:x-new=1")])
        assert (json.loads(answer.body)[2], answer.get("x-new")) == ("/api/moved", "1")
        assert (await client.get("/app/hello", [("x-do-api", "answer")])).body == b"Hello, World!"
        assert is_own(await client.get("/api", [("x-do-api", "answer")]))
        answer = await client.get("/nowhere", [("x-then", "set:x-new=1")])
        assert (answer.status, answer.get("x-new")) == (404, "1")
        assert is_own(await client.get("/nowhere", [("x-do", "answer")]))
        number = client.request("/app/echo", [("x-then", "set:x-new=1"), ("content-length", "30000")], method="POST",
                                end=False)  # fmt: skip
        await client.until(lambda: client.answers[number].ended)
        assert (client.answers[number].status, client.answers[number].get("x-new")) == (413, "1")


async def test_one_mount_alone() -> None:
    hooks = Hooks()
    hooks.at("/api").on_request(lambda request: 403)
    from subpool import MountConfig

    mounts = [MountConfig(prefix="/", app="http_app:app"), MountConfig(prefix="/api", app="http_app:other")]
    async with serving("subinterpreter", None, hooks, mounts=mounts) as server, await connect(server) as client:
        for _ in range(2):
            await again(client)
            assert (await client.get("/api")).status == 403
        assert (await client.get("/echo", method="POST", body=b"body")).body == b"body"


# WebSockets


def ask_h2(client: Client, path: str, *more: tuple[str, str]) -> int:
    head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path),
            (":authority", client.authority), ("sec-websocket-version", "13"), *more]  # fmt: skip
    return client.request_raw(head, end=False)


async def answered(server: Any, protocol: str, path: str, *more: tuple[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a handshake."""
    if protocol == "h2":
        async with await connect(server) as client:
            number = ask_h2(client, path, *more)
            await client.until(lambda: client.answers[number].over or client.answers[number].status == 200)
            answer = client.answers[number]
            return answer.status, dict(answer.headers), answer.body
    async with Raw(server) as raw:
        raw.writer.write(upgrade(path, *(f"{name}: {value}".encode() for name, value in more)))
        with anyio.fail_after(15):
            head = await raw.reader.readuntil(b"\r\n\r\n")
            status = int(head.split()[1])
            body = b"" if status == 101 else await raw.reader.read()
    lines = [one.partition(": ") for one in head.decode().split("\r\n")[1:] if one]
    return status, {name.lower(): value for name, _, value in lines}, body


@pytest.fixture(scope="module", params=["h1", "h2"])
async def sockets(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[tuple[Any, str, Doing]]:
    mounts = [{"prefix": "/", "app": "asgi_app:app"}, {"prefix": "/ws", "app": "ws_app:app"}]
    async with hooked(mounts=mounts) as (server, doing):
        yield server, request.param, doing


async def test_a_handshake_is_refused(sockets: tuple[Any, str, Doing]) -> None:
    server, protocol, _ = sockets
    status, headers, body = await answered(server, protocol, "/echo", ("x-do", "status:403"))
    assert (status, body) == (403, b"Forbidden\n")
    status, headers, body = await answered(server, protocol, "/echo", ("x-do", "answer"))
    assert (status, headers["x-by"], body) == (418, "hook", b"by a hook")
    for steps in ("raise", "nonsense", "method:PUT"):
        assert (await answered(server, protocol, "/echo", ("x-do", steps)))[::2] == (500, b"Internal Server Error\n")
    assert (await answered(server, protocol, "/echo"))[0] in (101, 200)
    assert (await answered(server, protocol, "/deny", ("x-do", "path:/echo")))[0] in (101, 200)
    assert (await answered(server, protocol, "/deny"))[0] == 403
    await eventually(lambda: not calls(server))


async def test_a_handshake_waits_and_is_cancelled(sockets: tuple[Any, str, Doing]) -> None:
    server, protocol, doing = sockets
    with doing.gate("gate") as gate:
        asking = asyncio.ensure_future(answered(server, protocol, "/echo", ("x-do", "wait:gate")))
        await reached(gate)
        gate.open()
        assert (await asking)[0] in (101, 200)
        asking = asyncio.ensure_future(answered(server, protocol, "/echo", ("x-do", "wait:gate")))
        await reached(gate)
        asking.cancel()
        await eventually(gate.cancelled.is_set)
    await eventually(lambda: not calls(server))


async def test_an_error_before_the_accept_becomes_an_answer(sockets: tuple[Any, str, Doing]) -> None:
    server, protocol, _ = sockets
    assert (await answered(server, protocol, "/raise-early", ("x-else", "answer")))[0] == 418
    assert (await answered(server, protocol, "/raise-early", ("x-else", "wait:no raise")))[0] == 500
    assert (await answered(server, protocol, "/raise-early"))[0] == 500
    await eventually(lambda: not calls(server))


async def test_a_websockets_scope_is_changed() -> None:
    websockets = pytest.importorskip("websockets")
    hooks, found = Hooks(), []

    @hooks.on_request
    def change(request: Request) -> None:
        found.append((request.type, request.method, request.scheme, request.path))
        request.set("x-user", "me")
        request.set("sec-websocket-protocol", "stolen")
        request.query_string = b"a=b"
        request.path = "/other/scope"
        request.client = ("192.0.2.9", 7)

    from subpool import MountConfig

    mounts = [MountConfig(prefix="/", app="ws_app:app"), MountConfig(prefix="/other", app="ws_scope:app")]
    async with serving("subinterpreter", None, hooks, mounts=mounts) as server:
        url = server.addresses[0].replace("http", "ws") + "/echo?x"
        async with websockets.connect(url, subprotocols=["mine"], proxy=None) as socket:
            scope = json.loads(await socket.recv())
    assert found == [("websocket", "GET", "ws", "/echo")]
    headers = dict(scope["headers"])
    assert (scope["path"], scope["root_path"], scope["query_string"]) == ("/other/scope", "/other", "a=b")
    assert (scope["client"], headers["x-user"], headers["sec-websocket-protocol"]) == (["192.0.2.9", 7], "me", "mine")


async def test_a_handshakes_hook_that_does_not_answer_in_time() -> None:
    async with hooked(timeout=0.3) as (server, doing):
        for protocol in ("h1", "h2"):
            with doing.gate("gate") as gate:
                status, _, body = await answered(server, protocol, "/echo", ("x-do", "wait:gate"))
                assert (status, body) == (504, b"a hook did not answer in time\n")
                await eventually(gate.cancelled.is_set)
