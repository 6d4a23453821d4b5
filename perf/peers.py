"""Servers as processes: how each is started, what it uses, and that it ends.

Each server gets the same app, as many workers, the fastest loop it knows, no access log. It runs in a session of its
own, so that a Ctrl-C is ours; when it is left, it is asked to end, and what still lives of it after some seconds is
killed, each process by its pid.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from perf import ROOT
from perf.frame import Left
from perf.machine import missing

START: Final = 30.0  # seconds that a server has to answer
END: Final = 10.0  # seconds that it has to end


@dataclass(frozen=True, slots=True)
class Peer:
    """A server and how it is to run. `kind` is its module; `python` the interpreter that it runs on."""

    kind: str
    app: str = "perf:app"
    workers: int = 2
    wsgi: bool = False
    isolation: str = "subinterpreter"  # of subpool's workers
    python: str = sys.executable
    websocket: bool = False
    tls: tuple[str, str] | None = None  # certificate and key
    options: tuple[str, ...] = ()
    module: str = ""  # run in place of `kind`
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, port: int) -> list[str]:
        address, workers = f"127.0.0.1:{port}", str(self.workers)
        line = [self.python, "-m", self.module or self.kind]
        cert, key = self.tls or ("", "")
        if self.kind == "subpool":
            line += ["serve", self.app, "--bind", address, "--workers", workers, "--isolation", self.isolation,
                     "--log-level", "warning", "--lifespan", "off", "--control-socket", "none",
                     "--keepalive-timeout", "75"]  # fmt: skip
            line += ["--certfile", cert, "--keyfile", key] if cert else []
        elif self.kind == "granian":
            line += ["--interface", "wsgi" if self.wsgi else "asginl", "--workers", workers, "--port", str(port),
                     "--log-level", "warning", "--no-access-log", "--ws" if self.websocket else "--no-ws"]  # fmt: skip
            line += ["--ssl-certificate", cert, "--ssl-keyfile", key] if cert else []
            line += [*self.options, self.app]
        elif self.kind == "uvicorn":
            line += ["--workers", workers, "--port", str(port), "--loop", "uvloop", "--http", "httptools",
                     "--no-access-log", "--log-level", "warning", "--lifespan", "off",
                     "--timeout-keep-alive", "75"]  # fmt: skip
            line += ["--ssl-certfile", cert, "--ssl-keyfile", key] if cert else []
            line += [*self.options, self.app]
        elif self.kind == "hypercorn":
            app = f"wsgi:{self.app}" if self.wsgi else self.app
            line += ["-k", "uvloop", "-w", workers, "-b", address, "--log-level", "WARNING", "--keep-alive", "75"]
            line += ["--certfile", cert, "--keyfile", key] if cert else []
            line += [*self.options, app]
        else:
            line += ["-k", "gthread", "--threads", "8"] if self.wsgi else ["-k", "asgi", "--asgi-lifespan", "off"]
            line += ["-w", workers, "-b", address, "--log-level", "warning", "--keep-alive", "75"]
            line += ["--certfile", cert, "--keyfile", key] if cert else []
            line += [*self.options, self.app]
        return line + list(self.options) if self.kind == "subpool" else line


class Serving:
    """`async with Serving(peer) as server`: it answers inside the block. `Left` if it does not start, with its last
    words."""

    def __init__(self, peer: Peer, path: str = "/hello") -> None:
        self.peer = peer
        self.path = path
        self.port = 0
        self.took = 0.0  # seconds from its start to its first answer
        self.pid = 0
        self.fresh = True  # no load was put on it yet
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes]

    @property
    def url(self) -> str:
        return f"{'https' if self.peer.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        if self.peer.python == sys.executable and (reason := missing(self.peer.kind)):
            raise Left(reason)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed in `end`
        self.port = free_port()
        command = self.peer.command(self.port)
        environment = {**os.environ, "PYTHONPATH": ROOT, **self.peer.environment}
        for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
            environment.pop(name, None)
        start = time.perf_counter()
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220  asyncio would watch it, and `end` must not wait for a loop
                command, env=environment, stdin=subprocess.DEVNULL, stdout=self._said, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=ROOT,
            )  # fmt: skip
        except OSError as error:
            self._said.close()
            raise Left(f"{command[0]} cannot be run: {error}") from None
        self.pid = self._process.pid
        try:
            while not await answers(self.port, self.path, self.peer.tls is not None):
                if self._process.poll() is not None:
                    raise Left(f"did not start, status {self._process.returncode}: {self.words()}")
                if time.perf_counter() - start > START:
                    raise Left(f"did not answer within {START:g} s: {self.words()}")
                await asyncio.sleep(0.01)
        except BaseException:
            self.end()
            raise
        self.took = time.perf_counter() - start
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def words(self) -> str:
        """The last line of what it said."""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "without a word"

    def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        """Ask it to end; kill what is left, by pid. Blocking, so that no cancellation comes between."""
        process, self._process = self._process, None
        if process is None:
            return
        family = born(process.pid)
        process.terminate()
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid, when in family.items():
            if birth(pid) == when and pid != process.pid:
                os.kill(pid, signal.SIGKILL)
        self._said.close()


async def answers(port: int, path: str, tls: bool) -> bool:
    """Whether a request is answered there, with any status but 5xx."""
    import ssl

    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    writer = None
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"GET %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" % path.encode())
            first = await reader.readline()
            return first.startswith(b"HTTP/1.1 ") and first[9:10] in b"234"
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# What processes use (Linux)


def processes(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [child for text in file.read().split() for child in processes(int(text))]
        except OSError:
            continue
    return found


def birth(pid: int) -> str:
    """When a process began, "" if it is not there or has ended: with its pid, that is the process and no other."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def born(pid: int) -> dict[int, str]:
    return {one: birth(one) for one in processes(pid)}


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU, user and system, that the process and all below it have used."""
    ticks = 0
    for one in processes(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> int:
    """Bytes of memory of the process and all below it, what is shared divided among those who share it."""
    total = 0
    for one in processes(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024
