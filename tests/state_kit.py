"""What the tests of the shared state use: stores of every kind, time that passes at once, a Redis of their own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE

from subpool.state.space import Space
from subpool.state.sqlite import SQLiteStore

STORES = ("memory", "sqlite", "redis")


class RedisServer:
    """A `redis-server` on a free port of the loopback, which keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [*command, "--dir", str(self._folder), *options], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1.0) as sock:
                    sock.sendall(b"PING\r\n")
                    if sock.recv(7) == b"+PONG\r\n":
                        return
            except OSError:
                pass
            assert self._process.poll() is None, "redis-server has ended"
            assert time.monotonic() < deadline, "redis-server does not answer"

    def kill(self) -> None:
        """As `kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._process = None

    def suspend(self, signal: int) -> None:
        assert self._process is not None
        self._process.send_signal(signal)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running one. Skips where it, or the library, is not installed."""
    pytest.importorskip("redis", reason="the library redis is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fixture:
    """A store that is empty, and its time."""

    def __init__(self, kind: str, store: Any, clock: Clock | None) -> None:
        self.kind = kind
        self.store = store
        self._clock = clock
        self.space = Space(store, "tests")

    def other(self, name: str) -> Space:
        """Another namespace of the same store."""
        return Space(self.store, name)

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` be over. In Redis: each entry has so much less to live."""
        if self._clock is not None:
            self._clock.now += seconds
            return
        redis = self.store._redis
        for key in redis.keys():  # noqa: SIM118  it is no dict
            left = redis.pttl(key)
            if left >= 0:
                redis.pexpire(key, round(left - seconds * 1000))  # 0 and less delete it


def make_store(kind: str, folder: Path, url: str = "", **options: Any) -> Fixture:
    """A store of that kind, in `folder` where it has a file."""
    if kind == "redis":
        from subpool.state.redis import RedisStore

        return Fixture(kind, RedisStore(url), None)
    clock = Clock()
    path = folder / "state" / "state.db" if kind == "memory" else folder / "state.db"
    return Fixture(kind, SQLiteStore(str(path), durable=kind == "sqlite", clock=clock, **options), clock)
