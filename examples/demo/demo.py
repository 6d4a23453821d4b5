"""One pool of two workers, an ASGI and a WSGI app: real requests, their answers, the pool's statistics; then the same
apps behind the server, asked over HTTP.

Run it with `make demo`. Ends with status 0 when every answer is what it should be.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from subpool import AppError, Pool, PoolStats
from subpool.http.config import ServerConfig
from subpool.http.server import Server

HERE = Path(__file__).resolve().parent
UPLOAD = os.urandom(1_000_000)
DIGEST = hashlib.sha256(UPLOAD).hexdigest()
NUMBERS = json.dumps({"numbers": [1, 2, 3.5]}).encode()
BURST = 200  # requests sent at once at the end


def scope(method: str, path: str) -> dict[str, Any]:
    """An ASGI scope; all that is left out has a default."""
    return {"type": "http", "method": method, "path": path, "headers": [(b"host", b"demo.example")]}


def environ(method: str, path: str, body: bytes = b"") -> dict[str, Any]:
    """A WSGI environ."""
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SERVER_NAME": "demo.example",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.url_scheme": "http",
        "wsgi.input": body,
    }


def show(request: str, worker: object, status: object, answer: str) -> None:
    """Print one answer, in columns."""
    print(f"  {request:<20} worker {worker!s:<3} {status!s:<14} {answer}")


def expect(what: str, got: object, wanted: object) -> None:
    """End the demo with status 1 if an answer is not what it should be."""
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, not {wanted!r}")


async def asgi(pool: Pool) -> None:
    """The four requests to the ASGI app, which is the pool's own."""
    print("ASGI app demo_asgi:app")
    status, headers, body = await pool.run_asgi(scope("POST", "/json"), NUMBERS)
    show("POST /json", dict(headers)[b"x-worker"].decode(), status, body.decode())
    expect("the sum", json.loads(body), {"sum": 6.5})

    status, headers, body = await pool.run_asgi(scope("POST", "/upload"), UPLOAD)
    answer = json.loads(body)
    digest = answer["sha256"][:16]
    show("POST /upload (1 MB)", dict(headers)[b"x-worker"].decode(), status, f"sha256 {digest}...")
    expect("the upload", answer, {"bytes": len(UPLOAD), "sha256": DIGEST})

    async with pool.stream_asgi(scope("GET", "/stream")) as response:
        chunks = [bytes(chunk) async for chunk in response]
        worker = dict(response.headers)[b"x-worker"].decode()
        show("GET /stream", worker, response.status, f"in parts: {chunks}")
    expect("the stream", b"".join(chunks), b"one two three")

    try:
        await pool.run_asgi(scope("GET", "/error"))
    except AppError as error:
        show("GET /error", "-", "AppError", f"{error.type_name}: {error.message}")
    else:
        sys.exit("GET /error was answered")


async def wsgi(pool: Pool) -> None:
    """The same to the WSGI app: another app, in the same workers."""
    app = "demo_wsgi:application"
    print(f"WSGI app {app}")
    status, headers, body = await pool.run_wsgi(environ("POST", "/json", NUMBERS), app=app)
    show("POST /json", dict(headers)["X-Worker"], status, body.decode())
    expect("the sum", json.loads(body), {"sum": 6.5})

    status, headers, body = await pool.run_wsgi(environ("POST", "/upload", UPLOAD), app=app)
    answer = json.loads(body)
    show("POST /upload (1 MB)", dict(headers)["X-Worker"], status, f"sha256 {answer['sha256'][:16]}...")
    expect("the upload", answer, {"bytes": len(UPLOAD), "sha256": DIGEST})

    status, headers, body = await pool.run_wsgi(environ("GET", "/stream"), app=app)
    show("GET /stream", dict(headers)["X-Worker"], status, f"joined: {body!r}")
    expect("the stream", body, b"one two three")

    try:
        await pool.run_wsgi(environ("GET", "/error"), app=app)
    except AppError as error:
        show("GET /error", "-", "AppError", f"{error.type_name}: {error.message}")
    else:
        sys.exit("GET /error was answered")


async def burst(pool: Pool) -> None:
    """Many requests at once: both workers answer."""
    by_worker: dict[str, int] = {}

    async def one() -> None:
        response = await pool.run_asgi(scope("POST", "/json"), NUMBERS)
        worker = dict(response.headers)[b"x-worker"].decode()
        by_worker[worker] = by_worker.get(worker, 0) + 1

    async with anyio.create_task_group() as group:
        for _ in range(BURST):
            group.start_soon(one)
    print(f"{BURST} requests at once")
    for worker, count in sorted(by_worker.items()):
        print(f"  worker {worker} answered {count}")
    expect("the answers of the burst", sum(by_worker.values()), BURST)


async def server() -> None:
    """`subpool serve` in this program: both apps under prefixes, asked by the standard library's client."""
    config = ServerConfig(
        bind=["127.0.0.1:0"],
        workers=2,
        pythonpath=[str(HERE)],
        mounts=[{"prefix": "/asgi", "app": "demo_asgi:app"}, {"prefix": "/wsgi", "app": "demo_wsgi:application"}],
    )
    running = Server(config)
    await running.start()
    try:
        address = running.addresses[0]
        print(f"Server at {address}")
        for prefix in ("/asgi", "/wsgi"):
            status, worker, body = await anyio.to_thread.run_sync(ask, f"{address}{prefix}/json", NUMBERS)
            show(f"POST {prefix}/json", worker, status, body.decode())
            expect("the sum", json.loads(body), {"sum": 6.5})
            status, worker, body = await anyio.to_thread.run_sync(ask, f"{address}{prefix}/upload", UPLOAD)
            show(f"POST {prefix}/upload", worker, status, f"sha256 {json.loads(body)['sha256'][:16]}...")
            expect("the upload", json.loads(body), {"bytes": len(UPLOAD), "sha256": DIGEST})
            status, worker, body = await anyio.to_thread.run_sync(ask, f"{address}{prefix}/stream", None)
            show(f"GET {prefix}/stream", worker, status, repr(body))
            expect("the stream", body, b"one two three")
            status, worker, _ = await anyio.to_thread.run_sync(ask, f"{address}{prefix}/error", None)
            show(f"GET {prefix}/error", "-", status, "the traceback is in the log")
            expect("the error", status, 500)
    finally:
        await running.stop(5.0)


def ask(url: str, body: bytes | None) -> tuple[int, str | None, bytes]:
    """Status, worker and body of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as answer:
            return answer.status, answer.headers["x-worker"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None, error.read()


def table(stats: PoolStats) -> None:
    """Print the pool's statistics: one line a worker, times in milliseconds."""
    print(f"Statistics ({stats.isolation}; {stats.pending} waiting, {stats.refused} refused)")
    print("  worker  kind            gen  state   served  failed  restarts  p50 ms  p99 ms")
    for w in stats.workers:
        times = "  ".join(f"{value * 1000:6.2f}" if value == value else "     -" for value in (w.p50, w.p99))
        print(
            f"  {w.id!s:<6}  {w.kind:<14}  {w.generation:>3}  {w.state!s:<6}  {w.served:>6}  {w.failed:>6}"
            f"  {w.restarts:>8}  {times}"
        )


async def main() -> None:
    """Start the pool, send everything, print everything."""
    print(f"CPython {platform.python_version()}, two workers")
    async with Pool("demo_asgi:app", workers=2, pythonpath=[str(HERE)]) as pool:
        print(f"Isolation chosen: {pool.isolation}")
        await asgi(pool)
        await wsgi(pool)
        await burst(pool)
        table(pool.stats())
    logging.getLogger("subpool.error").addHandler(logging.NullHandler())  # the errors that are asked for
    await server()


if __name__ == "__main__":
    anyio.run(main)
