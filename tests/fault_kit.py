"""Clients that go on asking while something fails, and that remember how each of their requests went.

`Clients(port, path=...)` keeps its connections alive and asks again and again, on a thread and a loop of its own. It
judges nothing: a request that failed is an `Outcome` as any other, and a client whose connection ended makes another.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from guard_kit import DEADLINE, until

CALM = 0.01  # seconds until a client that could not connect tries again


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request went. `status` 0: there was no answer, and `error` says why. Times in seconds."""

    number: int
    at: float  # of `time.monotonic`
    took: float
    status: int
    body: bytes
    error: str
    client: int
    reused: bool  # the connection had served a request before
    retry_after: str  # what the answer's header of that name said


class Clients:
    """`clients` connections to `port` of the loopback, each of which asks for `path` every `every` seconds, or as soon
    as it was answered. A `path` that is a function is given the request's number, 0 for the first."""

    def __init__(self, port: int, path: str | Callable[[int], str] = "/", *, clients: int = 4, every: float = 0.0,
                 limit: float = DEADLINE) -> None:  # fmt: skip
        self.outcomes: list[Outcome] = []
        self._port = port
        self._path = path if callable(path) else lambda number: path
        self._every = every
        self._limit = limit
        self._asked = 0
        self._over = threading.Event()
        self._clients = clients
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __repr__(self) -> str:
        return f"<Clients: {dict(Counter(one.status for one in self.outcomes))}>"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None,
                 ) -> None:  # fmt: skip
        """What is under way is finished."""
        self._over.set()
        self._thread.join(self._limit + DEADLINE)
        if error is not None:
            error.add_note(f"{self!r}, that failed: {self.failures[:20]}")

    @property
    def failures(self) -> list[Outcome]:
        """What was not answered with 200."""
        return [one for one in self.outcomes if one.status != 200]

    def more(self, count: int = 20) -> None:
        """Wait for that many good answers from now on."""
        there = len(self.outcomes)
        until(lambda: sum(one.status == 200 for one in self.outcomes[there:]) >= count)

    def go_on(self, seconds: float) -> list[Outcome]:
        """Those of so many seconds from now on: for what is measured over a time."""
        there = len(self.outcomes)
        time.sleep(seconds)
        return self.outcomes[there:]

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for client in range(self._clients):
                group.create_task(self._client(client))

    async def _client(self, client: int) -> None:
        loop = asyncio.get_running_loop()
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        due = loop.time() + self._every * client / self._clients  # not all of them at once
        while not self._over.is_set():
            if self._every:
                await asyncio.sleep(due - loop.time())
                due = max(due + self._every, loop.time())
            number, self._asked = self._asked, self._asked + 1
            reused = connection is not None
            status, head, body, error, keep = 0, b"", b"", "", False
            begin = time.monotonic()
            try:
                async with asyncio.timeout(self._limit):
                    if connection is None:
                        connection = await asyncio.open_connection("127.0.0.1", self._port)
                    status, head, body = await _ask(*connection, self._path(number))
                    keep = b"\r\nconnection: close" not in head
            except (OSError, EOFError, TimeoutError) as failed:
                error = repr(failed)
            took = time.monotonic() - begin
            retry = _value(head, b"retry-after").decode()
            self.outcomes.append(Outcome(number, begin, took, status, body, error, client, reused, retry))
            if connection is None:
                await asyncio.sleep(CALM)
            elif not keep:
                connection[1].transport.abort()
                connection = None
        if connection is not None:
            connection[1].transport.abort()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> tuple[int, bytes, bytes]:
    """Status, head (in lower case) and body of an answer of known length."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(int(_value(head, b"content-length")))
    return int(head.split(b" ", 2)[1]), head, body


def _value(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


def quantile(outcomes: Iterable[Outcome], share: float, status: int = 200) -> float:
    """The time in seconds within which that share of the answers with `status` came."""
    times = sorted(one.took for one in outcomes if one.status == status)
    return times[min(len(times) - 1, int(len(times) * share))]
