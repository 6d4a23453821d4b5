"""Measurements of subpool, and the small apps that they run. `python -m perf list` says which there are.

What a worker imports is this file alone, so it needs the standard library only. No figure is compared with one of
another run: whatever is compared is measured in turns.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parent.parent)
KIB, MIB = 1024, 1024 * 1024
_MADE: dict[int, bytes] = {}
TOKEN = os.urandom(8).hex().encode()
SSE = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
RECORDS = [{"id": number, "name": f"item {number}", "price": number * 1.5, "tags": ["a", "b"]} for number in range(20)]


def scope(path: str = "/hello", query: bytes = b"") -> dict[str, Any]:
    """A scope as a server builds it for a browser's request, with 8 headers (ASGI HTTP 2.5)."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [
            (b"host", b"www.example.test"),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            (b"accept-language", b"en-GB,en;q=0.5"),
            (b"accept-encoding", b"gzip, deflate, br, zstd"),
            (b"connection", b"keep-alive"),
            (b"cookie", b"session=0123456789abcdef0123456789abcdef; theme=dark"),
            (b"cache-control", b"max-age=0"),
        ],
        "client": ("192.0.2.7", 50123),
        "server": ("www.example.test", 80),
    }


def environ(path: str = "/hello", query: str = "") -> dict[str, Any]:
    """The same request as a WSGI environ (PEP 3333)."""
    fields = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "www.example.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        "wsgi.url_scheme": "http",
        "wsgi.input": b"",
    }
    for name, value in scope()["headers"]:
        fields["HTTP_" + name.decode().upper().replace("-", "_")] = value.decode()
    return fields


# What workers run


def burn(seconds: float) -> None:
    """Use `seconds` of this thread's CPU time in pure Python."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def count(steps: int) -> int:
    """A fixed amount of pure-Python work."""
    total = 0
    for step in range(steps):
        total += step
    return total


def made(size: int) -> bytes:
    """`size` bytes, made once a worker."""
    if size not in _MADE:
        _MADE[size] = bytes(size)
    return _MADE[size]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A bare ASGI app. `/hello`, `/burn?seconds`, `/work?steps`, `/big?size`, `/new?size`, `/sleep?seconds`,
    `/ask?seconds` (of CPU, by a host function), `/length` (of the request's body), `/stream?size` (eight messages
    of that size), `/json`, `/sse?events`, `/token` (of this copy of the app), and a WebSocket that echoes."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    path = scope["path"]
    kind = b"text/plain"
    if path == "/hello":
        body = b"Hello, World!"
    elif path == "/json":
        import json

        kind, body = b"application/json", json.dumps(RECORDS).encode()
    elif path == "/token":
        body = TOKEN
    elif path == "/length":
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"%d" % size
    else:
        value = float(scope["query_string"])
        body = b"done"
        if path == "/burn":
            burn(value)
        elif path == "/work":
            count(int(value))
        elif path == "/big":
            body = made(int(value))
        elif path == "/new":
            body = bytes(bytearray(int(value)))
        elif path == "/sleep":
            import asyncio

            await asyncio.sleep(value)
        elif path == "/ask":
            from subpool import acall

            await acall("burn", value)
        elif path == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(8):
                await send({"type": "http.response.body", "body": bytes(int(value)), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        elif path == "/sse":
            await send({"type": "http.response.start", "status": 200, "headers": SSE})
            for number in range(int(value)):
                event = b"id: %d\ndata: something has happened\n\n" % number
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(receive: Any, send: Any) -> None:
    """Accept a WebSocket, and send back what comes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            await send({"type": "websocket.send", "text": text})


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The hello app, bare."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, World!"})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """A bare WSGI app: `/hello`, `/burn?seconds`, `/big?size`, `/token`."""
    path, body = environ["PATH_INFO"], b"Hello, World!"
    if path == "/burn":
        burn(float(environ["QUERY_STRING"]))
    elif path == "/big":
        body = made(int(environ["QUERY_STRING"]))
    elif path == "/token":
        body = TOKEN
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def hello_call(scope: dict[str, Any], body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The hello app run to its answer, by a plain function: what an executor or `pool.call` is given."""
    status, headers, answer = 0, [], b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, headers, answer
        if message["type"] == "http.response.start":
            status, headers = message["status"], message["headers"]
        else:
            answer += message["body"]

    coro: Coroutine[Any, Any, None] = hello(scope, receive, send)
    try:
        coro.send(None)
    except StopIteration:
        return status, headers, answer
    raise RuntimeError("the hello app never waits")


async def hello_run(scope: dict[str, Any], body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The same through the default runner: what `run_asgi` does in a worker, with its checks."""
    from subpool.runners.asgi import run_asgi

    return await run_asgi(hello, scope, body)


def leftovers() -> dict[str, int]:
    """What the workers in this interpreter still hold, this call not counted. For `pool.call`."""
    import gc

    from subpool.worker.worker import Worker

    gc.collect()
    found = {"tasks": 0, "inboxes": 0, "threads": 0, "lent": 0, "owed": 0}
    for worker in gc.get_objects():
        if type(worker) is Worker:
            calls = worker.calls
            found["tasks"] += len(calls._tasks)
            found["inboxes"] += len(calls._inboxes)
            found["threads"] += len(calls.wsgi.steps)
            found["lent"] += worker.lent
            found["owed"] += worker.owed
    return found


# What the scripts share


def rss() -> int:
    """Resident bytes of this process (Linux; elsewhere its highest so far)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * KIB


def fds() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


def about() -> str:
    """The line that every script prints first."""
    version = sys.version.split()[0]
    return f"CPython {version} on {sys.platform}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
