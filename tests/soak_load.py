"""A mixed load on a server: clients of many sorts, some of them bad, each of which knows what it must get.

`Load(port, seed, ...).run(seconds)` keeps `CONNECTIONS` clients busy. Each one opens a connection, does what its dice
say, and checks what comes; then it does it again. The dice are seeded by `seed` and the client's number, so that a
client does the same in another run. What went wrong and was not that client's own doing is in `errors`. Every visit is
bounded.

The server is to serve `apps/soak_app.py`: see `MOUNTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from http_kit import chunked, get, parse_fields, request, script

try:
    import h2_kit
except ImportError:  # no library h2
    h2_kit = None  # type: ignore[assignment]
try:
    from websockets.asyncio.client import connect as connect_websocket
except ImportError:
    connect_websocket = None  # type: ignore[assignment, misc]

CONNECTIONS = 64
VISIT = 60.0  # seconds that one visit may take
ENOUGH = 20  # errors: then the load ends
KB = 1024
MOUNTS = [
    {"prefix": "/", "app": "soak_app:asgi", "interface": "asgi"},
    {"prefix": "/wsgi", "app": "soak_app:wsgi", "interface": "wsgi"},
    {"prefix": "/threads", "app": "soak_app:wsgi", "interface": "wsgi", "threads": 4},
]
WSGI = ("/wsgi", "/threads")
SIZES = (0, 1, 100, 5000, 20_000, 200_000)
type Dice = random.Random


@dataclass
class Asked:
    """A request and what must come."""

    data: bytes
    body: bytes | None  # None: whatever it is
    status: int = 200
    method: str = "GET"


class Connection:
    """A client's connection over HTTP/1.1."""

    def __init__(self, load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.load = load
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        version, status, *_ = first.split(b" ")
        assert version == b"HTTP/1.1", first
        return int(status), dict(parse_fields(lines))

    async def reply(self, method: str = "GET") -> tuple[int, bytes]:
        """Status and body of the next final response."""
        status, headers = await self.head()
        while status < 200:
            status, headers = await self.head()
        if method == "HEAD" or status in (204, 304):
            return status, b""
        if headers.get("transfer-encoding") == "chunked":
            return status, await self._chunks()
        if "content-length" in headers:
            return status, await self.reader.readexactly(int(headers["content-length"]))
        return status, await self.reader.read()

    async def _chunks(self) -> bytes:
        chunks = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            chunks.append(await self.reader.readexactly(size))
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return b"".join(chunks)

    async def got(self, asked: Asked) -> None:
        """Read the answer to a request, and check it."""
        status, body = await self.reply(asked.method)
        self.load.requests += 1
        assert status == asked.status, f"{status} {body[:200]!r} to {asked.data[:200]!r}"
        if asked.body is not None:
            assert body == asked.body, f"{len(body)} bytes, not {len(asked.body)}, to {asked.data[:200]!r}"

    async def ask(self, asked: Asked) -> None:
        self.send(asked.data)
        await self.writer.drain()
        await self.got(asked)

    def leave(self, dice: Dice) -> None:
        """Go in the middle of something, with FIN or with RST."""
        if dice.random() < 0.5:
            option = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        self.writer.transport.abort()


def mount(dice: Dice) -> str:
    return dice.choice(("", "", *WSGI))


def small(dice: Dice) -> Asked:
    """A request and answer as most are."""
    root, what = mount(dice), dice.randrange(6)
    if what == 0:
        return Asked(request("HEAD", f"{root}/hello"), b"", method="HEAD")
    if what == 1:
        return Asked(get(f"{root}/hello", f"X-Dice: {dice.randrange(10**9)}"), b"Hello, World!")
    if what == 2:
        body = dice.randbytes(dice.choice(SIZES))
        return Asked(request("POST", f"{root}/echo", body=body), body, method="POST")
    if what == 3:
        pieces = [dice.randbytes(dice.randrange(1, 9000)) for _ in range(dice.randrange(5))]
        return Asked(chunked(f"{root}/echo", *pieces), b"".join(pieces), method="POST")
    return Asked(get(f"{root}/hello"), b"Hello, World!")


def streamed(dice: Dice) -> Asked:
    """A download in pieces."""
    root, count, size = mount(dice), dice.randrange(1, 30), dice.choice((1, 1000, 16_384, 50_000))
    data = script(["start", 200], *[["big", size, True]] * count, ["body", "end"])
    return Asked(data.replace(b" /script", f" {root}/script".encode(), 1), b"b" * size * count + b"end")


class Load:
    """The clients of a server on `port` of the loopback. `file`: one that it may send, and its content."""

    def __init__(self, port: int, seed: int, file: str, content: bytes) -> None:
        self.port = port
        self.seed = seed
        self.requests = 0  # answered and checked; messages of a WebSocket count too
        self.visits: Counter[str] = Counter()
        self.errors: list[str] = []
        self._file = file
        self._content = content
        self._phase = 0
        self.sorts: dict[Callable[[Dice], Coroutine[Any, Any, None]], int] = {
            self.keep_alive: 8,
            self.pipelining: 6,
            self.download: 5,
            self.upload: 5,
            self.unread_upload: 2,
            self.expect: 2,
            self.slow_reader: 4,
            self.slow_writer: 3,
            self.file: 3,
            self.bad_request: 2,
            self.aborted_request: 4,
            self.aborted_upload: 4,
            self.aborted_download: 4,
        }
        if h2_kit is not None:
            self.sorts |= {self.h2: 6, self.aborted_h2: 2}
        if connect_websocket is not None:
            self.sorts |= {self.websocket: 6, self.aborted_websocket: 3}

    def __repr__(self) -> str:
        return f"<Load of seed {self.seed}: {self.requests} requests, {len(self.errors)} errors>"

    async def run(self, seconds: float, every_sort: bool = False) -> None:
        """Keep the clients busy for so long; what is under way then is finished. `every_sort`: not before there was a
        visit of each."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._wrong("a callback", context.get("exception") or context))
        self._phase += 1
        end = loop.time() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                group.create_task(self._client(number, end, every_sort))

    async def _client(self, number: int, end: float, every_sort: bool) -> None:
        dice = random.Random(f"{self.seed} {self._phase} {number}")
        sorts, weights = list(self.sorts), list(self.sorts.values())
        loop = asyncio.get_running_loop()
        visit = 0
        while (loop.time() < end or (every_sort and len(self.visits) < len(sorts))) and len(self.errors) < ENOUGH:
            sort = dice.choices(sorts, weights)[0]
            visit += 1
            try:
                async with asyncio.timeout(VISIT):
                    await sort(dice)
            except Exception as error:
                self._wrong(f"{sort.__name__}, visit {visit} of client {number}, phase {self._phase}", error)
            self.visits[sort.__name__] += 1

    def _wrong(self, where: str, what: object) -> None:
        self.errors.append(f"{where}: {what!r}")

    @contextlib.asynccontextmanager
    async def connection(self, receive_buffer: int | None = None) -> AsyncIterator[Connection]:
        peer = socket.socket()
        peer.setblocking(False)
        if receive_buffer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", self.port))
        except BaseException:
            peer.close()
            raise
        limit = 2 * (receive_buffer or 256 * KB)  # what the stream's buffer holds: else it would read ahead
        reader, writer = await asyncio.open_connection(sock=peer, limit=limit)
        try:
            yield Connection(self, reader, writer)
        finally:
            writer.transport.abort()  # a close would wait for a server that does not read
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    # good clients

    async def keep_alive(self, dice: Dice) -> None:
        async with self.connection() as connection:
            for _ in range(dice.randrange(1, 30)):
                await connection.ask(small(dice))
                if dice.random() < 0.1:
                    await asyncio.sleep(dice.random() * 0.05)

    async def pipelining(self, dice: Dice) -> None:
        """Requests ahead of the answers; these come in order."""
        async with self.connection() as connection:
            for _ in range(dice.randrange(1, 5)):
                asked = [small(dice) for _ in range(dice.randrange(2, 20))]
                connection.send(b"".join(one.data for one in asked))
                for one in asked:
                    await connection.got(one)
                await connection.writer.drain()

    async def download(self, dice: Dice) -> None:
        async with self.connection() as connection:
            for _ in range(dice.randrange(1, 5)):
                if dice.random() < 0.3:
                    size = dice.randrange(10**6)
                    await connection.ask(Asked(get(f"/big?{size}"), b"b" * size))
                else:
                    await connection.ask(streamed(dice))

    async def upload(self, dice: Dice) -> None:
        """Up to 2 MB, in pieces of all sizes; the app tells how much came, and of what."""
        size, piece = dice.randrange(2 * 10**6), dice.choice((500, 10_000, 70_000, 500_000))
        size = min(size, piece * 500)
        body = dice.randbytes(size)
        pieces = [body[at : at + piece] for at in range(0, size, piece)]
        root = mount(dice)
        coded = dice.random() < 0.5
        head = "Transfer-Encoding: chunked" if coded else f"Content-Length: {size}"
        async with self.connection() as connection:
            connection.send(request("POST", f"{root}/sizes" if root else "/digest", head))
            for one in pieces:
                connection.send(b"%x\r\n%s\r\n" % (len(one), one) if coded else one)
                await connection.writer.drain()
            if coded:
                connection.send(b"0\r\n\r\n")
            status, answer = await connection.reply()
            told = json.loads(answer)
            assert status == 200
            if root:
                assert told == size
            else:
                assert (told[0], told[2]) == (size, hashlib.sha256(body).hexdigest())
            await connection.ask(small(dice))
        self.requests += 1

    async def unread_upload(self, dice: Dice) -> None:
        """The app answers without reading: the answer comes, and the connection may end."""
        body = bytes(dice.randrange(2 * 10**6))
        async with self.connection() as connection:
            connection.send(request("POST", f"{mount(dice)}/hello", body=body))
            status, answer = await connection.reply()
            assert (status, answer) == (200, b"Hello, World!")
        self.requests += 1

    async def expect(self, dice: Dice) -> None:
        body = dice.randbytes(dice.randrange(1, 100_000))
        head = request("POST", f"{mount(dice)}/echo", "Expect: 100-continue", f"Content-Length: {len(body)}")
        async with self.connection() as connection:
            connection.send(head)
            status, _ = await connection.head()
            assert status == 100
            await connection.ask(Asked(body, body, method="POST"))
            await connection.ask(small(dice))

    async def file(self, dice: Dice) -> None:
        """What the kernel sends."""
        target = script(["start", 200], ["pathsend", self._file])
        if dice.random() < 0.5:
            target = get(f"{dice.choice(WSGI)}/real-file?path={quote(self._file)}")
        async with self.connection() as connection:
            await connection.ask(Asked(target, self._content))
            await connection.ask(small(dice))

    async def bad_request(self, dice: Dice) -> None:
        data = dice.choice((
            get("/hello", host=False),
            get("/hello", "Bad Name: x"),
            request("POST", "/echo", "Content-Length: 3", "Transfer-Encoding: chunked"),
            request("POST", "/echo", "Content-Length: 3", "Content-Length: 4") + b"abcd",
            b"\0\1\2\3\r\n\r\n",
        ))  # fmt: skip
        async with self.connection() as connection:
            connection.send(data)
            assert (await connection.reply())[0] == 400
            assert await connection.reader.read() == b""
        self.requests += 1

    # slow ones

    async def slow_reader(self, dice: Dice) -> None:
        """Small sips from a small buffer, with rests; all of it comes."""
        async with self.connection(receive_buffer=8 * KB) as connection:
            asked = streamed(dice)
            connection.send(asked.data)
            for _ in range(dice.randrange(20)):
                await asyncio.sleep(dice.random() * 0.05)
            await connection.got(asked)

    async def slow_writer(self, dice: Dice) -> None:
        asked = small(dice)
        places = sorted(dice.randrange(len(asked.data)) for _ in range(dice.randrange(1, 10)))
        async with self.connection() as connection:
            for start, end in zip([0, *places], [*places, len(asked.data)], strict=True):
                connection.send(asked.data[start:end])
                await asyncio.sleep(dice.random() * 0.05)
            await connection.got(asked)

    # those that leave

    async def aborted_request(self, dice: Dice) -> None:
        """Leave within a request, or with answers under way."""
        data = b"".join(small(dice).data for _ in range(dice.randrange(1, 5)))
        async with self.connection() as connection:
            connection.send(data[: dice.randrange(len(data) + 1)])
            if dice.random() < 0.5:
                await connection.writer.drain()
                await asyncio.sleep(dice.random() * 0.02)
            connection.leave(dice)

    async def aborted_upload(self, dice: Dice) -> None:
        coded = dice.random() < 0.5
        root = mount(dice)
        data = chunked(f"{root}/echo", *[bytes(9000)] * 200, end=b"") if coded else (
            request("POST", f"{root}/sizes" if root else "/digest", "Content-Length: 5000000") + bytes(2_000_000)
        )  # fmt: skip
        async with self.connection() as connection:
            connection.send(data[: dice.randrange(len(data))])
            await asyncio.sleep(dice.random() * 0.1)
            connection.leave(dice)

    async def aborted_download(self, dice: Dice) -> None:
        """Of a body without end."""
        async with self.connection(receive_buffer=dice.choice((None, 8 * KB))) as connection:
            connection.send(get(f"{mount(dice)}/endless"))
            assert (await connection.head())[0] == 200
            for _ in range(dice.randrange(20)):
                await connection.reader.read(50_000)
            connection.leave(dice)
        self.requests += 1

    # HTTP/2

    @contextlib.asynccontextmanager
    async def h2_connection(self) -> AsyncIterator[Any]:
        authority = f"127.0.0.1:{self.port}"
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: h2_kit.Client(authority), "127.0.0.1", self.port)
        try:
            yield client
        finally:
            client.close()
            with contextlib.suppress(AssertionError):  # lost: as we asked for
                await client.ended()

    async def h2(self, dice: Dice) -> None:
        """Some streams at once, uploads among them; one or two are reset."""
        async with self.h2_connection() as client:
            wanted: list[tuple[int, bytes]] = []
            for _ in range(dice.randrange(1, 20)):
                what = dice.randrange(4)
                if what == 0:
                    body = dice.randbytes(dice.choice(SIZES))
                    number = client.request(f"{mount(dice)}/echo", method="POST", end=False)
                    await client.upload(number, body)
                elif what == 1:
                    size = dice.randrange(200_000)
                    number, body = client.request(f"/big?{size}"), b"b" * size
                elif what == 2:
                    size, count = dice.randrange(1, 20_000), dice.randrange(1, 10)
                    steps = [["start", 200], *[["big", size, True]] * count, ["body", "end"]]
                    number = client.request(mount(dice) + h2_kit.script(*steps))
                    body = b"b" * size * count + b"end"
                else:
                    number, body = client.request(f"{mount(dice)}/hello"), b"Hello, World!"
                wanted.append((number, body))
            for _ in range(dice.randrange(3)):
                number = client.request(f"{mount(dice)}/endless")
                if dice.random() < 0.5:
                    await client.until(lambda number=number: client.answers[number].status, VISIT)
                client.reset(number)
            for number, body in wanted:
                await client.until(lambda number=number: client.answers[number].over, VISIT)
                answer = client.answers[number]
                assert (answer.status, answer.reset) == (200, None)
                assert answer.body == body, f"{len(answer.body)} bytes, not {len(body)}"
                self.requests += 1

    async def aborted_h2(self, dice: Dice) -> None:
        """Streams under way, half of them unread, when the connection goes."""
        async with self.h2_connection() as client:
            client.reads = dice.random() < 0.5
            for _ in range(dice.randrange(1, 10)):
                client.request(f"{mount(dice)}{dice.choice(('/endless', '/hello', '/big?300000'))}")
            await asyncio.sleep(dice.random() * 0.1)

    # WebSocket

    def _websocket(self, path: str, dice: Dice) -> Any:
        compression = dice.choice((None, "deflate"))
        return connect_websocket(f"ws://127.0.0.1:{self.port}{path}", compression=compression, proxy=None,
                                 max_size=None, ping_interval=None, close_timeout=VISIT)  # fmt: skip

    async def websocket(self, dice: Dice) -> None:
        """Echoes, some sent ahead; a proper end."""
        async with self._websocket("/echo", dice) as session:
            for _ in range(dice.randrange(1, 10)):
                sent: list[str | bytes] = []
                for _ in range(dice.randrange(1, 8)):
                    size = dice.choice((0, 1, 125, 126, 20_000, 70_000))
                    sent.append(dice.randbytes(size) if dice.random() < 0.5 else "\u00fc" * size)
                    await session.send(sent[-1])
                if dice.random() < 0.2:
                    await (await session.ping())
                for one in sent:
                    assert await session.recv() == one
                    self.requests += 1

    async def aborted_websocket(self, dice: Dice) -> None:
        """Leave with messages under way: none asks this client for a Close."""
        async with self._websocket(dice.choice(("/flood", "/echo")), dice) as session:
            try:
                for _ in range(dice.randrange(5)):
                    await session.send(bytes(dice.randrange(100_000)))
                    await session.recv()
            finally:
                session.transport.abort()
