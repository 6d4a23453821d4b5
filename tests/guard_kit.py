"""`subpool serve` as an operator has it: a command in a session of its own, its log, and clients."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conftest import APPS

DEADLINE = 20.0  # seconds for what normally takes less than two


def until(holds: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """What `holds()` is, once it is true. For what sends no event: the end of a process that is not ours."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > end:
            raise TimeoutError(holds)
        time.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    """Whether that process runs. One that nobody has waited for yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return not sys.platform.startswith("linux")


class Command:
    """A running `subpool serve`. `port` of its first address, `lines` of its log."""

    def __init__(self, app: str = "guard_app:app", *arguments: str, cwd: str = APPS, bind: str = "127.0.0.1:0",
                 before: Sequence[str] = (), **environ: str) -> None:  # fmt: skip
        """`before`: a command that runs the one behind it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SUBPOOL_", "PYTHONUNBUF"))}
        command = [sys.executable, "-W", "error::ResourceWarning", "-m", "subpool", "serve", app, "--bind", bind]
        self.process = subprocess.Popen(
            [*before, *command, "--workers", "1", "--lifespan", "off", *arguments],
            cwd=cwd, env={**kept, **environ}, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self.port = 0
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        self.port = int(self.said("listening on").rpartition(":")[2])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None,
                 ) -> None:  # fmt: skip
        self.end()
        if error is not None:
            error.add_note("the server's log:\n" + "\n".join(self.lines))

    def end(self) -> None:
        """Nothing of it is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def said(self, text: str, times: int = 1, seconds: float = DEADLINE) -> str:
        """The line of the log with `text`, the last of that many, once it is there."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._news:
            self._news.wait_for(lambda: len(found()) >= times or self._ended, seconds)
            assert len(found()) >= times, (text, self.lines)
            return found()[times - 1]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """Its status."""
        return self.process.wait(seconds)

    def get(self, path: str = "/", seconds: float = DEADLINE) -> str:
        """The body of an answer with status 200, on a connection of its own."""
        return get(("127.0.0.1", self.port), path, seconds)

    def accepted(self) -> None:
        """A moment, so that a request that was just sent is likely to be with the app, which has no way to say so;
        what is tried then holds either way."""
        time.sleep(0.2)

    def fails(self, path: str) -> None:
        """Ask, and get no good answer."""
        try:
            body = self.get(path)
        except (OSError, http.client.HTTPException, AssertionError):
            return
        raise AssertionError(f"{path} was answered: {body}")

    def pids(self) -> tuple[int, int]:
        """Of the process that the app is in, and of its parent."""
        pid, parent = self.get().split()
        return int(pid), int(parent)

    def refuses(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False


def get(address: tuple[str, int] | str, path: str = "/", seconds: float = DEADLINE) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", timeout=seconds)
    if isinstance(address, str):
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(seconds)
        connection.sock.connect(address)
    else:
        connection.sock = socket.create_connection(address, seconds)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, (answer.status, body)
        return body
    finally:
        connection.close()


class Load:
    """Clients that ask again and again, each time on a new connection, until the block ends."""

    def __init__(self, address: tuple[str, int] | str, clients: int = 3) -> None:
        self.failures: list[BaseException] = []
        self.bodies: list[str] = []
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                self.bodies.append(get(self._address))
            except BaseException as error:
                self.failures.append(error)

    def more(self, count: int = 20) -> None:
        """Wait for that many answers from now on."""
        there = len(self.bodies)
        until(lambda: len(self.bodies) >= there + count or self.failures)


@contextlib.contextmanager
def background(call: Callable[[], Any], seconds: float = DEADLINE) -> Iterator[Callable[[], Any]]:
    """Run `call` on a thread; the function given waits `seconds` for its answer, or raises what it raised."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(call)
        yield lambda: future.result(seconds)
