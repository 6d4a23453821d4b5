"""Hello, while a function of the host computes: what the helper process takes from requests. Part of `services`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from perf.frame import Session
from perf.load import LATENCIES, measured, wrk
from perf.machine import without
from perf.peers import Peer, Serving

CLIENTS: Final = 4  # they leave the machine time to spare


async def hello_beside(session: Session) -> None:
    """Hello through a server whose host computes in the helper process, again and again, for 2 s each time."""
    name = "hello beside a computing function"
    if not session.wanted(name):
        return
    title = f"Hello on {CLIENTS} connections, while a function of the host computes. {session.workers} workers."
    if reason := without("wrk", "wrk"):
        session.leave(session.case(name, title), "all", reason)
        return
    options = ("--function", "burn=perf:burn", "--timeout", "60")
    peer = Peer("subpool", workers=session.workers, isolation=session.isolation, options=options)
    async with Serving(peer) as server:
        await burning(server, 0.1)  # the helper has been started

        async def alone(seconds: float) -> dict[str, float]:
            return await measured(server, partial(wrk, server, "/hello", seconds, connections=CLIENTS), LATENCIES)

        async def beside(seconds: float) -> dict[str, float]:
            async with asyncio.TaskGroup() as group:
                group.create_task(burning(server, seconds + 0.3))
                await asyncio.sleep(0.15)
                return await alone(seconds)

        await session.compare(name, title, {"subpool": beside, "alone": alone}, seconds=2.0, warm=False)


async def burning(server: Serving, seconds: float) -> None:
    """Have the host's helper compute."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /ask?{seconds} HTTP/1.1\r\nHost: perf\r\nConnection: close\r\n\r\n".encode())
    said = await reader.read()
    writer.close()
    if not said.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"no function computed: {said[:200]!r}")
