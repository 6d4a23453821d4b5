"""The blocking face: the same calls without await, from one thread or from many."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import DEADLINE, environ, http_scope, pool_options, websocket_scope


@pytest.fixture
def blocking(isolation: str) -> Any:
    """A blocking pool, not entered yet."""
    from subpool import Pool

    return Pool.blocking("asgi_app:app", **pool_options(isolation))


def test_the_calls(blocking: Any, isolation: str) -> None:
    from subpool import AppError

    with blocking as pool:
        assert pool.run_asgi(http_scope("/hello")) == (
            200,
            [(b"content-type", b"text/plain")],
            b"Hello, World!",
        )
        assert pool.run_wsgi(environ("/hello"), app="wsgi_app:app").status == "200 OK"
        assert pool.call("functions:add", 2, right=3) == 5
        with pytest.raises(AppError, match="no such thing"):
            pool.run_asgi(http_scope("/raise"))
        with pytest.raises(ValueError, match="path"):
            pool.run_asgi({"type": "http"})
        assert pool.stats().isolation == isolation


def test_streams_are_plain_context_managers_and_iterators(blocking: Any) -> None:
    with blocking as pool:
        with pool.stream_asgi(http_scope("/chunks")) as stream:
            assert stream.status == 200
            assert b"".join(stream) == b"".join(b"chunk %d\n" % number for number in range(10))
        with pool.stream_asgi(http_scope("/echo", method="POST"), [b"a", b"b" * 50_000]) as stream:
            assert b"".join(stream) == b"a" + b"b" * 50_000
        with pool.stream_asgi(http_scope("/endless")) as stream:
            assert next(iter(stream))[:1] == b"x"


def test_websockets(blocking: Any) -> None:
    with blocking as pool, pool.websocket(websocket_scope("/echo")) as socket:
        assert socket.receive() == "welcome"
        socket.send("hi")
        assert socket.receive() == "hi"
        socket.close()


def test_many_threads(blocking: Any) -> None:
    with blocking as pool, ThreadPoolExecutor(16) as threads:

        def one(number: int) -> bytes:
            body: bytes = pool.run_asgi(http_scope("/echo", method="POST"), b"%d" % number).body
            return body

        assert list(threads.map(one, range(400))) == [b"%d" % number for number in range(400)]


def test_a_timeout(blocking: Any) -> None:
    from subpool import PoolTimeout

    with blocking as pool:
        with pytest.raises(PoolTimeout):
            pool.run_asgi(http_scope("/forever"), timeout=0.1)
        assert pool.run_asgi(http_scope("/hello")).status == 200


def test_recycle(blocking: Any, isolation: str) -> None:
    if isolation == "thread":
        pytest.skip("threads share one import: recycling them means a new process")
    with blocking as pool:
        before = [worker.generation for worker in pool.stats().workers]
        pool.recycle()
        assert pool.run_asgi(http_scope("/hello")).status == 200
        assert all(new > old for new, old in zip((w.generation for w in pool.stats().workers), before, strict=True))


def test_closed(blocking: Any) -> None:
    from subpool import PoolClosed

    with blocking as pool:
        pass
    with pytest.raises(PoolClosed):
        pool.run_asgi(http_scope("/hello"))


def test_a_pool_that_cannot_start(isolation: str) -> None:
    from subpool import AppLoadError, Pool

    with pytest.raises(AppLoadError, match="SETTINGS is not set"):
        with Pool.blocking("broken_body:app", **pool_options(isolation)):
            pass


def test_closing_ends_its_threads(blocking: Any) -> None:
    before = set(threading.enumerate())
    with blocking as pool:
        pool.run_asgi(http_scope("/hello"))
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(DEADLINE)
            assert not thread.is_alive(), thread


def test_closing_while_another_thread_waits(isolation: str, fifo: Any) -> None:
    from subpool import Pool, SubpoolError

    started = fifo("started")
    blocking = Pool.blocking("asgi_app:app", **pool_options(isolation, close_timeout=1.0))
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            blocking.run_asgi(http_scope("/forever", query_string=f"started={started}".encode()))
        except SubpoolError as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    with blocking:
        thread.start()
        started.wait_sync()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert len(outcome) == 1
