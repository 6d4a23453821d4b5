"""What the tests of operating a server share: a real `subpool serve`, and what it says while it runs."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import APPS, DEADLINE
from http_kit import new_loop

from subpool.remote import Remote, live_servers


def clean(**more: str) -> dict[str, str]:
    """This process's environment without the options of a server, and with `more`."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("SUBPOOL_")}, **more}


class Served:
    """A running `subpool serve`. `said`: all that it has written so far to stdout and stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()

    @property
    def said(self) -> str:
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it has said `pattern`."""
        end = time.monotonic() + DEADLINE
        with self._news:
            while (found := re.search(pattern, "".join(self._lines))) is None:
                if not self._news.wait(max(0.0, end - time.monotonic())):
                    raise TimeoutError(f"{pattern!r} is not in {''.join(self._lines)!r}")
        return found

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.wait_for(r"listening on https?://127\.0\.0\.1:(\d+)")[1])

    @property
    def metrics(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.wait_for(r"metrics at http://127\.0\.0\.1:(\d+)")[1])

    def get(self, path: str, address: tuple[str, int] | None = None) -> tuple[int, str]:
        """Status and body of one GET, on a connection of its own."""
        with self.asked(path, address) as peer:
            return answer(peer)

    def asked(self, path: str, address: tuple[str, int] | None = None) -> socket.socket:
        """A connection on which a GET was sent."""
        peer = socket.create_connection(address or self.address, timeout=DEADLINE)
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return peer

    def wait_for_state(self, state: str) -> None:
        """Wait until its status has that state."""
        end = time.monotonic() + DEADLINE
        (path,) = [path for path in live_servers() if str(self.pid) in path]
        with Remote(path) as remote:
            while (found := remote.ask("status")["state"]) != state:
                if time.monotonic() > end:
                    raise TimeoutError(f"it is {found}, not {state}")
                os.sched_yield()

    def end(self) -> int:
        """Its status, when it has ended."""
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status


def answer(peer: socket.socket) -> tuple[int, str]:
    """Status and body of the response that ends with the connection."""
    with peer.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@contextmanager
def serve(*arguments: str, app: str = "asgi_app:app", path: Path | str = APPS, **environ: str) -> Iterator[Served]:
    """`subpool serve`, without a guard unless `--guard` is given; it is told to end with SIGTERM unless it has ended by
    itself."""
    if "--guard" not in arguments:
        arguments = ("--no-guard", *arguments)
    command = [sys.executable, "-m", "subpool", "serve", app, "--bind", "127.0.0.1:0", "--workers", "1", *arguments]
    with subprocess.Popen(command, cwd=path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, env=clean(**environ)) as process:  # fmt: skip
        served = Served(process)
        try:
            yield served
            if process.poll() is None:
                process.terminate()
                assert served.end() == 0, served.said
        finally:
            process.kill()
            served.end()


def run_on(loop: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` on a loop of that kind, for at most `DEADLINE` seconds."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE):
            await main()

    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        runner.run(bounded())


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a unix socket's name."""
    with tempfile.TemporaryDirectory(prefix="sp-") as folder:
        yield Path(folder)


@contextmanager
def control_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the control sockets of this test's servers and commands are, and no others; no options of a server are in
    the environment."""
    for variable in [name for name in os.environ if name.startswith("SUBPOOL_")]:
        monkeypatch.delenv(variable)
    with short_folder() as made:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
        yield made / "subpool"


def command(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """A real command line: its status, stdout and stderr."""
    program = [sys.executable, "-W", "error", "-m", "subpool", *arguments]
    done = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=25, check=False,
                          env=clean(**environ))  # fmt: skip
    return done.returncode, done.stdout, done.stderr
