"""What the tests of HTTP/2 share: a client on the library h2 that can also break its rules, in the test's own loop.

Everything that a client waits for is bounded by `DEADLINE`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

import anyio
from conftest import APPS, DEADLINE
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0, 1, 2, 3, 5
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 7, 8, 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Pairs = Sequence[tuple[str, str]]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame as it is on the wire (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@contextlib.asynccontextmanager
async def serving(
    isolation: str, app: str | None = "http_app:app", host_hooks: Any = None, **options: Any
) -> AsyncIterator[Any]:  # fmt: skip
    """A server on a free port; the app's journal starts empty."""
    from subpool.http.config import ServerConfig
    from subpool.http.server import Server

    if app is not None:
        options["app"] = app
    given = {"workers": 1, "close_timeout": 5.0, "bind": ["127.0.0.1:0"], "pythonpath": [APPS], **options}
    server = Server(ServerConfig(isolation=isolation, **given), hooks=host_hooks)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0.0)


@dataclass
class Answer:
    """What came on one stream."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)  # sizes of the DATA frames
    ended: bool = False
    reset: int | None = None

    def get(self, name: str) -> str | None:
        found = [value for other, value in self.headers if other == name]
        assert len(found) <= 1, self.headers
        return found[0] if found else None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Client(asyncio.Protocol):
    """One connection. `reads`: data is acknowledged as it comes; else `read` does it."""

    def __init__(self, authority: str, reads: bool = True, settings: dict[int, int] | None = None) -> None:
        self.authority = authority
        self.reads = reads
        config = H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False,
                                 normalize_outbound_headers=False)  # fmt: skip
        self.h2 = H2Connection(config)
        self.h2.local_settings.update({SettingCodes(code): value for code, value in (settings or {}).items()})
        self.h2.local_settings.acknowledge()
        self.h2.decoder.max_allowed_table_size = self.h2.local_settings.header_table_size
        self.answers: dict[int, Answer] = {}
        self.unread: dict[int, int] = {}
        self.goaway: tuple[int, int] | None = None  # code, last stream
        self.why = b""
        self.pongs = 0
        self.lost = False
        self.eof = False
        self.transport: Any = None
        self._data = bytearray()
        self._changed = asyncio.Event()

    # asyncio

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._changed.set()

    def eof_received(self) -> bool:
        self.eof = True
        self._changed.set()
        return False

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 9 and len(self._data) >= (size := 9 + int.from_bytes(self._data[:3])):
            for event in self.h2.receive_data(bytes(self._data[:size])):  # frame by frame: see GOAWAY
                self._take(event)
            del self._data[:size]
        self.flush()
        self._changed.set()

    def _take(self, event: Any) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway, self.why = (int(event.error_code), event.last_stream_id), event.additional_data or b""
            # the library takes that for the end of everything
            self.h2.state_machine.state = type(self.h2.state_machine.state).CLIENT_OPEN
            return
        self.pongs += isinstance(event, PingAckReceived)
        number = getattr(event, "stream_id", None)
        if not number:
            return
        answer = self.answers.setdefault(number, Answer())
        if isinstance(event, InformationalResponseReceived):
            headers = [(str(name), str(value)) for name, value in event.headers]
            answer.informational.append((int(dict(headers)[":status"]), headers[1:]))
        elif isinstance(event, ResponseReceived):
            answer.headers = [(str(name), str(value)) for name, value in event.headers]
            answer.status = int(answer.headers.pop(0)[1])
        elif isinstance(event, DataReceived):
            answer.body += event.data
            answer.frames.append(len(event.data))
            size = event.flow_controlled_length
            if self.reads:
                self.h2.acknowledge_received_data(size, number)
            else:
                self.unread[number] = self.unread.get(number, 0) + size
        elif isinstance(event, TrailersReceived):
            answer.trailers = [(str(name), str(value)) for name, value in event.headers]
        elif isinstance(event, StreamEnded):
            answer.ended = True
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code)

    # sending

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.lost:
            self.transport.write(data)

    def raw(self, data: bytes) -> None:
        """Bytes of the test's own."""
        self.transport.write(data)

    def head(self, method: str, path: str, headers: Pairs = ()) -> list[tuple[str, str]]:
        return [(":method", method), (":scheme", "http"), (":authority", self.authority), (":path", path), *headers]

    def request(
        self, path: str, headers: Pairs = (), *, method: str = "GET", body: bytes | None = None, end: bool = True
    ) -> int:  # fmt: skip
        """Send a request; its stream. A `body` must fit into the window."""
        return self.request_raw(self.head(method, path, headers), body=body, end=end)

    def request_raw(self, head: Pairs, *, body: bytes | None = None, end: bool = True) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, list(head), end_stream=end and body is None)
        self.answers[number] = Answer()
        if body is not None:
            self.data(number, body, end=end)
        self.flush()
        return number

    def data(self, number: int, data: bytes, *, end: bool = False) -> None:
        size = self.h2.max_outbound_frame_size
        pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        for at, piece in enumerate(pieces):
            self.h2.send_data(number, piece, end_stream=end and at == len(pieces) - 1)
        self.flush()

    async def upload(self, number: int, data: bytes) -> None:
        """Send everything, as the server lets us, and the end."""
        at = 0
        while at < len(data):
            await self.until(lambda: self.h2.local_flow_control_window(number) > 0)
            size = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(data) - at)
            self.h2.send_data(number, data[at : at + size])
            self.flush()
            at += size
        self.h2.end_stream(number)
        self.flush()

    def read(self, number: int, size: int | None = None) -> None:
        """Let the server send more on the stream."""
        size = self.unread.get(number, 0) if size is None else size
        self.unread[number] = self.unread.get(number, 0) - size
        self.h2.acknowledge_received_data(size, number)
        self.flush()

    def reset(self, number: int, code: int = CANCEL) -> None:
        self.h2.reset_stream(number, code)
        self.flush()

    # waiting

    async def until(self, holds: Callable[[], object], seconds: float = DEADLINE) -> None:
        """Wait until something that the server sends makes `holds()` true."""
        with anyio.fail_after(seconds):
            while not holds():
                assert not self.lost, f"the connection is lost; goaway {self.goaway} {self.why!r}"
                self._changed.clear()
                await self._changed.wait()

    async def answer(self, number: int) -> Answer:
        """The stream's answer when it is over."""
        await self.until(lambda: self.answers[number].over)
        return self.answers[number]

    async def get(self, path: str, headers: Pairs = (), **options: Any) -> Answer:
        """Ask and await the answer."""
        return await self.answer(self.request(path, headers, **options))

    async def pinged(self) -> None:
        """When the server has read everything that was sent before."""
        pongs = self.pongs
        self.h2.ping(b"are you?")
        self.flush()
        await self.until(lambda: self.pongs > pongs)

    async def ended(self, seconds: float = DEADLINE) -> None:
        """When the server has closed."""
        with anyio.fail_after(seconds):
            while not (self.lost or self.eof):
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        self.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def port(server: Any) -> int:
    return int(server.addresses[0].rpartition(":")[2])


async def connect(server: Any, **options: Any) -> Client:
    """A connection in clear, by prior knowledge; it is there when the server's settings are."""
    authority = f"127.0.0.1:{port(server)}"
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(authority, **options), "127.0.0.1", port(server))
    await client.until(lambda: client.h2.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL))
    return client


def script(*steps: Sequence[Any], report: object = "") -> str:
    """The path at which `http_app` and `http_wsgi` do the steps."""
    return f"/script?report={quote(str(report))}&steps={quote(json.dumps(steps))}"


def calls(server: Any) -> int:
    """Requests and WebSockets that the workers hold."""
    return sum(worker.in_flight + worker.websockets for pool in server.pools for worker in pool.stats().workers)


def connection(server: Any) -> Any:
    """The server's side of the one connection that there is."""
    (found,) = server.front.connections
    return found
