"""A WebSocket client that does as little as it can: `python -m perf.ws_load PORT PATH SECONDS CONNECTIONS`.

Each connection sends a message of 64 bytes, waits for its echo, and sends again. What it found is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

SIZE = 64
MESSAGE = b"\x82" + bytes([0x80 | SIZE]) + b"\0\0\0\0" + b"x" * SIZE  # masked with zeros (RFC 6455, section 5.3)
ECHO = b"\x82" + bytes([SIZE]) + b"x" * SIZE


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, path: str, latencies: list[float], over: asyncio.Future[None]) -> None:
        self._path = path
        self._latencies = latencies
        self._over = over
        self._got = b""
        self._open = False
        self._sent = 0.0
        self._ended = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(
            b"GET %s HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n" % self._path.encode()
        )

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._open:
            head, end, rest = self._got.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.fail(f"no upgrade: {head[:80]!r}")
                return
            self._open, self._got = True, rest
            self._send()
        while len(self._got) >= len(ECHO):
            if self._got[: len(ECHO)] != ECHO:
                self.fail(f"not an echo: {self._got[:40]!r}")
                return
            self._got = self._got[len(ECHO) :]
            self._latencies.append(time.perf_counter() - self._sent)
            if self._ended:
                self._transport.abort()
                return
            self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(MESSAGE)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended:
            self.fail("the server has closed the connection")

    def fail(self, text: str) -> None:
        if not self._over.done():
            self._over.set_exception(RuntimeError(text))

    def end(self) -> None:
        self._ended = True


async def main(port: int, path: str, seconds: float, connections: int) -> None:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    latencies: list[float] = []
    clients = [
        (await loop.create_connection(lambda: Client(path, latencies, over), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    latencies.clear()
    start = time.perf_counter()
    try:
        async with asyncio.timeout(seconds):
            await over
    except TimeoutError:
        pass
    took = time.perf_counter() - start
    for client in clients:
        client.end()
    each = sorted(latencies) or [0.0]
    ranks = {name: each[round((len(each) - 1) * part)] for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    print(json.dumps({"requests": len(latencies), "seconds": took, "failed": 0, **ranks}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    try:
        import uvloop

        run: Any = uvloop.run
    except ImportError:
        run = asyncio.run
    run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
