"""Requests through whole servers: subpool beside granian, uvicorn, hypercorn and gunicorn, at equal workers.

The load is wrk (64 connections, one thread), h2load (8 connections of 32 streams) or `perf.ws_load`, on this machine:
it takes its share of the CPUs, from all contestants alike. Servers of a case run side by side and take turns. Beside
the time by the clock stands the CPU time that a server used for a request (user and system, all its processes): on a
small machine that tells more.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from perf import KIB, MIB
from perf.frame import Left, Session, Turn
from perf.load import h2load, measured, websockets, wrk
from perf.machine import PEERS, missing, without
from perf.peers import Peer, Serving

ROUNDS: Final = 3
SECONDS: Final = 1.0

Load = Callable[[Serving, float], Awaitable[dict[str, Any]]]

ASGI: Final[Mapping[str, tuple[str, str, dict[str, Any]]]] = {
    "hello": ("13 bytes of text.", "/hello", {}),
    "8 headers": ("Hello for a client with 8 headers, always the same.", "/hello", {"send": ("headers",)}),
    "8 headers that differ": (
        "Hello; three of the 8 headers are different in every request, so that nobody has seen the lines before.",
        "/hello",
        {"send": ("vary",)},
    ),
    "JSON": ("20 records, made into 1.5 KB of JSON for each request.", "/json", {}),
    "64 KB": ("An answer of 64 KiB.", f"/big?{64 * KIB}", {}),
    "1 MB": ("An answer of 1 MiB.", f"/big?{MIB}", {"connections": 16}),
    "upload 1 MB": ("A request with a body of 1 MiB.", "/length", {"connections": 16, "send": ("upload", str(MIB))}),
    "SSE": ("A stream of 20 events, a message each.", "/sse?20", {}),
    "1 ms of CPU": ("The handler computes for 1 ms.", "/burn?0.001", {}),
    "20 ms of CPU": ("The handler computes for 20 ms.", "/burn?0.02", {"connections": 8}),
    "sleep 10 ms": ("The handler awaits asyncio.sleep(0.01).", "/sleep?0.01", {}),
}


async def run(session: Session) -> None:
    if reason := without("wrk", "wrk"):
        raise Left(reason)
    workers = session.workers
    with tempfile.TemporaryDirectory(prefix="perf-") as name:
        folder = Path(name)
        await asgi(session, workers)
        await alike(session)
        await framework(session, folder)
        await upgraded(session, workers)
        await secured(session, folder, workers)


@contextlib.asynccontextmanager
async def serving(session: Session, peers: Mapping[str, Peer], path: str = "/hello") -> AsyncIterator[Any]:
    """Those of `peers` that start, and the reasons of those that do not."""
    async with contextlib.AsyncExitStack() as stack:
        servers: dict[str, Serving] = {}
        left: dict[str, str] = {}
        for name, peer in peers.items():
            try:
                servers[name] = await stack.enter_async_context(Serving(peer, path))
            except Left as error:
                left[name] = str(error)
                session.say(f"  {name}: {error}")
        yield servers, left


def turns(servers: Mapping[str, Serving], load: Load, latencies: tuple[str, ...] = ("p50", "p99")) -> dict[str, Turn]:
    def turn(server: Serving) -> Turn:
        async def one(seconds: float) -> dict[str, float]:
            if server.fresh:
                server.fresh = False
                await load(server, 1.0)
            return await measured(server, partial(load, server, seconds), latencies)

        return one

    return {name: turn(server) for name, server in servers.items()}


def wanted(session: Session, *names: str) -> bool:
    return any(session.wanted(name) for name in names)


async def compare(session: Session, name: str, title: str, servers: Any, left: Any, load: Load, **more: Any) -> None:
    fields = {key: more.pop(key) for key in ("note", "ours") if key in more}
    await session.compare(
        name, title, turns(servers, load, **more), left=left, seconds=SECONDS, rounds=ROUNDS, warm=False, **fields
    )


def ours(session: Session, **fields: Any) -> dict[str, Peer]:
    """Us, on this interpreter and on the others that were named; those without GIL with threads."""
    peers = {"subpool": Peer("subpool", isolation=session.isolation, **fields)}
    for python in session.pythons:
        name = version(python)
        isolation = "thread" if name.endswith("t") else session.isolation
        peers[f"subpool on {name}"] = Peer("subpool", isolation=isolation, python=python, **fields)
    return peers


def version(python: str) -> str:
    """What an interpreter calls itself: 3.13.0, or 3.13.0t without GIL. One that does not run is called by its path."""
    code = "import sys; print(sys.version.split()[0] + 't' * (not getattr(sys, '_is_gil_enabled', lambda: True)()))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return python
    return done.stdout.strip()


async def asgi(session: Session, workers: int) -> None:
    """Everything that the bare ASGI app can do."""
    if not wanted(session, *ASGI, "beside a 20 ms burner"):
        return
    peers = {**ours(session, workers=workers), **{kind: Peer(kind, workers=workers) for kind in PEERS}}
    async with serving(session, peers) as (servers, left):
        for name, (title, path, options) in ASGI.items():

            def load(server: Serving, seconds: float, path: str = path, options: Any = options) -> Any:
                return wrk(server, path, seconds, **options)

            await compare(session, name, f"{title} {workers} workers.", servers, left, load)
        await compare(
            session, "beside a 20 ms burner",
            f"Hello on 16 connections, while one more asks for 20 ms of CPU again and again. {workers} workers.",
            servers, left, beside, latencies=("p50", "p90", "p99", "p99.9"),
        )  # fmt: skip


async def beside(server: Serving, seconds: float) -> dict[str, Any]:
    """Hello, with a burner beside it."""
    async with asyncio.TaskGroup() as group:
        group.create_task(wrk(server, "/burn?0.02", seconds, connections=1))
        fast = group.create_task(wrk(server, "/hello", seconds, connections=16))
    return fast.result()


async def alike(session: Session) -> None:
    """Us alone: other numbers of workers, other kinds of them."""
    if wanted(session, "hello by workers"):
        peers = {f"{n} workers": Peer("subpool", workers=n, isolation=session.isolation) for n in (1, 2, 4)}
        async with serving(session, peers) as (servers, left):
            await compare(session, "hello by workers", "Hello through subpool.", servers, left, hello)
    if wanted(session, "hello by isolation"):
        kinds = ("subinterpreter", "thread", "process")
        peers = {kind: Peer("subpool", workers=session.workers, isolation=kind) for kind in kinds}
        title = f"Hello through subpool, {session.workers} workers."
        async with serving(session, peers) as (servers, left):
            await compare(session, "hello by isolation", title, servers, left, hello, ours=session.isolation)


def hello(server: Serving, seconds: float) -> Any:
    return wrk(server, "/hello", seconds)


async def framework(session: Session, folder: Path) -> None:
    """WSGI: bare, Flask, Django."""
    workers = session.workers
    cases: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
        "wsgi hello": ("13 bytes of text over WSGI.", "perf:wsgi", "/hello", ()),
        "Flask": ("A page of Flask with a template.", "perf.pages.flask_page:app", "/page", ("flask",)),
        "Django": ("20 rows from SQLite through Django's ORM.", "perf.pages.django_page:app", "/page", ("django",)),
    }
    for name, (title, app, path, modules) in cases.items():
        if not session.wanted(name):
            continue
        if reason := missing(*modules):
            session.leave(session.case(name, title), "all", reason)
            continue
        environment = {}
        if name == "Django":
            environment["PERF_DB"] = database(folder)
        fields: dict[str, Any] = {"app": app, "workers": workers, "wsgi": True, "environment": environment}
        peers = {**ours(session, **fields), **{kind: Peer(kind, **fields) for kind in PEERS if kind != "uvicorn"}}

        def load(server: Serving, seconds: float, path: str = path) -> Any:
            return wrk(server, path, seconds)

        async with serving(session, peers, path) as (servers, left):
            note = "subpool runs WSGI inline, one thread a worker; gunicorn has gthread with 8 threads a worker."
            await compare(session, name, f"{title} {workers} workers.", servers, left, load, note=note)


def database(folder: Path) -> str:
    """A database of SQLite with 1000 rows, for `perf.pages.django_page`."""
    file = str(folder / "items.sqlite3")
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("create table item (id integer primary key autoincrement, name varchar(80), price real)")
        db.executemany("insert into item (name, price) values (?, ?)", ((f"item {n}", n * 0.5) for n in range(1000)))
    return file


async def upgraded(session: Session, workers: int) -> None:
    if not wanted(session, "WebSocket"):
        return
    fields: dict[str, Any] = {"workers": workers, "websocket": True}
    peers = {**ours(session, **fields), **{kind: Peer(kind, **fields) for kind in PEERS}}
    async with serving(session, peers) as (servers, left):
        title = f"Echo of 64 bytes on 64 WebSockets, one after another on each. {workers} workers."

        def load(server: Serving, seconds: float) -> Any:
            return websockets(server, "/echo", seconds)

        await compare(session, "WebSocket", title, servers, left, load)


async def secured(session: Session, folder: Path, workers: int) -> None:
    """Over TLS, HTTP/1.1 and HTTP/2."""
    if not wanted(session, "TLS", "HTTP/2"):
        return
    if reason := without("openssl", "openssl"):
        session.leave(session.case("TLS", "Hello over TLS."), "all", reason)
        return
    fields: dict[str, Any] = {"workers": workers, "tls": certificate(folder)}
    peers = {**ours(session, **fields), **{kind: Peer(kind, **fields) for kind in PEERS}}
    async with serving(session, peers) as (servers, left):
        await compare(session, "TLS", f"Hello over TLS, HTTP/1.1, kept alive. {workers} workers.", servers, left, hello)
        title = f"Hello over TLS and HTTP/2, 8 connections of 32 streams. {workers} workers."
        if reason := without("h2load", "nghttp2-client"):
            session.leave(session.case("HTTP/2", title), "all", reason)
            return
        able = {name: server for name, server in servers.items() if server.peer.kind != "uvicorn"}
        left = {**left, **({"uvicorn": "has no HTTP/2"} if "uvicorn" in servers else {})}

        def load(server: Serving, seconds: float) -> Any:
            return h2load(server, "/hello", seconds)

        await compare(session, "HTTP/2", title, able, left, load)


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate for localhost, signed by itself, and its key."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key
