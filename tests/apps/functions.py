"""Functions for ``pool.call``, and factories and attributes for ``app=``."""

import os
import sys
import threading

import gates

COUNTER = 0


class Holder:
    """A namespace to reach by a dotted path."""

    @staticmethod
    def add(left, right=1):
        return left + right

    @staticmethod
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"dotted"})


def make():
    """A factory of an ASGI app."""

    async def made(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"made"})

    return made


def make_wsgi():
    """A factory of a WSGI app."""

    def made(environ, start_response):
        start_response("200 OK", [])
        return [b"made"]

    return made


def make_badly():
    """A factory that fails."""
    raise LookupError("no configuration")


def add(left, right=1):
    return left + right


async def add_later(left, right=1):
    return left + right


def identity(value):
    return value


def kinds(*args, **kwargs):
    """The types' names, to show that they survive the way."""
    return [type(arg).__name__ for arg in args], {name: type(arg).__name__ for name, arg in kwargs.items()}


def fail(text):
    raise LookupError(text)


def unmarshallable():
    return threading.Lock()


def count():
    """Counts up in this copy of the module."""
    global COUNTER
    COUNTER += 1
    return COUNTER


def block(started, gate):
    """Hold the worker's thread until the test lets it go."""
    gates.signal(started)
    gates.block(gate)
    return "through"


def pid():
    return os.getpid()


def has_module(name):
    return name in sys.modules


def environment(name):
    return os.environ.get(name)


not_callable = 7


def look_around(times):
    """What an interpreter sees of the process's frames, the last of many times; as seen from this thread."""
    for _ in range(times):
        frames, errors, blocks = sys._current_frames(), sys._current_exceptions(), sys.getallocatedblocks()
    own = threading.get_ident()
    return [frames.pop(own).f_code.co_name, errors.pop(own), blocks, len(frames), len(errors)]


KEPT = []


def allocate(count):
    """Keep so many small objects; how many bytes this interpreter has allocated in such."""
    from subpool.worker import memory

    KEPT.extend(str(number) for number in range(count))
    return memory.allocated()


def measure(times):
    """The same so many times, without keeping any; the last."""
    for _ in range(times):
        found = allocate(0)
    return found
