"""Clients that vanish, in the middle of everything: no slot, task, buffer or descriptor is left of them.

The short form is for every run; `make soak` does it 10,000 times.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import KINDS, free_threaded

pytest.importorskip("click")
pytest.importorskip("httptools")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("h2")

import h2_kit
import proc_kit
import ws_client
from guard_kit import Command, until
from http_kit import get, request
from ops_kit import short_folder
from proc_kit import MB

from subpool.remote import Remote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TOGETHER = 32  # clients at once
VISIT = 15.0  # seconds that one may take
WARM = 120  # visits until everything is there that stays: several of every sort
CACHED = 10  # objects of one kind that may come later: header lists that are remembered. 300 visits are 17 of each sort
UPLOAD = request("POST", "/upload", "Content-Length: 100000")
CODED = request("POST", "/upload", "Transfer-Encoding: chunked")
type Dice = random.Random


class Vanishing:
    """Clients of a server on `port`, none of which says goodbye."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._server = SimpleNamespace(addresses=[f"http://127.0.0.1:{port}"])  # as `h2_kit` wants it
        self.sorts: list[Callable[[Dice], Coroutine[Any, Any, None]]] = [
            self.head, self.body, self.chunked_body, self.response, self.stream, self.unread_stream, self.pipeline,
            self.websocket, self.websocket_frame, self.websocket_flood,
            self.h2_head, self.h2_body, self.h2_response, self.h2_stream, self.h2_unread_stream, self.h2_resets,
            self.h2_websocket,
        ]  # fmt: skip
        self.visits: Counter[str] = Counter()

    async def run(self, count: int, seed: int) -> None:
        """So many visits, of all sorts in turn."""
        numbers = iter(range(count))

        async def client() -> None:
            for number in numbers:
                sort = self.sorts[number % len(self.sorts)]
                async with asyncio.timeout(VISIT):
                    await sort(random.Random(f"{seed} {number}"))
                self.visits[sort.__name__] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(min(TOGETHER, count)):
                group.create_task(client())

    async def _sent(self, data: bytes, dice: Dice, read: bytes | None = b"") -> None:
        """Send that, read until `read` has come, go: with FIN or with RST. `read` None: let the server write ahead."""
        reader, writer = await asyncio.open_connection(*self._address, limit=1024)
        try:
            writer.write(data)
            if read is None:
                await asyncio.sleep(dice.random() * 0.05)
            elif read:
                await reader.readuntil(read)
        finally:
            _leave(writer.transport, dice)
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    # HTTP/1.1

    async def head(self, dice: Dice) -> None:
        data = get("/hello", "X-Some: thing")
        await self._sent(data[: dice.randrange(len(data))], dice)

    async def body(self, dice: Dice) -> None:
        await self._sent(UPLOAD + bytes(dice.randrange(99_999)), dice)

    async def chunked_body(self, dice: Dice) -> None:
        await self._sent(CODED + (b"4e20\r\n%s\r\n" % bytes(20_000))[: dice.randrange(20_009)], dice)

    async def response(self, dice: Dice) -> None:
        """What is asked for does not come."""
        await self._sent(get("/wait"), dice, dice.choice((b"", None)))

    async def stream(self, dice: Dice) -> None:
        await self._sent(get("/stream?500"), dice, b"\0\0\0\0")

    async def unread_stream(self, dice: Dice) -> None:
        await self._sent(get("/stream?50000"), dice, None)

    async def pipeline(self, dice: Dice) -> None:
        await self._sent(get("/done") * 5 + get("/stream?20000") + get("/done") * 5, dice, dice.choice((b"done", None)))

    # WebSocket

    async def websocket(self, dice: Dice) -> None:
        data = ws_client.upgrade("/echo")
        await self._sent(data[: dice.randrange(len(data) // 2, len(data) + 1)], dice)

    async def websocket_frame(self, dice: Dice) -> None:
        """In the middle of a message, behind others."""
        whole = ws_client.frame(ws_client.BINARY, bytes(5000))
        data = ws_client.upgrade("/echo") + whole * 3 + whole[: dice.randrange(1, len(whole))]
        await self._sent(data, dice, dice.choice((b"", b"\r\n\r\n", b"\0\0\0\0", None)))

    async def websocket_flood(self, dice: Dice) -> None:
        await self._sent(ws_client.upgrade("/flood"), dice, dice.choice((b"\0\0\0\0", None)))

    # HTTP/2

    @contextlib.asynccontextmanager
    async def _h2(self, dice: Dice, reads: bool = True) -> Any:
        client = await h2_kit.connect(self._server, reads=reads)
        try:
            yield client
        finally:
            _leave(client.transport, dice)

    async def h2_head(self, dice: Dice) -> None:
        """The preface, the settings, or half of a header block."""
        block = h2_kit.frame(h2_kit.HEADERS, h2_kit.END_STREAM, 1, b"\x82\x84\x86")
        data = h2_kit.PREFACE + h2_kit.frame(h2_kit.SETTINGS) + block
        await self._sent(data[: dice.randrange(3, len(data))], dice)

    async def h2_body(self, dice: Dice) -> None:
        async with self._h2(dice) as client:
            for _ in range(3):
                number = client.request("/upload", method="POST", end=False)
                client.data(number, bytes(dice.randrange(1, 20_000)))

    async def h2_response(self, dice: Dice) -> None:
        async with self._h2(dice) as client:
            for _ in range(dice.randrange(1, 6)):
                client.request("/wait")
            if dice.random() < 0.5:
                await client.pinged()

    async def h2_stream(self, dice: Dice) -> None:
        async with self._h2(dice) as client:
            numbers = [client.request("/stream?5000") for _ in range(3)]
            await client.until(lambda: all(client.answers[number].body for number in numbers))

    async def h2_unread_stream(self, dice: Dice) -> None:
        """With its windows shut: one of the streams may have had all of the connection's."""
        async with self._h2(dice, reads=False) as client:
            client.request("/stream?50000")
            client.request("/stream?50000")
            await client.until(lambda: any(answer.body for answer in client.answers.values()))
            await asyncio.sleep(dice.random() * 0.05)

    async def h2_resets(self, dice: Dice) -> None:
        """Single streams vanish, and the connection behind them."""
        async with self._h2(dice) as client:
            for path in ("/wait", "/stream?5000", "/done") * 2:
                number = client.request(path)
                if dice.random() < 0.5:
                    await client.pinged()
                if not client.answers[number].over:
                    client.reset(number)

    async def h2_websocket(self, dice: Dice) -> None:
        async with self._h2(dice, reads=dice.random() < 0.5) as client:
            for path in ("/echo", "/flood"):
                head = [*client.head("CONNECT", path), ("sec-websocket-version", "13")]
                number = client.request_raw([*head[:1], (":protocol", "websocket"), *head[1:]], end=False)
                client.data(number, ws_client.frame(ws_client.BINARY, bytes(5000))[: dice.randrange(1, 6000)])
                if dice.random() < 0.5:
                    await client.until(lambda number=number: client.answers[number].status)


def _leave(transport: asyncio.BaseTransport, dice: Dice) -> None:
    if dice.random() < 0.5:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()  # type: ignore[attr-defined]


def held(status: dict[str, Any]) -> list[int]:
    """What the server has of its clients: connections, requests that wait, what each worker has."""
    (pool,) = status["pools"]
    workers = [worker["in_flight"] + worker["websockets"] for worker in pool["workers"]]
    return [status["connections"], pool["pending"], *workers]


def _settle(remote: Remote) -> dict[str, Any]:
    """The server's status, once it has nothing of any client."""
    seen: list[dict[str, Any]] = []
    try:
        until(lambda: seen.append(remote.ask("status")) or not any(held(seen[-1])))
    except TimeoutError:
        raise AssertionError(f"of clients that have gone there are {held(seen[-1])}") from None
    return seen[-1]


class Kept:
    """What there is in the server's processes, when nobody is connected."""

    def __init__(self, server: Command, path: str) -> None:
        with Remote(path) as remote:
            _settle(remote)
            server.get("/left")  # its worker's loop turns once more
            self.objects: Counter[str] = Counter(json.loads(server.get("/left")))
            pids = {int(server.get("/pid")), _settle(remote)["pid"]}
            self.rss = sum(map(proc_kit.rss, pids))
            self.descriptors = sum(len(proc_kit.descriptors(pid)) for pid in pids)
            self.threads = sum(map(proc_kit.threads, pids))

    def more_than(self, before: Kept) -> dict[str, int]:
        """What has become more."""
        found = {kind: more for kind, more in (self.objects - before.objects).items() if more > CACHED}
        for name in ("descriptors", "threads"):
            if (more := getattr(self, name) - getattr(before, name)) > 0:
                found[name] = more
        return found


@pytest.mark.parametrize(
    ("isolation", "count"),
    [
        *[(kind, 300) for kind in ("subinterpreter", "thread")],
        *[pytest.param(kind, 10_000, marks=[pytest.mark.soak, pytest.mark.timeout(600)]) for kind in KINDS],
    ],
)
def test_of_clients_that_vanish_nothing_is_left(isolation: str, count: int, figure: Callable[[str], None]) -> None:
    """Threads share the interpreter with their host: there its objects are counted too."""
    if isolation == "subinterpreter" and free_threaded():
        pytest.skip("the same as threads")
    with short_folder() as folder:
        path = str(folder / "control")
        options = ("--isolation", isolation, "--control-socket", path, "--max-concurrency", "100", "--timeout", "600")
        with Command("serving_app:asgi", *options) as server:
            clients = Vanishing(server.port)
            asyncio.run(clients.run(WARM, 0))
            before = Kept(server, path)
            begin = time.monotonic()
            asyncio.run(clients.run(count, 1))
            seconds = time.monotonic() - begin
            after = Kept(server, path)
            figure(f"{count} vanished in {seconds:.1f} s; {before.descriptors} -> {after.descriptors} descriptors, "
                   f"{before.objects.total()} -> {after.objects.total()} objects, "
                   f"RSS {before.rss / MB:.1f} -> {after.rss / MB:.1f} MB")  # fmt: skip
            assert after.more_than(before) == {}
            assert after.rss - before.rss < 48 * MB
            assert {server.get("/done") for _ in range(10)} == {"done"}
            assert set(clients.visits) == {sort.__name__ for sort in clients.sorts}
            assert [line for line in server.lines if " INFO " not in line] == []
