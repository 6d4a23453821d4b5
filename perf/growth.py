"""How costs grow: with workers, idle connections, the size of bodies, headers and routes. Each with its slope.

The contestants of such a case are the points of one line; they take turns like all others. The slope is that of the
straight line through the medians (least squares).
"""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from typing import Any, Final

from perf import KIB, MIB, scope
from perf.calls import pool_of
from perf.frame import Left, Session, awaited, loop
from perf.load import measured, wrk
from perf.machine import without
from perf.peers import Peer, Serving, pss
from subpool.http.front import Front, Mount

WORKERS: Final = (1, 2, 4, 8)
CONNECTIONS: Final = (10, 100, 1000, 10_000)
SIZES: Final = (KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB)
HEADERS: Final = (1, 8, 32, 64)
ROUTES: Final = (1, 10, 100, 1000)


async def run(session: Session) -> None:
    if session.wanted("workers"):
        await workers(session)
    if session.wanted("idle connections"):
        await connections(session)
    await pieces(session)
    await routes(session)


async def workers(session: Session) -> None:
    """Hello through pools of some workers."""
    async with contextlib.AsyncExitStack() as stack:
        request = scope()
        turns = {}
        for number in WORKERS:
            pool = await stack.enter_async_context(pool_of(session, "hello", number))

            def call(pool: Any = pool) -> Any:
                return pool.run_asgi(request)

            turns[str(number)] = awaited(call)
        await session.compare(
            "workers", "Hello, 64 in flight, through pools of so many workers: what it costs to spread calls.", turns,
            seconds=0.4, rounds=3, growth="workers",
        )  # fmt: skip


async def pieces(session: Session) -> None:
    """Bodies and headers, through a pool of one worker."""
    async with pool_of(session, "app") as pool:

        def answer(size: int) -> Any:
            request = scope("/big", b"%d" % size)
            return awaited(lambda: pool.run_asgi(request), 4)

        def upload(size: int) -> Any:
            request, body = scope("/length"), bytes(size)
            return awaited(lambda: pool.run_asgi(request, body), 4)

        def headed(number: int) -> Any:
            request = scope()
            request["headers"] = [(b"x-header-%d" % n, b"value %d of a header" % n) for n in range(number)]
            return awaited(lambda: pool.run_asgi(request))

        for name, title, make, points, growth in (
            ("size of answers", "An answer of so many bytes, 4 in flight, 1 worker.", answer, SIZES, "bytes"),
            ("size of requests", "A body of so many bytes, 4 in flight, 1 worker.", upload, SIZES, "bytes"),
            ("headers", "Hello with so many headers, 64 in flight, 1 worker.", headed, HEADERS, "headers"),
        ):
            turns = {str(point): make(point) for point in points}
            await session.compare(name, title, turns, seconds=0.3, rounds=3, growth=growth)


async def routes(session: Session) -> None:
    """The search for a mount: alone, for the rest does not depend on it."""

    def find(number: int) -> Any:
        front = Front.__new__(Front)
        front.set_mounts([Mount(f"/{n:04d}", None, None, None, None) for n in range(number)])  # type: ignore[arg-type]
        target = b"/%04d/page?query" % (number - 1)
        assert front.find(target) is not None
        return loop(lambda: front.find(target))

    await session.compare(
        "routes", "The search for the last of so many mounts, in the server's front.",
        {str(number): find(number) for number in ROUTES}, rounds=3, growth="mounts",
    )  # fmt: skip


@contextlib.contextmanager
def descriptors(number: int) -> Iterator[int]:
    """As many descriptors as are allowed, up to `number`, here and in what is started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = number if hard == resource.RLIM_INFINITY else min(number, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield max(soft, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def connections(session: Session) -> None:
    """Hello through a server that has idle connections besides; and its memory."""
    if reason := without("wrk", "wrk"):
        session.leave(session.case("idle connections", "Hello beside idle connections."), "all", reason)
        return
    options = ("--keepalive-timeout", "600", "--max-connections", "20000")
    turns = {}
    left = {}
    async with contextlib.AsyncExitStack() as stack:
        most = stack.enter_context(descriptors(2 * sum(CONNECTIONS)))
        for number in CONNECTIONS:
            try:
                if sum(CONNECTIONS) + 500 > most and number == CONNECTIONS[-1]:
                    raise Left(f"only {most} descriptors are allowed (ulimit -n)")
                peer = Peer("subpool", workers=session.workers, isolation=session.isolation, options=options)
                server = await stack.enter_async_context(Serving(peer))
                stack.enter_context(idle(server, number))
            except (Left, OSError) as error:
                left[str(number)] = str(error)
                continue

            async def turn(seconds: float, server: Serving = server) -> dict[str, float]:
                found = await measured(server, lambda: wrk(server, "/hello", seconds), ("p99",))
                return {**found, "memory": pss(server.pid)}

            turns[str(number)] = turn
        await session.compare(
            "idle connections", f"Hello on 64 connections, beside so many idle ones; {session.workers} workers.", turns,
            left=left, seconds=1.0, rounds=3, warm=False, growth="connections",
            note="Each point has a server of its own.",
        )  # fmt: skip


@contextlib.contextmanager
def idle(server: Serving, number: int) -> Iterator[None]:
    """So many connections that have had an answer and stay open."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(number):
            one = socket.create_connection(("127.0.0.1", server.port), 10)
            sockets.append(one)
            one.sendall(b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n")
            if not one.recv(4096).startswith(b"HTTP/1.1 200"):
                raise Left("a connection was refused")
        yield
    finally:
        for one in sockets:
            one.close()
