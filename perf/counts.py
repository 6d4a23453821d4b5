"""What a request costs without a clock: frames, wake-ups, copied bytes, Python functions, reads and writes of the
system.

Such counts do not depend on the machine, so that a test can hold them (`tests/test_perf_counts.py`). They are taken
by patches of lanes and wake-ups, by `sys.monitoring` (functions of subpool that begin, and no others) and from
/proc/self/io, on the host and in its worker, per request: one at a time, and 64 at once.

Allocations and instructions are not counted: CPython has no counter of the former, and the latter differ from build
to build.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any, Final

from perf import MIB, ROOT, environ, scope
from perf.ws_load import ECHO, MESSAGE

AT_ONCE: Final = 64
PACKAGES: Final = tuple(str(Path(ROOT, name)) + "/" for name in ("subpool", "runners"))


class Counter:
    """Counts in this interpreter between `start` and `stop`."""

    def __init__(self) -> None:
        self.found = dict.fromkeys(("frames", "items", "wakeups", "copied", "functions"), 0)
        self._undo: list[tuple[Any, str, Any]] = []
        self._tool = 0  # of sys.monitoring

    def _patch(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        made = getattr(owner, name)
        self._undo.append((owner, name, made))
        setattr(owner, name, make(made))

    def start(self) -> None:
        from subpool.channels import queue_lane, socket_lane, thread_lane
        from subpool.channels.wakeup import Wakeup

        found = self.found

        def encoding(made: Any) -> Any:
            def encode(frames: list[Any]) -> bytes:
                data: bytes = made(frames)
                found["items"] += 1
                found["frames"] += len(frames)
                found["copied"] += len(data)
                return data

            return encode

        def waking(made: Any) -> Any:
            def wake(self: Any, count: int = 1) -> None:
                found["wakeups"] += 1
                made(self, count)

            return wake

        for lane in (queue_lane, socket_lane, thread_lane):
            self._patch(lane, "encode", encoding)
        self._patch(Wakeup, "wake", waking)
        monitoring = sys.monitoring
        self._tool = next(number for number in range(6) if monitoring.get_tool(number) is None)
        monitoring.use_tool_id(self._tool, "perf.counts")
        monitoring.register_callback(self._tool, monitoring.events.PY_START, self._began)
        monitoring.set_events(self._tool, monitoring.events.PY_START)

    def _began(self, code: CodeType, offset: int) -> object:
        if not code.co_filename.startswith(PACKAGES):
            return sys.monitoring.DISABLE
        self.found["functions"] += 1
        return None

    def stop(self) -> dict[str, int]:
        monitoring = sys.monitoring
        monitoring.set_events(self._tool, 0)
        monitoring.register_callback(self._tool, monitoring.events.PY_START, None)
        monitoring.free_tool_id(self._tool)
        monitoring.restart_events()
        for owner, name, made in reversed(self._undo):
            setattr(owner, name, made)
        self._undo.clear()
        return self.found


_counter: Counter | None = None


def begin() -> None:
    """In a worker, by `pool.call`."""
    global _counter
    _counter = Counter()
    _counter.start()


def end() -> dict[str, int]:
    """In a worker, by `pool.call`: what was counted there since `begin`."""
    global _counter
    assert _counter is not None
    counter, _counter = _counter, None
    return counter.stop()


def system_calls() -> int:
    """Reads and writes of this process by the system's count (eventfds, pipes, files; not sockets). 0 if not known."""
    try:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    except OSError:
        return 0
    return int(fields["syscr"]) + int(fields["syscw"])


@contextmanager
def counting() -> Iterator[dict[str, int]]:
    """Counts of this interpreter; those of the system are there behind the block."""
    counter = Counter()
    before = system_calls()
    counter.start()
    try:
        yield counter.found
    finally:
        counter.stop()
        counter.found["system"] = system_calls() - before


async def of_calls(pool: Any, call: Callable[[], Awaitable[Any]], number: int, at_once: int = 1) -> dict[str, float]:
    """Counts of one call, host and worker together. The pool has one worker, which can import `perf.counts`.

    What asks the worker is counted with it, so `number` should be large.
    """
    shared = pool.isolation == "thread"  # one interpreter: what is counted here is counted there
    for _ in range(2):
        await asyncio.gather(*(call() for _ in range(at_once)))
    if not shared:
        await pool.call("perf.counts:begin")
    with counting() as here:
        for _ in range(number // at_once):
            if at_once == 1:
                await call()
            else:
                await asyncio.gather(*(call() for _ in range(at_once)))
    there = {} if shared else await pool.call("perf.counts:end")
    return {name: (value + there.get(name, 0)) / number for name, value in here.items()}


class Browser(threading.Thread):
    """A client of a server in this process: some requests on one connection, one after another. With `echo` they are
    messages on a WebSocket."""

    def __init__(self, port: int, number: int, head: bytes, echo: bool = False) -> None:
        super().__init__()
        self._port, self._number = port, number
        self._head, self._answer = (MESSAGE, ECHO) if echo else (head, b"HTTP/1.1 200")
        self._upgrade = UPGRADE if echo else b""
        self.failed: BaseException | None = None

    def run(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 10) as sock:
                if self._upgrade:
                    sock.sendall(self._upgrade)
                    sock.recv(65536)
                for _ in range(self._number):
                    sock.sendall(self._head)
                    if not sock.recv(65536).startswith(self._answer):
                        raise RuntimeError("not the answer that was expected")
        except BaseException as error:
            self.failed = error


UPGRADE: Final = (
    b"GET /echo HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)
SSE_HEAD: Final = b"GET /sse?20 HTTP/1.1\r\nhost: localhost\r\nuser-agent: perf\r\naccept: */*\r\n\r\n"
HEAD: Final = b"GET /hello HTTP/1.1\r\nhost: localhost\r\nuser-agent: perf\r\naccept: */*\r\ncookie: theme=dark\r\n\r\n"


async def of_requests(server: Any, number: int, head: bytes = HEAD, *, echo: bool = False) -> dict[str, float]:
    """Counts of one request through a `Server` in this process, on one connection, host and worker together. `echo`: of
    one message on a WebSocket and its echo."""
    pool = server.pools[0]
    port = int(server.addresses[0].rpartition(":")[2])

    async def browse(number: int) -> None:
        browser = Browser(port, number, head, echo)
        browser.start()
        while browser.is_alive():  # noqa: ASYNC110  a thread of its own, which asyncio must not be asked to wake
            await asyncio.sleep(0.01)
        if browser.failed is not None:
            raise browser.failed

    await browse(20)
    shared = pool.isolation == "thread"
    if not shared:
        await pool.call("perf.counts:begin")
    with counting() as here:
        await browse(number)
    there = {} if shared else await pool.call("perf.counts:end")
    return {name: (value + there.get(name, 0)) / number for name, value in here.items()}


async def run(session: Any) -> None:
    from perf.calls import pool_of

    request, env = scope(), environ()
    large = scope("/big", b"%d" % MIB)

    def note(name: str, title: str, found: dict[str, float]) -> None:
        case = session.case(name, title)
        for metric, value in found.items():
            case.add(session.isolation, metric, 0, value)

    async with pool_of(session, "app") as asgi, pool_of(session, "wsgi") as wsgi:
        one = await of_calls(asgi, lambda: asgi.run_asgi(request), 512)
        note("run_asgi", "Hello, one at a time.", one)
        many = await of_calls(asgi, lambda: asgi.run_asgi(request), 1024, AT_ONCE)
        note("run_asgi, 64 at once", "Hello, 64 given in one turn of the loop.", many)
        note("run_wsgi", "Hello, one at a time.", await of_calls(wsgi, lambda: wsgi.run_wsgi(env), 512))
        note("1 MB", "An answer of 1 MiB, one at a time.", await of_calls(asgi, lambda: asgi.run_asgi(large), 64))
    async with served(session.isolation, "perf:app") as server:
        found = await of_requests(server, 512)
        note("server", "Hello over HTTP/1.1, one at a time on one connection, lines that were seen before.", found)
        found = await of_requests(server, 512, echo=True)
        note("WebSocket", "A message of 64 bytes and its echo, one at a time on one connection.", found)
        found = await of_requests(server, 512, SSE_HEAD)
        note("SSE", "20 events that the app sends in one breath.", found)


def served(isolation: str, app: str) -> Any:
    """A server in this process on asyncio's loop, to be used with `async with`."""
    from contextlib import asynccontextmanager

    from subpool.http.config import ServerConfig
    from subpool.http.server import Server

    @asynccontextmanager
    async def serving() -> Any:
        config = ServerConfig(
            app=app, bind=["127.0.0.1:0"], workers=1, isolation=isolation, pythonpath=[ROOT], lifespan="off",
            control_socket="none", log_level="error",
        )  # fmt: skip
        server = Server(config)
        server.announce = False
        await server.start()
        try:
            yield server
        finally:
            await server.stop(drain=5.0)

    return serving()
