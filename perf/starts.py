"""Starting and reloading servers, and what their workers weigh: subpool beside the others.

Start-up is the time from the start of the process to the first answer. Memory is PSS of all processes of a server
after a second of load, each server alone: with two workers (with one some have no process that watches), and what two
more add, by two. gunicorn forks its workers, which share what they have not written to. Reload is the time from
SIGHUP until only new copies of the app answer, connection by connection.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from perf.frame import Left, Session
from perf.load import wrk
from perf.machine import PEERS, without
from perf.peers import Peer, Serving, pss
from perf.servers import ours

ROUNDS: Final = 2
ALIKE: Final = 16  # answers of new copies in a row, after which a reload is over
RELOAD: Final = 20.0  # seconds that a reload has
CANNOT: Final = {"hypercorn": "ends at SIGHUP: it reloads no other way than by being started again"}


async def run(session: Session) -> None:
    if reason := without("wrk", "wrk"):
        raise Left(reason)
    peers = {**ours(session), **{kind: Peer(kind) for kind in PEERS}}
    if session.wanted("further worker") or session.wanted("two workers"):
        two = session.case("two workers", "A server with two workers: start-up, and memory after a second of load.")
        more = session.case("further worker", "What a third and a fourth worker add to that, each.")

        async def weigh(name: str, peer: Peer, turn: int) -> None:
            sizes = []
            for workers in (2, 4):
                async with Serving(replace(peer, workers=workers)) as server:
                    await wrk(server, "/hello", 1)
                    sizes.append(pss(server.pid))
                    if workers == 2:
                        two.add(name, "time", turn, server.took)
                        two.add(name, "memory", turn, sizes[0])
            more.add(name, "memory", turn, (sizes[1] - sizes[0]) / 2)

        await each(session, "memory", peers, weigh, (two, more))
    if session.wanted("reload"):
        title = f"From SIGHUP until only new copies of the app answer, {session.workers} workers."
        case = session.case("reload", title)
        for name, reason in CANNOT.items():
            case.left[name] = reason
            peers.pop(name)

        async def renew(name: str, peer: Peer, turn: int) -> None:
            async with Serving(replace(peer, workers=session.workers), "/token") as server:
                case.add(name, "time", turn, await reload(server))

        await each(session, "reload", peers, renew, (case,))


async def each(
    session: Session,
    what: str,
    peers: dict[str, Peer],
    measure: Callable[[str, Peer, int], Awaitable[None]],
    cases: tuple[object, ...],
) -> None:
    """Every peer once a round, alone on the machine, in an order that changes."""
    session.say(f"{session.bench}/{what}: {', '.join(peers)}")
    playing = dict(peers)
    chance = random.Random(what)
    for case in cases:
        case.order.extend(peers)  # type: ignore[attr-defined]
    for turn in range(session.effort.of(ROUNDS)):
        names = list(playing)
        chance.shuffle(names)
        for name in names:
            try:
                async with asyncio.timeout(120):
                    await measure(name, playing[name], turn)
            except Exception as error:
                text = str(error) if isinstance(error, Left) else f"{type(error).__name__}: {error}"
                for case in cases:
                    session.leave(case, name, text)  # type: ignore[arg-type]
                del playing[name]


async def reload(server: Serving) -> float:
    """Seconds from SIGHUP to the first of `ALIKE` answers in a row from copies that were not there before."""
    old = {await token(server.port) for _ in range(4 * ALIKE)}
    start = time.perf_counter()
    server.signal(signal.SIGHUP)
    alike, first = 0, 0.0
    while alike < ALIKE:
        if time.perf_counter() - start > RELOAD:
            raise Left(f"old copies of the app still answer {RELOAD:g} s after SIGHUP")
        if not server.alive():
            raise Left(f"ended at SIGHUP: {server.words()}")
        try:
            got = await token(server.port)
        except (OSError, EOFError, TimeoutError):
            got = b""
        if not got or got in old:
            alike = 0
            await asyncio.sleep(0.002)
            continue
        if not alike:
            first = time.perf_counter() - start
        alike += 1
    return first


async def token(port: int) -> bytes:
    """Which copy of the app answers on a new connection."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET /token HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.transport.abort()
    if not head.startswith(b"HTTP/1.1 200") or len(body) != 16:
        raise EOFError("no whole answer")
    return body
