"""The small apps of examples/guides: each answers real requests.

None is imported here: the pool's workers do that, in sub-interpreters (FastAPI: in processes).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from conftest import DEADLINE, EXAMPLES, environ, eventually, http_scope, in_flight, pool_options, websocket_scope

from subpool import AppError, AppLoadError, Pool, WebSocketClosed, WebSocketDenied

pytestmark = pytest.mark.anyio

GUIDES = EXAMPLES / "guides"
DATA = os.urandom(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@asynccontextmanager
async def served(app: str, isolation: str = "subinterpreter", **options: Any) -> AsyncIterator[Any]:
    """A pool of one worker with this app, as the docstring's command would have it."""
    given = {"workers": 1, "pythonpath": [GUIDES], "start_timeout": DEADLINE, **options}
    async with Pool(app, **pool_options(isolation, **given)) as pool:
        assert pool.isolation == isolation
        yield pool


class Answer(NamedTuple):
    """Of either interface; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def wsgi(pool: Any, path: str = "/", query: str = "", **keys: Any) -> Answer:
    """Ask a WSGI app. `method` and `body` besides environ keys."""
    keys = {"method": "GET", "body": b"", **keys}
    keys.setdefault("CONTENT_LENGTH", str(len(keys["body"])))
    status, headers, body = await pool.run_wsgi(environ(path, query=query, **keys))
    return Answer(int(status[:3]), {name.lower(): value for name, value in headers}, body)


async def asgi(pool: Any, path: str = "/", query: str = "", body: bytes = b"", **fields: Any) -> Answer:
    """Ask an ASGI app. `fields` are the scope's."""
    given = await pool.run_asgi(http_scope(path, query_string=query.encode(), **fields), body)
    return Answer(given.status, {name.decode().lower(): value.decode() for name, value in given.headers}, given.body)


async def messages(pool: Any, path: str, **fields: Any) -> list[dict[str, Any]]:
    """What an app sends to a server in one exchange."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await pool.handle_asgi(http_scope(path, **fields), receive, send)
    return sent


# WSGI


async def test_wsgi_hello() -> None:
    async with served("wsgi_hello:application") as pool:
        path = "/caf\u00e9".encode().decode("latin-1")
        answer = await wsgi(pool, path)
        assert answer == (
            200,
            {"content-type": "text/plain; charset=utf-8", "content-length": str(len(answer.body))},
            "You asked for /caf\u00e9\n".encode(),
        )


async def test_wsgi_environ() -> None:
    async with served("wsgi_environ:application") as pool:
        text = (await wsgi(pool, "/a path", "with=a", HTTP_X_COLOUR="blue")).body.decode()
        for line in ("PATH_INFO = '/a path'", "QUERY_STRING = 'with=a'", "HTTP_X_COLOUR = 'blue'", "[other]"):
            assert line in text.splitlines()
        for key in ("SCRIPT_NAME", "wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.early_hints"):
            assert f"\n{key} = " in text


async def test_flask_cache() -> None:
    pytest.importorskip("flask")
    async with served("flask_cache:app") as pool:
        assert [(await wsgi(pool)).body[-2:] for _ in range(2)] == [b"1\n", b"2\n"]
        for hits in (0, 1):
            assert json.loads((await wsgi(pool, "/api/primes", "below=12")).body) == {
                "below": 12,
                "primes": [2, 3, 5, 7, 11],
                "hits": hits,
            }
        assert (await wsgi(pool, "/api/primes", "below=0")).status == 400


async def test_bottle_status() -> None:
    pytest.importorskip("bottle")
    async with served("bottle_status:app") as pool:
        assert (await wsgi(pool)).body == b"Hello from Bottle!\n"
        assert json.loads((await wsgi(pool, "/json")).body)["status"] == "ok"
        assert json.loads((await wsgi(pool, "/rooms/cellar")).body) == {"room": "cellar", "celsius": 12.0}
        assert (await wsgi(pool, "/rooms/attic"))[::2] == (404, b"404: there is no attic\n")


async def test_uploads() -> None:
    async with served("uploads:application") as pool:
        answer = await wsgi(pool, "/some/file.bin", method="PUT", body=DATA)
        told = json.loads(answer.body)
        assert (told["name"], told["bytes"], told["sha256"]) == ("file.bin", len(DATA), DIGEST)
        assert (await wsgi(pool, "/file.bin")).headers["allow"] == "PUT, POST"
        # A server that does not mark the end of the input: no byte behind the length is read.
        keys: dict[str, Any] = {"body": b"line\nmore", "CONTENT_LENGTH": "6", "wsgi.input_terminated": False}
        answer = await wsgi(pool, "/a", method="POST", **keys)
        told = json.loads(answer.body)
        assert (told["bytes"], told["first line"]) == (6, "line")
        async with pool.stream_asgi(http_scope("/pieces", method="PUT"), (DATA[:9], DATA[9:])) as stream:
            assert json.loads(await stream.read())["sha256"] == DIGEST


async def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "page.html").write_bytes(DATA)
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret.txt")
    monkeypatch.setenv("FILES_ROOT", str(root))
    async with served("files:application") as pool:
        answer = await wsgi(pool, "/page.html")
        assert (answer.status, answer.body) == (200, DATA)
        assert (answer.headers["content-type"], answer.headers["content-length"]) == ("text/html", str(len(DATA)))
        head = await wsgi(pool, "/page.html", method="HEAD")
        assert head == (200, answer.headers, b"")
        async with pool.stream_asgi(http_scope("/page.html")) as stream:
            assert await stream.read() == DATA
        for path in ("/", "/nothing", "/../secret.txt", "//../secret.txt", "/link", "/a\0b", "/" + "x" * 5000):
            assert (await wsgi(pool, path)).status == 404
        assert (await wsgi(pool, "/page.html", method="POST")).status == 405


async def test_wsgi_hints() -> None:
    async with served("wsgi_hints:application") as pool:
        page = await wsgi(pool)
        assert b"told of its parts" in page.body
        for path in re.findall(rb'(?:href|src)="([^"]+)"', page.body):
            assert (await wsgi(pool, path.decode())).status == 200
        sent = await messages(pool, "/", extensions={"http.response.early_hint": {}})
        assert sent[0]["type"] == "http.response.early_hint"
        assert [link.partition(b";")[0] for link in sent[0]["links"]] == [b"</style.css>", b"</script.js>"]
        assert sent[1]["status"] == 200


async def test_wsgi_errors(caplog: pytest.LogCaptureFixture) -> None:
    async with served("wsgi_errors:application") as pool:
        assert (await wsgi(pool, "/divide", "a=7&b=2"))[::2] == (200, b"3.5\n")
        assert (await wsgi(pool, "/divide", "a=7&b=0")).status == 400
        assert (await wsgi(pool, "/divide", "a=7"))[::2] == (400, b"please give b\n")
        assert (await wsgi(pool, "/divide", "a=7&b=two")).status == 400
        assert (await wsgi(pool, "/nowhere")).status == 404
        assert (await wsgi(pool, "/bug"))[::2] == (500, b"something broke here\n")
        await eventually(lambda: "TypeError: a bug in the app" in caplog.text)
        async with pool.stream_asgi(http_scope("/late")) as stream:
            assert await anext(stream) == b"the first half\n"
            with pytest.raises(AppError, match="a bug in the middle"):
                await anext(stream)


async def test_wsgi_middleware(capfd: pytest.CaptureFixture[str]) -> None:
    async with served("wsgi_middleware:application") as pool:
        answer = await wsgi(pool, "/some/where")
        assert answer.body == b"You asked for /some/where\n"
        assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")
    assert re.search(r"^GET '/some/where' 200 \d+\.\d ms$", capfd.readouterr().out, re.MULTILINE)


# ASGI


async def test_asgi_hello() -> None:
    async with served("asgi_hello:app") as pool:
        assert await asgi(pool) == (200, {"content-type": "text/plain; charset=utf-8"}, b"Hello from ASGI!\n")


async def test_asgi_scope() -> None:
    async with served("asgi_scope:app") as pool:
        scope = json.loads((await asgi(pool, "/a path", "with=a", headers=[(b"X-Colour", b"blue")])).body)
        assert scope["headers"] == [["b:x-colour", "b:blue"]]
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a path", "b:/a%20path", "b:with=a")
        assert (scope["client"], scope["server"]) == (["192.0.2.7", 50123], ["example.test", 80])
        async with pool.websocket(websocket_scope("/ws", subprotocols=["a", "b"])) as socket:
            scope = json.loads(await socket.receive())
            assert (scope["type"], scope["subprotocols"]) == ("websocket", ["a", "b"])
            with pytest.raises(WebSocketClosed):
                await socket.receive()


async def test_fastapi_items(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fastapi")
    kind = [(b"content-type", b"application/json")]
    async with served("fastapi_items:app", "process", lifespan="on") as pool:
        assert json.loads((await asgi(pool)).body) == {"items": ["tea", "coffee"]}
        assert json.loads((await asgi(pool, "/items/2")).body) == {"id": 2, "name": "coffee", "price": 4.5}
        assert [(await asgi(pool, f"/items/{item}")).status for item in (3, "x")] == [404, 422]
        answer = await asgi(pool, "/orders", body=b'{"item": 1, "count": 3}', method="POST", headers=kind)
        assert (answer.status, json.loads(answer.body)["total"]) == (201, 9.0)
        assert (await asgi(pool, "/orders", body=b'{"item": 1, "count": 0}', method="POST", headers=kind)).status == 422
        assert json.loads((await asgi(pool, "/predict", "text=a+great+day")).body)["mood"] == 2
        assert "Items" in json.loads((await asgi(pool, "/openapi.json")).body)["info"]["title"]
    assert capfd.readouterr().out.split("\n")[:2] == ["model loaded", "model released"]


async def test_starlette_users() -> None:
    pytest.importorskip("starlette")
    async with served("starlette_users:app") as pool:
        assert json.loads((await asgi(pool)).body) == {"users": "http://example.test/users/"}
        assert json.loads((await asgi(pool, "/users/", "start=G")).body) == [{"id": 2, "name": "Grace"}]
        assert json.loads((await asgi(pool, "/users/1")).body) == {"id": 1, "name": "Ada"}
        answer = await asgi(pool, "/users/3")
        assert (answer.status, json.loads(answer.body)) == (404, {"error": "no user 3"})


async def test_lifespan_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.json"
    model.write_text('{"sunny": 3, "rainy": -2}')
    monkeypatch.setenv("MODEL", str(model))
    async with served("lifespan_state:app", lifespan="on") as pool:
        assert json.loads((await asgi(pool, "/", "text=sunny+rainy"))[2])["mood"] == 1.0
    assert capfd.readouterr().out.splitlines() == ["model loaded", "model released"]
    model.write_text("no JSON")
    with pytest.raises(AppLoadError, match="no model: Expecting value"):
        async with served("lifespan_state:app", lifespan="on"):
            pass


async def test_streaming() -> None:
    async with served("streaming:app") as pool:
        async with pool.stream_asgi(http_scope("/", query_string=b"lines=3&interval=0")) as stream:
            assert [chunk async for chunk in stream] == [b"line 0\n", b"line 1\n", b"line 2\n", b"done\n"]
        async with pool.stream_asgi(http_scope("/", query_string=b"interval=1000")) as stream:
            assert await anext(stream) == b"line 0\n"  # long before the next is made
        await eventually(lambda: in_flight(pool) == 0)


async def test_sse() -> None:
    pytest.importorskip("starlette")
    async with served("sse:app") as pool:
        assert b'new EventSource("/events")' in (await asgi(pool)).body
        headers = [(b"host", b"example.test"), (b"last-event-id", b"41")]
        for given, first in (([], 0), (headers, 42)):
            text = b""
            async with pool.stream_asgi(http_scope("/events", query_string=b"interval=0.01", headers=given)) as stream:
                assert dict(stream.headers)[b"content-type"].startswith(b"text/event-stream")
                while text.count(b"\n\n") < 4:
                    text += await anext(stream)
            ids = re.findall(rb"^id: (\d+)\nevent: tick\ndata: \{.*\}\n\n", text, re.MULTILINE)
            assert [int(number) for number in ids[:3]] == [first, first + 1, first + 2]
        await eventually(lambda: in_flight(pool) == 0)


async def test_request_body() -> None:
    async with served("request_body:app") as pool:
        answer = await asgi(pool, "/whole", body=b'{"words": ["one", "three"]}', method="POST")
        assert (answer.status, json.loads(answer.body)) == (200, {"words": 2, "longest": "three"})
        assert (await asgi(pool, "/whole", body=b"{", method="POST")).status == 400
        assert (await asgi(pool, "/whole", body=b"x" * 1_100_000, method="POST")).status == 413
        async with pool.stream_asgi(http_scope("/streamed", method="POST"), (DATA[:9], DATA[9:])) as stream:
            assert json.loads(await stream.read()) == {"bytes": len(DATA), "sha256": DIGEST}


async def test_asgi_hints() -> None:
    async with served("asgi_hints:app") as pool:
        sent = await messages(pool, "/", extensions={"http.response.early_hint": {}})
        assert sent[0]["type"] == "http.response.early_hint"
        assert sent[0]["links"] == [b"</style.css>; rel=preload; as=style"]
        assert sent[1]["status"] == 200
        assert (await messages(pool, "/"))[0]["status"] == 200
        async with pool.stream_asgi(http_scope("/plain")) as stream:
            assert stream.informational == [(103, [(b"link", b"</style.css>; rel=preload; as=style")])]
            assert stream.status == 200
            assert b"told of its style" in await stream.read()
        assert (await asgi(pool, "/plain")).status == 200
        assert (await asgi(pool, "/style.css")).headers["content-type"] == "text/css"


async def test_asgi_errors(caplog: pytest.LogCaptureFixture) -> None:
    async with served("asgi_errors:app") as pool:
        assert (await asgi(pool, "/divide", "a=7&b=2"))[::2] == (200, b"3.5\n")
        assert (await asgi(pool, "/divide", "a=7&b=0")).status == 400
        assert (await asgi(pool, "/divide", "b=7"))[::2] == (400, b"please give a\n")
        assert (await asgi(pool, "/nowhere")).status == 404
        assert (await asgi(pool, "/bug"))[::2] == (500, b"something broke here\n")
        await eventually(lambda: "GET /bug failed" in caplog.text)
        async with pool.stream_asgi(http_scope("/late")) as stream:
            assert await anext(stream) == b"the first half\n"
            with pytest.raises(AppError, match="a bug in the middle"):
                await anext(stream)


async def test_asgi_middleware() -> None:
    async with served("asgi_middleware:app") as pool:
        answer = await asgi(pool, headers=[(b"x-request-id", b"abc123")])
        assert answer.body == b"Hello from ASGI!\n"
        assert re.fullmatch(r"app;dur=\d+\.\d\d", answer.headers["server-timing"])
        assert answer.headers["x-request-id"] == "abc123"
        assert len({(await asgi(pool)).headers["x-request-id"] for _ in range(3)}) == 3


async def test_ws_echo() -> None:
    async with served("ws_echo:app") as pool:
        async with pool.websocket(websocket_scope("/", subprotocols=["other", "echo"])) as socket:
            assert socket.subprotocol == "echo"
            for message in ("text \u2603", b"bytes \xff", ""):
                await socket.send(message)
                assert await socket.receive() == message
            await socket.send("bye")
            with pytest.raises(WebSocketClosed) as closed:
                await socket.receive()
            assert (closed.value.code, closed.value.reason) == (1000, "bye")
        with pytest.raises(WebSocketDenied) as denied:
            async with pool.websocket(websocket_scope("/elsewhere")):
                pass
        assert denied.value.status == 403


async def test_ws_chat() -> None:
    pytest.importorskip("starlette")
    async with served("ws_chat:app") as pool:
        assert b"new WebSocket(" in (await asgi(pool)).body
        with anyio.fail_after(DEADLINE):
            async with pool.websocket(websocket_scope("/chat/tea", query_string=b"name=Ada")) as ada:
                assert await ada.receive() == "Ada came, 1 here"
                async with (
                    pool.websocket(websocket_scope("/chat/tea", query_string=b"name=Bob")) as bob,
                    pool.websocket(websocket_scope("/chat/coffee")) as other,
                ):
                    assert await other.receive() == "someone came, 1 here"
                    await bob.send("hello")
                    for member in (ada, bob):
                        assert await member.receive() == "Bob came, 2 here"
                        assert await member.receive() == "Bob: hello"
                assert await ada.receive() == "Bob left, 1 here"
        await eventually(lambda: in_flight(pool) == 0)
