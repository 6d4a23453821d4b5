"""A bare WSGI app whose paths each show one behaviour."""

import asyncio
import io
import json
import sys
import threading

import gates

ROUTES = {}


def on(path):
    """Register a handler for `path`."""

    def register(handler):
        ROUTES[path] = handler
        return handler

    return register


def app(environ, start_response):
    """Look the path up; an unknown one is an ordinary 404."""
    return ROUTES.get(environ["PATH_INFO"], not_found)(environ, start_response)


def not_found(environ, start_response):
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"not found"]


@on("/hello")
def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello, World!"]


@on("/cookies")
def cookies(environ, start_response):
    start_response("200 Fine", [("Set-Cookie", "a=1"), ("X-Between", "yes"), ("Set-Cookie", "b=2")])
    return [b""]


@on("/echo")
def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [body]


@on("/environ")
def show(environ, start_response):
    """The environ's plain values, as a Python literal."""
    start_response("200 OK", [])
    plain = (str, int, bool, bytes, tuple, type(None))
    return [repr({key: value for key, value in environ.items() if isinstance(value, plain)}).encode()]


@on("/kinds")
def kinds(environ, start_response):
    """The type's name of each value that is not plain."""
    start_response("200 OK", [])
    return [json.dumps({key: type(value).__name__ for key, value in environ.items()}).encode()]


@on("/mutate")
def mutate(environ, start_response):
    environ["leak"] = "yes"
    environ["REQUEST_METHOD"] = environ["wsgi.url_scheme"] = environ["SCRIPT_NAME"] = "LEAK"
    start_response("200 OK", [])
    return [b"changed"]


@on("/lines")
def lines(environ, start_response):
    """All ways to read: readline, iteration, readlines, read with a size, and again at the end."""
    source = environ["wsgi.input"]
    found = [source.readline(), source.readline(3), next(iter(source)), source.read(2)]
    found += source.readlines()
    found += [source.read(), source.read(5), source.readline()]
    start_response("200 OK", [])
    return [repr(found).encode()]


@on("/generator")
def generator(environ, start_response):
    """Calls start_response only when iterated."""
    start_response("201 Created", [("X-Late", "yes")])
    yield b"one "
    yield b""
    yield b"two"


@on("/many")
def many(environ, start_response):
    """As many pieces as asked for, each as large as asked for; the end."""
    args = gates.query(environ["QUERY_STRING"])
    start_response("200 OK", [])
    for _ in range(int(args["count"])):
        yield b"x" * int(args["size"])
    yield b"end"


@on("/empty")
def empty(environ, start_response):
    start_response("204 No Content", [])
    return []


@on("/write")
def write(environ, start_response):
    """The old way: what write() sends goes first."""
    put = start_response("200 OK", [])
    put(b"written ")
    put(b"twice ")
    return [b"returned"]


class Body:
    """An iterable that counts its close() through a pipe."""

    def __init__(self, report, chunks=(b"a", b"b"), fail=False):
        self.report, self.chunks, self.fail = report, chunks, fail

    def __iter__(self):
        yield from self.chunks
        if self.fail:
            raise LookupError("in the body")

    def close(self):
        gates.signal(self.report, b"c")


@on("/close")
def close(environ, start_response):
    args = gates.query(environ["QUERY_STRING"])
    start_response("200 OK", [])
    return Body(args["report"], fail="fail" in args)


@on("/close-raises")
def close_raises(environ, start_response):
    class Bad(Body):
        def close(self):
            raise LookupError("in close")

    start_response("200 OK", [])
    return Bad("")


@on("/close-unstarted")
def close_unstarted(environ, start_response):
    """No start_response, but an iterable: it is closed all the same."""
    return Body(gates.query(environ["QUERY_STRING"])["report"])


@on("/raise")
def fail(environ, start_response):
    raise LookupError("no such thing: \u2603")


@on("/raise-half")
def raise_half(environ, start_response):
    start_response("200 OK", [])
    yield b"half"
    raise LookupError("in the middle")


@on("/silent")
def silent(environ, start_response):
    return [b"no start_response"]


@on("/start-twice")
def start_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"x"]


@on("/start-exc-info")
def start_exc_info(environ, start_response):
    """Before any byte went out a second start_response with exc_info replaces the first (PEP 3333)."""
    start_response("200 OK", [("X-First", "yes")])
    try:
        raise LookupError("early")
    except LookupError:
        start_response("500 Sorry", [("X-Second", "yes")], sys.exc_info())
    return [b"replaced"]


@on("/start-exc-info-late")
def start_exc_info_late(environ, start_response):
    """After bytes went out it re-raises."""
    put = start_response("200 OK", [])
    put(b"gone out")
    try:
        raise LookupError("late")
    except LookupError:
        start_response("500 Sorry", [], sys.exc_info())
    return [b"never"]


@on("/bad-status")
def bad_status(environ, start_response):
    start_response(gates.query(environ["QUERY_STRING"]).get("status", ""), [])
    return [b"x"]


@on("/bad-header")
def bad_header(environ, start_response):
    start_response("200 OK", [("X-Split", "a\r\nSet-Cookie: b")])
    return [b"x"]


@on("/bad-body")
def bad_body(environ, start_response):
    start_response("200 OK", [])
    return ["text"]


@on("/file")
def file(environ, start_response):
    """A file-like object behind wsgi.file_wrapper."""
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"f" * 100_000), 8192)


@on("/real-file")
def real_file(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open(gates.query(environ["QUERY_STRING"])["path"], "rb"))


@on("/own-loop")
def own_loop(environ, start_response):
    async def inner():
        await asyncio.sleep(0)
        return b"from a loop"

    body = asyncio.run(inner())
    start_response("200 OK", [])
    return [body]


@on("/hints")
def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    start_response("200 OK", [])
    return [b"final"]


@on("/errors")
def errors(environ, start_response):
    environ["wsgi.errors"].write("to the error log\n")
    environ["wsgi.errors"].flush()
    start_response("200 OK", [])
    return [b"ok"]


@on("/block")
def block(environ, start_response):
    args = gates.query(environ["QUERY_STRING"])
    gates.signal(args.get("started"))
    gates.block(args["gate"])
    start_response("200 OK", [])
    return [b"through"]


@on("/spin")
def spin(environ, start_response):
    gates.signal(gates.query(environ["QUERY_STRING"]).get("started"))
    while True:
        pass


@on("/deaf")
def deaf(environ, start_response):
    args = gates.query(environ["QUERY_STRING"])
    gates.signal(args.get("started"))
    gates.spin(args["stop"])
    start_response("200 OK", [])
    return [b"late"]


@on("/burn")
def burn(environ, start_response):
    gates.burn(float(environ["QUERY_STRING"]))
    start_response("200 OK", [])
    return [b"burnt"]


@on("/exit")
def leave(environ, start_response):
    raise SystemExit(3)


@on("/big")
def big(environ, start_response):
    start_response("200 OK", [])
    return [b"b" * int(environ["QUERY_STRING"])]


@on("/worker")
def worker(environ, start_response):
    start_response("200 OK", [])
    return [b"%d" % environ["subpool.worker"]]


@on("/thread")
def thread(environ, start_response):
    start_response("200 OK", [])
    return [threading.current_thread().name.encode()]


@on("/import")
def import_module(environ, start_response):
    __import__(environ["QUERY_STRING"])
    start_response("200 OK", [])
    return [b"imported"]


def late(environ, start_response):
    """The same app under another name: imported at its first call."""
    return app(environ, start_response)


@on("/here")
def here(environ, start_response):
    """Is it the worker that the environment names?"""
    from subpool.here import worker

    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(worker().id == environ["subpool.worker"]).encode()]
