"""The server under a mixed load, as a real process: no errors but the clients' own, and nothing left behind.

`make soak` runs it for 10 minutes, or for SOAK_SECONDS; the suite for some seconds. The load is `soak_load`; its seed
is among the figures that are printed (`pytest -s`), and SOAK_SEED takes one again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from conftest import APPS, DEADLINE

pytest.importorskip("click")
pytest.importorskip("httptools")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")

import proc_kit
from proc_kit import MB
from soak_load import MOUNTS, Load

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SHORT = 6.0
FILE = 300_000  # bytes of the file that is sent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Served:
    """A running `subpool serve`."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[str], port: int) -> None:
        self.process = process
        self.port = port
        self._said = said

    def said(self) -> str:
        self._said.seek(0)
        return self._said.read()

    def settle(self, sockets: int) -> None:
        """Wait until the server has seen that its clients are gone. If it does not, the figures will tell."""
        end = time.monotonic() + DEADLINE
        while proc_kit.sockets(self.process.pid) > sockets and time.monotonic() < end:
            time.sleep(0.02)

    def stop(self) -> None:
        """As a supervisor stops it."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, self.said()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    config = {
        "mounts": MOUNTS, "bind": ["127.0.0.1:0"], "workers": 2, "isolation": "subinterpreter", "pythonpath": [APPS],
        "max_concurrency": 50, "timeout": 60, "graceful_timeout": 10, "websocket_compress": True,
    }  # fmt: skip
    file = folder / "subpool.yaml"
    file.write_text(json.dumps(config))  # which is YAML too
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SUBPOOL_")}
    command = [sys.executable, "-m", "subpool", "serve", "--no-guard", "--config", str(file)]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, cwd=folder, env=kept, stdin=subprocess.DEVNULL, stderr=said) as process,
    ):
        try:
            server = Served(process, said, 0)
            end = time.monotonic() + DEADLINE
            while (found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", server.said())) is None:
                assert process.poll() is None, server.said()
                assert time.monotonic() < end, server.said()
                time.sleep(0.02)
            server.port = int(found[1])
            yield server
        finally:
            process.kill()


def soak(folder: Path, seconds: float, limit: int) -> None:
    """A tenth of the time is warming up; then `limit` is what memory may grow by."""
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(10**6))
    content = random.Random(seed).randbytes(FILE)
    (folder / "file").write_bytes(content)
    with served(folder) as server:
        load = Load(server.port, seed, str(folder / "file"), content)
        print(f"\nseed {seed}", flush=True)
        pid = server.process.pid

        def figures() -> tuple[int, int, int]:
            return proc_kit.rss(pid), len(proc_kit.descriptors(pid)), proc_kit.threads(pid)

        (_, idle, _), sockets = figures(), proc_kit.sockets(pid)
        asyncio.run(load.run(seconds / 10))
        server.settle(sockets)
        rss, fds, threads = figures()
        asyncio.run(load.run(seconds - seconds / 10, every_sort=True))
        server.settle(sockets)
        rss_after, fds_after, threads_after = figures()
        print(f"soak: seed {seed}, {seconds:.0f} s, {sum(load.visits.values())} connections, {load.requests} requests, "
              f"RSS {rss / MB:.1f} -> {rss_after / MB:.1f} MB, fds {idle} -> {fds} -> {fds_after}, "
              f"threads {threads} -> {threads_after}, {len(load.errors)} errors; {dict(load.visits)}")  # fmt: skip
        assert not load.errors, "\n".join(load.errors)
        assert set(load.visits) == {sort.__name__ for sort in load.sorts}
        assert fds_after <= fds
        assert threads_after <= threads
        assert rss_after - rss < limit
        server.stop()
        assert [line for line in server.said().splitlines() if " INFO " not in line] == []


@pytest.mark.timeout(150)
def test_a_mixed_load_leaves_nothing(tmp_path: Path) -> None:
    soak(tmp_path, SHORT, 64 * MB)


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 300)
def test_ten_minutes_of_mixed_load_leave_nothing(tmp_path: Path) -> None:
    soak(tmp_path, SECONDS, 32 * MB)  # the allocator's holes: 18 MB in 630,000 requests, while no objects were left
