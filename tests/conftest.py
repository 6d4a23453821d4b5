"""What every test of the pool shares: isolation kinds, pools, scopes, and pipes that replace sleeps.

Rules of this suite:

- A behavioural test takes the ``isolation`` fixture (or ``pool``, ``wsgi_pool``, ``make_pool``, which take
  it), so it runs once for sub-interpreters, threads and processes.
- The host side runs on asyncio; a test that must hold on trio too is marked with ``BOTH``.
- Nobody sleeps. A test and an app wait for each other on a `Fifo`, a named pipe that works across
  interpreters and processes; state that has no event is polled by `eventually`, always with a deadline.
"""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import settings

settings.register_profile("subpool", deadline=None)  # each test has its limit; a busy machine is no failure
settings.load_profile("subpool")

APPS = str(Path(__file__).parent / "apps")
EXAMPLES = Path(__file__).parent.parent / "examples"
KINDS = ("subinterpreter", "thread", "process")
DEADLINE = 20.0  # seconds that a test waits for what normally takes milliseconds: a busy machine is no failure

if APPS not in sys.path:
    sys.path.insert(0, APPS)

BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], scope="module")


def free_threaded() -> bool:
    """Whether this interpreter runs without a GIL at this moment."""
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep a failed run's status: a worker that never ended may make the process end early, with status 0."""

    def leave() -> None:
        if any(thread is not threading.main_thread() for thread in threading.enumerate()):
            sys.stdout.flush()
            os._exit(int(exitstatus))

    if exitstatus:
        atexit.register(leave)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what was measured: it is printed when all tests have ended, beside the test's name. Nothing asserts it."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures of every test that had one; a run of many processes has them too."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    found = [
        (report.nodeid, text)
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == "figure"
    ]
    if found:
        terminalreporter.section("figures")
        for name, text in found:
            terminalreporter.line(f"{name}: {text}")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The host side's event loop: asyncio, unless a test is marked with ``BOTH``."""
    return "asyncio"


@pytest.fixture(scope="module", params=KINDS)
def isolation(request: pytest.FixtureRequest) -> str:
    """The kind of worker, once each."""
    return str(request.param)


def pool_options(isolation: str, **options: Any) -> dict[str, Any]:
    """Options of a small pool that starts quickly; what a test gives wins."""
    path = [APPS, *map(str, options.pop("pythonpath", ()))]
    return {"workers": 2, "isolation": isolation, "close_timeout": 5.0, **options, "pythonpath": path}


@pytest.fixture(scope="module")
def make_pool(isolation: str) -> Callable[..., Any]:
    """Build a pool that is not started yet: ``async with make_pool("asgi_app:app", threads=2) as pool``."""
    from subpool import Pool

    def make(app: str | None = "asgi_app:app", **options: Any) -> Any:
        return Pool(app, **pool_options(isolation, **options))

    return make


@pytest.fixture(scope="module")
async def pool(make_pool: Callable[..., Any], anyio_backend: str) -> AsyncIterator[Any]:
    """A pool of ``asgi_app``, shared by a module's tests: for tests that leave nothing behind."""
    async with make_pool("asgi_app:app") as pool:
        yield pool


@pytest.fixture(scope="module")
async def wsgi_pool(make_pool: Callable[..., Any], anyio_backend: str) -> AsyncIterator[Any]:
    """A pool of ``wsgi_app``, shared by a module's tests: for tests that leave nothing behind."""
    async with make_pool("wsgi_app:app") as pool:
        yield pool


def http_scope(path: str = "/", /, **fields: Any) -> dict[str, Any]:
    """An HTTP scope as a server would build it (ASGI HTTP 2.5, "HTTP connection scope")."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"example.test")],
        "server": ("example.test", 80),
        "client": ("192.0.2.7", 50123),
        **fields,
    }


def websocket_scope(path: str = "/", /, **fields: Any) -> dict[str, Any]:
    """A WebSocket scope (ASGI HTTP 2.5, "WebSocket connection scope")."""
    scope = http_scope(path, **{"scheme": "ws", "subprotocols": [], **fields})
    scope["type"] = fields.get("type", "websocket")
    del scope["method"]
    return scope


def environ(path: str = "/", *, method: str = "GET", query: str = "", body: Any = b"", **keys: Any) -> dict[str, Any]:
    """A WSGI environ (PEP 3333, "environ Variables") with ``wsgi.input`` given as bytes or a readable."""
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "example.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": body,
        **keys,
    }


class Fifo:
    """A named pipe that a test and an app share; either side may signal or wait.

    Both ends are open for reading and writing, so opening never blocks and end of file never comes.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def __str__(self) -> str:
        return self.path

    async def wait(self, seconds: float = DEADLINE) -> bytes:
        """What the app wrote; raises TimeoutError after `seconds`."""
        with anyio.fail_after(seconds):
            while True:
                await anyio.wait_readable(self._fd)
                try:
                    return os.read(self._fd, 65536)
                except BlockingIOError:
                    continue

    def wait_sync(self, seconds: float = DEADLINE) -> bytes:
        """The same for tests without an event loop."""
        if not select.select([self._fd], [], [], seconds)[0]:
            raise TimeoutError(self.path)
        return os.read(self._fd, 65536)

    def empty(self) -> bool:
        """Whether nobody has written anything that is still unread."""
        return not select.select([self._fd], [], [], 0)[0]

    def release(self, count: int = 1) -> None:
        """Let `count` waiting apps go on."""
        os.write(self._fd, b"." * count)

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Callable[[str], Fifo]]:
    """Make named pipes; when the test ends each is written to once more, so that no app waits for ever."""
    made: list[Fifo] = []

    def make(name: str) -> Fifo:
        made.append(Fifo(tmp_path / name))
        return made[-1]

    yield make
    for one in made:
        one.release(64)
        one.close()


async def eventually(holds: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait until `holds()` is true; raises TimeoutError after `seconds`. For state that sends no event."""
    with anyio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 - a snapshot has no event
            await anyio.sleep(0.005)


def in_flight(pool: Any) -> int:
    """How many requests and WebSockets the pool's workers hold."""
    return sum(worker.in_flight + worker.websockets for worker in pool.stats().workers)


def whole(pool: Any, workers: int = 2) -> bool:
    """Whether the pool has all its workers and each is ready."""
    states = [worker.state for worker in pool.stats().workers]
    return len(states) == workers and all(state == "ready" for state in states)
