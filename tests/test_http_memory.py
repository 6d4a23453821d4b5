"""What the server holds for a client or an app that does not read: less than 32 MB, however much there is.

Each test goes through the same: the other side does not read, and the bytes stop; memory is looked at; then everything
goes through, and memory is looked at again. In the suite that is 48 MB, with `make soak` 1 GB. That the bytes have
stopped is seen at the socket: nothing has moved for `STILL` looks.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import select
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("httptools")
pytest.importorskip("h2")
pytest.importorskip("wsproto")

import ws_client
from conftest import Fifo
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event
from h2.settings import SettingCodes
from http_kit import Peer, get, process, request

MB = 1 << 20
LIMIT = 32 * MB
SIZES = [pytest.param(48 * MB, id="48MB"), pytest.param(1 << 30, id="1GB", marks=[pytest.mark.soak])]
PIECE = 65536
STILL = 8  # looks, LOOK seconds apart
LOOK = 0.1
RECEIVE = 65536  # bytes of a client's buffer
WIDEST = 2**31 - 1  # bytes of a window of HTTP/2

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(300),
]


def memory(pid: int, field: str = "VmHWM") -> int:
    """Bytes of the process and its workers; VmRSS now, VmHWM at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            own = int(line.split()[1]) * 1024
            break
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(memory(int(child), field) for child in children)


class Client:
    """A client of one protocol, with one request. `peer`: its connection."""

    def __init__(self, address: Any) -> None:
        self.peer = Peer(address, receive_buffer=RECEIVE)
        self.unsent = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.socket.close()

    def upload(self, path: str, size: int) -> None:
        """Begin a request whose body has that size."""
        raise NotImplementedError

    def put(self, left: int) -> int:
        """Make the next piece of the body, for `unsent`; how much that is. 0: the protocol lets us send no more."""
        raise NotImplementedError

    def told(self) -> int:
        """End the upload; how many bytes came, says the app."""
        raise NotImplementedError

    def download(self, path: str) -> None:
        """Begin a request for a body without end."""
        raise NotImplementedError

    def read(self, size: int) -> int:
        """Read as much; how much came."""
        raise NotImplementedError

    def wait(self) -> bool:
        """Until the protocol may let us send again; False if nothing is said of that for as long as a LOOK."""
        raise NotImplementedError

    def push(self, size: int) -> int:
        """Send at most `size` bytes of a body; how many were taken until nothing moved."""
        peer, sent, still = self.peer.socket, 0, 0
        while still < STILL and (sent < size or self.unsent):
            if not self.unsent:
                count = self.put(size - sent)
                sent += count
                still = 0 if count or self.wait() else still + 1
            elif select.select([], [peer], [], LOOK)[1]:
                self.unsent = self.unsent[peer.send(self.unsent, socket.MSG_DONTWAIT) :]
                still = 0
            else:
                still += 1
        return sent

    def starve(self) -> None:
        """Read nothing until the server sends no more."""
        before, still = -1, 0
        while still < STILL:
            select.select([], [], [], LOOK)
            waiting = array.array("i", [0])
            fcntl.ioctl(self.peer.socket, termios.FIONREAD, waiting)
            still = still + 1 if waiting[0] == before else 0
            before = waiting[0]


class H1(Client):
    """With a declared length."""

    def upload(self, path: str, size: int) -> None:
        self.peer.send(request("POST", path, f"Content-Length: {size}"))

    def put(self, left: int) -> int:
        size = min(PIECE, left)
        self.unsent = self.framed(bytes(size))
        return size

    def framed(self, piece: bytes) -> bytes:
        return piece

    def told(self) -> int:
        return size_in(self.peer.reply().body)

    def download(self, path: str) -> None:
        self.peer.send(get(path))
        self.peer.until(b"\r\n\r\n")

    def read(self, size: int) -> int:
        got = 0
        while got < size and (count := len(self.peer.socket.recv(1 << 18))):
            got += count
        return got


class Chunked(H1):
    """In chunks."""

    def upload(self, path: str, size: int) -> None:
        self.peer.send(request("POST", path, "Transfer-Encoding: chunked"))

    def framed(self, piece: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(piece), piece)

    def told(self) -> int:
        self.peer.send(b"0\r\n\r\n")
        return super().told()


class WebSocket(H1):
    """In messages."""

    def upload(self, path: str, size: int) -> None:
        self.download(path)

    def framed(self, piece: bytes) -> bytes:
        return b"\x82\xff" + len(piece).to_bytes(8) + bytes(4) + piece  # masked with zeros

    def told(self) -> int:
        self.peer.send(ws_client.frame(ws_client.TEXT, b"end"))
        return size_in(self.peer.until(b"]")[2:])

    def download(self, path: str) -> None:
        self.peer.send(ws_client.upgrade(path))
        self.peer.until(b"\r\n\r\n")


class H2(Client):
    """Its own windows are as wide as can be, so that only the socket is between it and a download."""

    def __init__(self, address: Any) -> None:
        super().__init__(address)
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = WIDEST
        self.h2.local_settings.acknowledge()
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(WIDEST - self.h2.inbound_flow_control_window)
        self.stream = self.h2.get_next_available_stream_id()

    def _request(self, method: str, path: str, end: bool) -> None:
        head = [(":method", method), (":scheme", "http"), (":authority", "example.test"), (":path", path)]
        self.h2.send_headers(self.stream, head, end_stream=end)
        self.peer.send(self.h2.data_to_send())

    def _events(self) -> list[Event]:
        data = self.peer.socket.recv(1 << 18)
        assert data, "the server has closed"
        events = self.h2.receive_data(data)
        self.unsent += self.h2.data_to_send()
        return events

    def upload(self, path: str, size: int) -> None:
        self._request("POST", path, end=False)

    def put(self, left: int) -> int:
        size = min(self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size, left)
        if size:
            self.h2.send_data(self.stream, bytes(size))
            self.unsent = self.h2.data_to_send()
        return size

    def wait(self) -> bool:
        if not select.select([self.peer.socket], [], [], LOOK)[0]:
            return False
        self._events()
        return True

    def told(self) -> int:
        self.h2.end_stream(self.stream)
        self.peer.send(self.unsent + self.h2.data_to_send())
        body = b""
        while b"]" not in body and not body.isdigit():
            body += b"".join(event.data for event in self._events() if isinstance(event, DataReceived))
        return size_in(body)

    def download(self, path: str) -> None:
        self._request("GET", path, end=True)

    def read(self, size: int) -> int:
        got = 0
        while got < size:
            got += sum(len(event.data) for event in self._events() if isinstance(event, DataReceived))
        return got


def size_in(answer: bytes) -> int:
    """Of a body, as the apps tell it."""
    told = json.loads(answer)
    return int(told[0] if isinstance(told, list) else told)


@contextlib.contextmanager
def measured(app: str, isolation: str) -> Iterator[tuple[Any, Callable[[], int]]]:
    """A server's address, and a function that tells by how much it has ever grown since it was idle."""
    with process(app=app, isolation=isolation, timeout=300, http_version=["h2", "http/1.1"]) as (child, address):
        with Peer(address) as peer:
            assert peer.ask(request("POST", "/echo", body=bytes(MB))).status == 200
        idle = memory(child.pid, "VmRSS")
        yield address, lambda: memory(child.pid, "VmHWM") - idle


KINDS = ["subinterpreter", pytest.param("process", marks=[pytest.mark.soak])]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("isolation", KINDS)
@pytest.mark.parametrize(
    ("client", "app", "path"),
    [
        (H1, "http_app:app", "/digest"),
        (H1, "http_wsgi:app", "/sizes"),
        (Chunked, "http_app:app", "/digest"),
        (Chunked, "http_wsgi:app", "/sizes"),
        (H2, "http_app:app", "/digest"),
        (H2, "http_wsgi:app", "/sizes"),
        (WebSocket, "ws_app:app", "/count"),
    ],
)  # fmt: skip
def test_an_upload_to_an_app_that_does_not_read(
    client: type[Client], app: str, path: str, isolation: str, size: int, fifo: Callable[[str], Fifo]
) -> None:
    gate = fifo("gate")
    with measured(app, isolation) as (address, grown), client(address) as sender:
        sender.upload(f"{path}?gate={gate}", size)
        sent = sender.push(size)
        assert sent < min(size, 24 * MB)  # the kernel has most of that
        assert grown() < LIMIT
        gate.release()
        while sent < size and (more := sender.push(size - sent)):
            sent += more
        assert sender.told() == sent == size
        assert grown() < LIMIT


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("isolation", KINDS)
@pytest.mark.parametrize(
    ("client", "app", "path"),
    [
        (H1, "http_app:app", "/endless"),
        (H1, "http_wsgi:app", "/endless"),
        (H2, "http_app:app", "/endless"),
        (H2, "http_wsgi:app", "/endless"),
        (WebSocket, "ws_app:app", "/flood"),
    ],
)  # fmt: skip
def test_a_download_by_a_client_that_does_not_read(
    client: type[Client], app: str, path: str, isolation: str, size: int
) -> None:
    with measured(app, isolation) as (address, grown), client(address) as reader:
        reader.download(path)
        reader.starve()
        assert grown() < LIMIT
        assert reader.read(size) >= size
        assert grown() < LIMIT


@pytest.mark.parametrize(
    ("client", "app", "path"),
    [
        (H2, "http_app:app", "/tiny?"),
        (H2, "http_wsgi:app", "/tiny?"),
        (H2, "http_app:app", "/hint-flood?"),
        (H2, "http_wsgi:app", "/hint-flood?"),
        (WebSocket, "ws_app:app", "/tiny?size=0&"),
        (WebSocket, "ws_app:app", "/tiny?size=0&text=1&"),
        (WebSocket, "ws_app:app", "/tiny?size=1&"),
    ],
)  # fmt: skip
def test_small_pieces_that_nobody_reads(client: type[Client], app: str, path: str, fifo: Callable[[str], Fifo]) -> None:
    """Bytes are not all that a piece weighs. (HTTP/1.1: see `test_http_flow`.)"""
    report, reports = fifo("report"), 3 if "hint" in path else 10  # a hint has 1 KB, the others little or nothing
    with measured(app, "subinterpreter") as (address, grown), client(address) as reader:
        reader.download(f"{path}report={report}")
        with contextlib.suppress(TimeoutError):
            for _ in range(reports):
                report.wait_sync(1.0)
        assert grown() < LIMIT
