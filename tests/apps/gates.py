"""The app's side of a test's named pipes. All calls are bounded or can be cancelled."""

import asyncio
import os
import select
import time
from urllib.parse import parse_qsl


def query(raw):
    """A query string (bytes or str) as a dict of str."""
    return dict(parse_qsl(raw.decode("latin-1") if isinstance(raw, bytes) else raw))


def signal(path, data=b"."):
    """Write to the pipe at `path`; nothing happens if `path` is empty."""
    if not path:
        return
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def block(path, seconds=20.0):
    """Hold the calling thread until the test writes one byte, at most `seconds`."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end and select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
            try:
                return os.read(fd, 1)
            except BlockingIOError:  # another waiter took the byte
                continue
        raise TimeoutError(path)
    finally:
        os.close(fd)


async def wait(path):
    """Wait, without holding the thread, until the test writes one byte."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    try:
        while True:
            readable = asyncio.Event()
            loop.add_reader(fd, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(fd)
            try:
                return os.read(fd, 1)
            except BlockingIOError:  # another waiter took the byte
                continue
    finally:
        os.close(fd)


def spin(path, turns=400_000):
    """Burn CPU, deaf to every exception, until the file at `path` exists or 20 s have passed.

    The GIL is given up once in so many turns: 400,000 are long enough for another thread to ask for it.
    """
    end = time.monotonic() + 20.0
    for _ in range(1000):  # an exception may strike between the lines of the inner layers
        try:
            if _spin(path, end, turns):
                return
        except BaseException:
            continue


def _spin(path, end, turns):
    while True:
        try:
            if os.path.exists(path) or time.monotonic() > end:
                return True
            for _ in range(turns):
                pass
        except BaseException:
            continue


def burn(seconds):
    """Burn CPU in pure Python for `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
