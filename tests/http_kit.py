"""What the tests of the HTTP server share: a server beside the test, raw sockets, and a strict reader of responses.

The server runs in a thread of its own on a loop of its own, so tests are plain functions over blocking sockets and
Hypothesis can drive them. What its loop could not handle, and what `subpool` logged, is kept in `Site`.

`Peer` sends bytes in exactly the pieces asked for. Over a unix socket it sees when the server has taken a piece
(SIOCOUTQ is 0 then), so "byte by byte" means that the server's parser is called once for each byte.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self
from urllib.parse import quote

from conftest import APPS, DEADLINE

SIOCOUTQ = 0x5411  # ioctl_list(2)
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([\t \x21-\x7e\x80-\xff]*)")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\x00\r\n]*?)[ \t]*")
LENGTH = re.compile(rb"HTTP/1\.1 2(?:[^\r]+\r\n)+?content-length: *(\d+)\r\n(?:[^\r]+\r\n)*\r\n", re.IGNORECASE)
CHUNK = re.compile(rb"([0-9a-fA-F]+)\r\n")

# Interface, kind of worker and loop of the servers that a behavioural test runs against.
SITES = [
    ("asgi", "subinterpreter", "uvloop"),
    ("wsgi", "subinterpreter", "asyncio"),
    ("asgi", "process", "asyncio"),
    ("wsgi", "thread", "uvloop"),
]
NAMES = {"asgi": "http_app:app", "wsgi": "http_wsgi:app"}


@dataclass
class Reply:
    """One response as it was on the wire. `framing` is length, chunked, close or none; `whole` whether its end came."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    framing: str = "none"
    whole: bool = True
    chunks: list[bytes] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for other, value in self.headers if other == name]

    def get(self, name: str) -> str | None:
        """The value of a header that must not be there twice."""
        found = self.all(name)
        assert len(found) <= 1, f"{name} is there {len(found)} times: {self.headers}"
        return found[0] if found else None

    @property
    def closes(self) -> bool:
        return "close" in (self.get("connection") or "").lower()

    def gist(self) -> tuple[Any, ...]:
        """What must not depend on how the request was cut."""
        kept = [(name, value) for name, value in self.headers if name not in ("date", "x-request-id")]
        return self.status, self.reason, kept, self.body, self.whole, self.trailers


class Peer:
    """A client's raw connection. Everything is bounded by `DEADLINE`."""

    def __init__(self, address: Any, source: str | None = None, receive_buffer: int | None = None) -> None:
        self.unix = isinstance(address, str)
        family = socket.AF_UNIX if self.unix else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            self.socket.bind((source, 0))
        try:
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        if not self.unix:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = bytearray()  # received and not parsed
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def send(self, data: bytes) -> None:
        """Send everything; a server that closed meanwhile is no error here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def send_pieces(self, pieces: Sequence[bytes]) -> None:
        """Send each piece when the server has taken the one before; stop when the server closed."""
        for piece in pieces:
            if not piece:
                continue
            try:
                self.socket.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                return
            self.settle()

    def settle(self, seconds: float = 0.1) -> bool:
        """Wait until the server has read all that was sent, at most `seconds`: it may have stopped reading."""
        left = array.array("i", [0])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            fcntl.ioctl(self.socket, SIOCOUTQ, left)
            if not left[0]:
                return True
            os.sched_yield()  # the server is a thread of this process
        return False

    def fill(self) -> bool:
        """Receive something; False at the end of the stream."""
        try:
            got = self.socket.recv(1 << 18)
        except ConnectionResetError:
            got = b""
        self.data += got
        self.ended = self.ended or not got
        return bool(got)

    def rest(self, seconds: float = DEADLINE) -> bytes:
        """All that comes until the server closes; raises TimeoutError."""
        end = time.monotonic() + seconds
        while not self.ended:
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            try:
                self.fill()
            finally:
                self.socket.settimeout(DEADLINE)
        data = bytes(self.data)
        self.data.clear()
        return data

    def closed(self, seconds: float = DEADLINE) -> bool:
        """Whether the server closes now, with nothing more to say."""
        return self.rest(seconds) == b""

    def quiet(self, seconds: float = 0.05) -> bool:
        """Whether nothing, not even the end, comes for so long. Events end it early."""
        if self.data or self.ended:
            return False
        self.socket.settimeout(seconds)
        try:
            return not self.fill() and False
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(DEADLINE)

    def until(self, mark: bytes) -> bytes:
        """Receive until `mark` is there; answers everything up to it."""
        while mark not in self.data:
            assert self.fill(), f"the connection ended with {bytes(self.data)!r}, before {mark!r}"
        end = self.data.index(mark) + len(mark)
        got = bytes(self.data[:end])
        del self.data[:end]
        return got

    def reply(self, method: str = "GET") -> Reply:
        """The next response; an informational one counts. A large body of known length is parsed once."""
        while True:
            parsed = parse(bytes(self.data), method, self.ended)
            if parsed is not None:
                reply, used = parsed
                del self.data[:used]
                return reply
            assert not self.ended, f"the connection ended within a head: {bytes(self.data)!r}"
            self.fill()
            more = LENGTH.match(self.data)
            while more and method != "HEAD" and len(self.data) < more.end() + int(more[1]) and self.fill():
                pass

    def ask(self, data: bytes, method: str = "GET") -> Reply:
        self.send(data)
        return self.reply(method)


def parse_fields(lines: list[bytes]) -> list[tuple[str, str]]:
    fields = []
    for line in lines:
        match = FIELD.fullmatch(line)
        assert match, f"bad header line {line!r}"
        fields.append((match[1].decode().lower(), match[2].decode("latin-1")))
    return fields


def parse(data: bytes, method: str, ended: bool) -> tuple[Reply, int] | None:
    """The first response in `data` and its length (RFC 9112), None if it is not whole yet; strict."""
    head, found, _ = data.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.split(b"\r\n")
    match = STATUS_LINE.fullmatch(first)
    assert match, f"bad status line {first!r}"
    assert b"\r" not in b"".join([first, *lines])
    assert b"\n" not in b"".join([first, *lines])
    reply = Reply(int(match[1]), match[2].decode("latin-1"), parse_fields(lines))
    at = len(head) + 4
    length, coding = reply.get("content-length"), reply.get("transfer-encoding")
    assert length is None or coding is None, f"both framings: {reply.headers}"
    if reply.status < 200 or reply.status == 204:
        assert length is None, f"RFC 9110, 8.6: no Content-Length in {reply.status}"
        assert coding is None, f"RFC 9112, 6.1: no Transfer-Encoding in {reply.status}"
        return reply, at
    if method == "HEAD" or reply.status == 304:
        return reply, at
    if coding is not None:
        assert coding == "chunked", coding
        return parse_chunks(reply, data, at, ended)
    if length is not None:
        assert length.isdecimal()
        reply.framing, reply.body = "length", data[at : at + int(length)]
        reply.whole = len(reply.body) == int(length)
        return (reply, at + len(reply.body)) if reply.whole or ended else None
    reply.framing, reply.body = "close", data[at:]
    return (reply, len(data)) if ended else None


def parse_chunks(reply: Reply, data: bytes, at: int, ended: bool) -> tuple[Reply, int] | None:
    reply.framing = "chunked"
    while match := CHUNK.match(data, at):
        size = int(match[1], 16)
        if not size:
            if data[match.end() :].startswith(b"\r\n"):
                return reply, match.end() + 2
            trailer, found, _ = data[match.end() :].partition(b"\r\n\r\n")
            if found:
                reply.trailers = parse_fields(trailer.split(b"\r\n"))
                return reply, match.end() + len(trailer) + 4
            break
        chunk = data[match.end() : match.end() + size]
        if len(chunk) < size:
            reply.body += chunk
            break
        tail = data[match.end() + size : match.end() + size + 2]
        assert b"\r\n".startswith(tail), f"a chunk ends with {tail!r}"
        reply.body += chunk
        reply.chunks.append(chunk)
        at = match.end() + size + 2
        if len(tail) < 2:
            break
    else:
        assert re.fullmatch(rb"[0-9a-fA-F]*\r?", data[at : at + 18]), f"bad chunk size {data[at : at + 18]!r}"
    reply.whole = False
    return (reply, len(data)) if ended else None


def replies(data: bytes, *methods: str) -> list[Reply]:
    """All responses of a connection that has ended; `methods` of the requests where one is not GET."""
    found: list[Reply] = []
    final = 0
    while data:
        method = methods[final] if final < len(methods) else "GET"
        parsed = parse(data, method, True)
        assert parsed, f"the connection ended within a head: {data!r}"
        found.append(parsed[0])
        final += parsed[0].status >= 200
        data = data[parsed[1] :]
    return found


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "uvloop":
        try:
            import uvloop
        except ImportError:
            return asyncio.new_event_loop()
        return uvloop.new_event_loop()  # type: ignore[no-any-return]
    return asyncio.new_event_loop()


class Site(logging.Handler):
    """A running server. `tcp` and `unix` are addresses for `Peer`."""

    def __init__(self, interface: str = "asgi", isolation: str = "subinterpreter", loop: str = "asyncio",
                 unix: str | None = None, host_hooks: Any = None, **options: Any) -> None:  # fmt: skip
        super().__init__()
        from subpool.http.config import MountConfig, ServerConfig
        from subpool.http.server import Server

        self.interface = interface
        self.isolation = isolation
        if "mounts" in options:
            options["mounts"] = [MountConfig(**one) for one in options["mounts"]]
        elif "app" not in options:
            options["app"] = NAMES[interface]
        binds = options.pop("bind", ["127.0.0.1:0"])
        given = {"workers": 1, "isolation": isolation, "pythonpath": [APPS], "http_version": ["http/1.1"],
                 "close_timeout": 5.0, "bind": [*binds, *([f"unix:{unix}"] if unix else [])], **options}  # fmt: skip
        self.config = ServerConfig(**given)
        self.server = Server(self.config, hooks=host_hooks)
        self.unix = unix or ""
        self.records: list[logging.LogRecord] = []
        self.unhandled: list[dict[str, Any]] = []
        self._loop = new_loop(loop)
        self._loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        self._thread = threading.Thread(target=self._run, name="server")
        self._thread.start()
        try:
            self.call(self.server.start())
        except BaseException:
            self._end()
            raise
        logging.getLogger("subpool").addHandler(self)
        self.addresses = list(self.server.addresses)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def call(self, coroutine: Any, seconds: float = DEADLINE) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(25.0)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def stop(self, drain: float = 2.0) -> None:
        try:
            self.call(self.server.stop(drain))
        finally:
            logging.getLogger("subpool").removeHandler(self)
            self._end()
        assert not self.unhandled, self.unhandled

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def logged(self, text: str, seconds: float = 5.0) -> bool:
        """Whether `text` is in the log, or comes into it: a worker's records may come behind its answer."""
        end = time.monotonic() + seconds
        while not any(text in f"{record.getMessage()} {record.exc_text or ''}" for record in list(self.records)):
            if time.monotonic() > end:
                return False
            os.sched_yield()
        return True

    def port(self, number: int = 0) -> int:
        return int(self.addresses[number].rpartition(":")[2])

    @property
    def tcp(self) -> tuple[str, int]:
        return "127.0.0.1", self.port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port()}"

    def peer(self, unix: bool = False, **options: Any) -> Peer:
        return Peer(self.unix if unix else self.tcp, **options)

    def talk(self, data: bytes | Sequence[bytes], unix: bool = False) -> bytes:
        """Everything that the server says to `data` (whole, or cut) until it closes."""
        with self.peer(unix or not isinstance(data, bytes)) as peer:
            if isinstance(data, bytes):
                peer.send(data)
            else:
                peer.send_pieces(data)
            return peer.rest()

    def ask(self, data: bytes, method: str = "GET") -> Reply:
        """The response to one request, on a connection of its own."""
        with self.peer() as peer:
            return peer.ask(data, method)

    def journal(self) -> list[str]:
        """What the app was called for since the last time, as "METHOD /path"."""
        return list(json.loads(self.ask(get("/journal")).body))

    def scope(self, data: bytes, **options: Any) -> dict[str, Any]:
        """What the app saw of a request to /scope."""
        with self.peer(**options) as peer:
            return seen(peer.ask(data))


@contextlib.contextmanager
def serving(interface: str = "asgi", isolation: str = "subinterpreter", loop: str = "asyncio", **options: Any,
            ) -> Iterator[Site]:  # fmt: skip
    site = Site(interface, isolation, loop, **options)
    try:
        yield site
    finally:
        site.stop()


SERVER = """
import asyncio, json, os, resource, sys
from subpool.http.config import ServerConfig
from subpool.http.server import Server

limit, config = int(sys.argv[1]), json.loads(sys.argv[2])

async def main():
    server = Server(ServerConfig(**config))
    await server.start()
    if limit:
        held = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (held + limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print(server.addresses[0], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(1.0)

asyncio.run(main())
"""


@contextlib.contextmanager
def process(limit: int = 0, **config: Any) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """A server in a process of its own, and its address."""
    given = {"app": "http_app:app", "bind": ["127.0.0.1:0"], "workers": 1, "pythonpath": [APPS], **config}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen([sys.executable, "-c", SERVER, str(limit), json.dumps(given)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):  # fmt: skip
        try:
            assert child.stdout is not None
            address = child.stdout.readline().strip()
            assert address, errors.seek(0) or errors.read()
            yield child, ("127.0.0.1", int(address.rpartition(":")[2]))
            child.communicate(timeout=20)
        except BaseException:
            child.send_signal(signal.SIGKILL)
            raise
        assert child.returncode == 0
        errors.seek(0)
        said = errors.read()
        assert said.count("\n") < 100, said[:2000]  # what is wrong is said, but not again and again


def site_name(param: tuple[str, str, str]) -> str:
    return f"{param[0]}-{param[1]}"


def seen(reply: Reply) -> dict[str, Any]:
    """A scope or environ that the app showed."""
    from ast import literal_eval

    assert reply.status == 200, (reply.status, reply.body)
    return dict(literal_eval(reply.body.decode()))


def request(method: str, target: str | bytes, *headers: str | bytes, body: bytes | None = None, version: str = "1.1",
            host: bool = True) -> bytes:  # fmt: skip
    """A request; with `body` a Content-Length."""
    lines = [b"%s %s HTTP/%s" % (method.encode(), _bytes(target), version.encode())]
    lines += [b"Host: example.test"] if host else []
    lines += [_bytes(one) for one in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


def get(target: str | bytes, *headers: str | bytes, **options: Any) -> bytes:
    return request("GET", target, *headers, **options)


def last(target: str | bytes = "/hello", *headers: str | bytes, method: str = "GET", **options: Any) -> bytes:
    """A request with Connection: close."""
    return request(method, target, *headers, "Connection: close", **options)


def chunked(target: str | bytes, *chunks: bytes, headers: Sequence[str | bytes] = (), end: bytes = b"0\r\n\r\n",
            ) -> bytes:  # fmt: skip
    """A POST whose body is sent in `chunks`."""
    head = request("POST", target, "Transfer-Encoding: chunked", *headers)
    return head + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in chunks) + end


def script(*steps: Sequence[Any], method: str = "GET", headers: Sequence[str | bytes] = (), report: object = "",
           closed: object = "", **options: Any) -> bytes:  # fmt: skip
    """A request for /script: the app does the steps; a step's error and close() of a WSGI app go to pipes."""
    target = f"/script?report={quote(str(report))}&closed={quote(str(closed))}&steps={quote(json.dumps(steps))}"
    return request(method, target, *headers, **options)


def by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in pieces, cut at `places` (taken modulo its length)."""
    marks = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[one:two] for one, two in pairwise(marks)]


def _bytes(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text
