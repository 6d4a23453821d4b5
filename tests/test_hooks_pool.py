"""Hooks of a pool's own calls, and hooks that hear of workers and reloads."""

from __future__ import annotations

import contextlib
import logging
from ast import literal_eval
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from conftest import BOTH, environ, eventually, http_scope, pool_options, websocket_scope
from hooks_kit import OWN, Doing

from subpool import (
    AppError,
    Hooks,
    Pool,
    PoolTimeout,
    Reload,
    Request,
    Response,
    ResponseHead,
    WorkerInfo,
    build_scope,
)

pytestmark = pytest.mark.anyio


def with_headers(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


@pytest.fixture(scope="module")
def doing() -> Doing:
    return Doing()


@pytest.fixture(scope="module")
async def asgi(doing: Doing, anyio_backend: str) -> AsyncIterator[Any]:
    async with Pool("asgi_app:app", hooks=doing.hooks, **pool_options("subinterpreter", workers=1)) as pool:
        yield pool


@pytest.fixture(scope="module")
async def wsgi(doing: Doing, anyio_backend: str) -> AsyncIterator[Any]:
    async with Pool("wsgi_app:app", hooks=doing.hooks, **pool_options("subinterpreter", workers=1)) as pool:
        yield pool


# calls


def test_a_pool_without_hooks_is_a_plain_one() -> None:
    from subpool.hooked_pool import HookedPool

    assert type(Pool("a:b")) is Pool
    assert type(Pool("a:b", hooks=None)) is Pool
    assert type(Pool("a:b", hooks=Hooks())) is HookedPool
    with pytest.raises(TypeError, match="hooks is"):
        Pool("a:b", hooks=print)
    hooks = Hooks()
    hooks.at("/api").on_request(print)
    with pytest.raises(ValueError, match="a pool has no mounts"):
        Pool("a:b", hooks=hooks)


async def test_run_asgi_is_changed(asgi: Any) -> None:
    steps = "path:/scope query:a=b method:PUT set:x-user=me remove:x-old client:192.0.2.9 scheme:https"
    headers = with_headers(x_do=steps, x_old="1", x_then="set:x-new=1 code:202")
    for scope in (http_scope("/é", headers=headers), build_scope(http_scope("/x", headers=headers))):
        status, found, body = await asgi.run_asgi(scope)
        shown = literal_eval(body.decode())
        assert (status, dict(found)[b"x-new"]) == (202, b"1")
        assert (shown["path"], shown["raw_path"], shown["query_string"]) == ("/scope", b"/scope", b"a=b")
        assert (shown["method"], shown["scheme"], shown["client"]) == ("PUT", "https", ("192.0.2.9", 7))
        assert dict(shown["headers"])[b"x-user"] == b"me"
        assert b"x-old" not in dict(shown["headers"])
    assert await asgi.run_asgi(http_scope("/hello")) == Response(
        200, [(b"content-type", b"text/plain")], b"Hello, World!"
    )


async def test_run_wsgi_is_changed(wsgi: Any) -> None:
    steps = "path:/app/environ query:a=b method:PUT set:x-user=me remove:x-old client:192.0.2.9"
    keys = {"HTTP_X_DO": steps, "HTTP_X_OLD": "1", "HTTP_X_THEN": "set:x-new=1 code:202", "SCRIPT_NAME": "/app"}
    status, headers, body = await wsgi.run_wsgi(environ("/x", CONTENT_TYPE="a/b", **keys))
    shown = literal_eval(body.decode())
    assert (status, dict(headers)["x-new"]) == ("202 Accepted", "1")
    assert (shown["PATH_INFO"], shown["SCRIPT_NAME"], shown["QUERY_STRING"]) == ("/environ", "/app", "a=b")
    assert (shown["REQUEST_METHOD"], shown["REMOTE_ADDR"], shown["REMOTE_PORT"]) == ("PUT", "192.0.2.9", "7")
    assert (shown["HTTP_X_USER"], shown["CONTENT_TYPE"]) == ("me", "a/b")
    assert "HTTP_X_OLD" not in shown
    status, headers, body = await wsgi.run_wsgi(environ("/hello"))
    assert (status, body) == ("200 OK", b"Hello, World!")


async def test_answers_and_errors(asgi: Any, wsgi: Any) -> None:
    own = [(b"x-by", b"hook")]
    assert await asgi.run_asgi(http_scope("/hello", headers=with_headers(x_do="answer"))) == (418, own, OWN.body)
    assert await asgi.run_asgi(http_scope("/raise", headers=with_headers(x_else="answer"))) == (418, own, OWN.body)
    status, headers, body = await wsgi.run_wsgi(environ("/raise", HTTP_X_ELSE="answer"))
    assert (status, headers, body) == ("418 I'm a Teapot", [("x-by", "hook")], OWN.body)
    with pytest.raises(AppError, match="no such thing"):
        await asgi.run_asgi(http_scope("/raise"))
    for mark in ("x_do", "x_then"):
        with pytest.raises(LookupError, match="by a hook"):
            await asgi.run_asgi(http_scope("/hello", headers=with_headers(**{mark: "raise"})))
    status, headers, body = await asgi.run_asgi(http_scope("/hello", headers=with_headers(x_then="code:204")))
    assert (status, body) == (204, b"")
    with pytest.raises(ValueError, match="which is required"):
        await asgi.run_asgi({"type": "http"})


async def test_a_hook_and_the_app_share_a_calls_time(asgi: Any, doing: Doing) -> None:
    with doing.gate("gate"):
        with pytest.raises(PoolTimeout, match="a hook did not answer") as caught:
            await asgi.run_asgi(http_scope("/hello", headers=with_headers(x_do="wait:gate")), timeout=0.05)
        assert not caught.value.started


async def exchange(pool: Any, scope: dict[str, Any], body: bytes = b"") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if scope["type"] == "websocket":
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await pool.handle_asgi(scope, receive, send)
    return sent


async def test_handle_asgi(asgi: Any) -> None:
    start, *bodies = await exchange(asgi, http_scope("/x", headers=with_headers(x_do="path:/hello", x_then="set:a=b")))
    assert (start["status"], dict(start["headers"])[b"a"]) == (200, b"b")
    assert b"".join(one["body"] for one in bodies) == b"Hello, World!"
    start, *bodies = await exchange(asgi, http_scope("/x", headers=with_headers(x_do="answer", x_then="set:a=b")))
    assert (start["status"], dict(start["headers"])) == (418, {b"x-by": b"hook", b"a": b"b", b"content-length": b"9"})
    start, *bodies = await exchange(asgi, http_scope("/chunks?3", headers=with_headers(x_then="code:304")))
    assert (start["status"], {one["body"] for one in bodies}) == (304, {b""})
    start, *bodies = await exchange(asgi, http_scope("/raise", headers=with_headers(x_else="status:502")))
    assert (start["status"], bodies[0]["body"]) == (502, b"Bad Gateway\n")
    with pytest.raises(AppError):
        await exchange(asgi, http_scope("/raise-half", headers=with_headers(x_else="status:502")))


async def test_handle_asgi_refuses_a_websocket(asgi: Any) -> None:
    headers = with_headers(x_do="answer")
    (closed,) = await exchange(asgi, websocket_scope("/echo", headers=headers))
    assert closed["type"] == "websocket.close"
    extensions = {"websocket.http.response": {}}
    start, body = await exchange(asgi, websocket_scope("/echo", headers=headers, extensions=extensions))
    assert (start["type"], start["status"], body["body"]) == ("websocket.http.response.start", 418, OWN.body)


async def test_a_pool_behind_another_server_has_its_hooks(doing: Doing) -> None:
    from httpx import ASGITransport, AsyncClient

    pool = Pool("asgi_app:app", hooks=doing.hooks, **pool_options("subinterpreter", workers=1))
    async with pool, AsyncClient(transport=ASGITransport(pool.asgi()), base_url="http://x") as client:
        assert (await client.get("/x", headers={"x-do": "path:/hello"})).text == "Hello, World!"
        assert (await client.get("/hello", headers={"x-do": "status:403"})).status_code == 403


@BOTH
async def test_async_hooks_on_both_loops(anyio_backend: str) -> None:
    hooks, told = Hooks(), []

    @hooks.on_request
    async def ask(request: Request) -> None:
        await anyio.sleep(0.001)
        request.path = "/hello"

    @hooks.on_response
    async def respond(request: Request, response: ResponseHead) -> None:
        await anyio.sleep(0.001)
        response.set("x-new", "1")

    @hooks.on_worker_ready
    async def ready(worker: WorkerInfo) -> None:
        await anyio.sleep(0.001)
        told.append(worker)

    @hooks.on_worker_exit
    async def left(worker: WorkerInfo) -> None:
        await anyio.sleep(0.001)
        told.append(worker)

    async with Pool("asgi_app:app", hooks=hooks, **pool_options("subinterpreter", workers=1)) as pool:
        status, headers, body = await pool.run_asgi(http_scope("/x"))
        assert (status, dict(headers)[b"x-new"], body) == (200, b"1", b"Hello, World!")
    assert [one.cause for one in told] == [None, None]  # the pool's end has waited for the last


def test_a_blocking_pool_has_hooks() -> None:
    hooks = Hooks()
    hooks.on_request(lambda request: 403)
    with Pool.blocking("asgi_app:app", hooks=hooks, **pool_options("subinterpreter", workers=1)) as pool:
        assert pool.run_asgi(http_scope("/hello")).status == 403


# workers


class Life:
    """What worker hooks heard."""

    def __init__(self) -> None:
        self.told: list[tuple[str, WorkerInfo]] = []
        self.reloads: list[Reload] = []
        self.hooks = Hooks()
        for kind in ("start", "ready", "exit"):
            self.hooks.add(f"on_worker_{kind}", lambda worker, kind=kind: self.told.append((kind, worker)))
        self.hooks.on_reload(self.reloads.append)

    def names(self) -> list[tuple[str, int, int]]:
        return [(kind, worker.id, worker.generation) for kind, worker in self.told]


async def test_workers_start_and_exit(isolation: str, make_pool: Callable[..., Any]) -> None:
    life = Life()
    async with make_pool("asgi_app:app", hooks=life.hooks, workers=1) as pool:
        assert life.names() == [("start", 1, 1), ("ready", 1, 1)]
        assert life.told[0][1] == WorkerInfo(1, 1, isolation, "asgi_app:app")
        await pool.run_asgi(http_scope("/hello"))
    assert life.names()[2:] == [("exit", 1, 1)]
    assert life.told[2][1] == WorkerInfo(1, 1, isolation, "asgi_app:app", served=1)


async def test_a_replaced_worker(isolation: str, make_pool: Callable[..., Any]) -> None:
    life = Life()
    async with make_pool("asgi_app:app", hooks=life.hooks, workers=1) as pool:
        await pool.recycle()
        await eventually(lambda: ("ready", 1, 2) in life.names())
        assert life.reloads == [Reload()]
    kinds = [kind for kind, _ in life.told]
    assert kinds.count("exit") == kinds.count("start")
    assert not any(worker.unexpected for _, worker in life.told)


async def test_a_worker_that_dies() -> None:
    life = Life()
    async with Pool("asgi_app:app", hooks=life.hooks, **pool_options("process", workers=1)) as pool:
        with contextlib.suppress(Exception):
            await pool.run_asgi(http_scope("/os-exit"))
        await eventually(lambda: ("ready", 1, 2) in life.names())
        (left,) = (worker for kind, worker in life.told if kind == "exit")
        assert left.unexpected
        assert left.cause
        assert left.generation == 1


async def test_a_hook_of_a_worker_that_raises_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks()

    @hooks.on_worker_start
    def fail(worker: WorkerInfo) -> None:
        raise LookupError("at the start")

    @hooks.on_worker_ready
    async def fail_later(worker: WorkerInfo) -> None:
        await anyio.sleep(0.001)
        raise LookupError("when ready")

    async with Pool("asgi_app:app", hooks=hooks, **pool_options("subinterpreter", workers=1)) as pool:
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200
    assert "at the start" in caplog.text
    assert "when ready" in caplog.text


async def test_a_reload_of_the_server(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("httptools")
    pytest.importorskip("pydantic")
    from h2_kit import serving

    caplog.set_level(logging.CRITICAL, "subpool")
    app = tmp_path / "hooked_reload_app.py"
    app.write_text("async def app(scope, receive, send): raise RuntimeError\n")
    life = Life()
    given = {"pythonpath": [str(tmp_path)], "host_hooks": life.hooks}
    async with serving("subinterpreter", "hooked_reload_app:app", **given) as server:
        await server.reload()
        assert life.reloads == [Reload()]
        app.write_text("nonsense\n")
        wrong = await server.reload()
        assert life.reloads[1:] == [Reload(wrong)]
        assert wrong is not None
    async with serving("thread", "asgi_app:app", host_hooks=life.hooks) as server:
        server.on_fresh = lambda: None
        await server.reload()
        assert life.reloads[2:] == [Reload(fresh_process=True)]
