"""The WSGI app behind the HTTP server's tests: `wsgi_app`, a journal of calls, and responses by script."""

import http
import io
import json
import logging

import gates
from wsgi_app import ROUTES, on

JOURNAL = []


def app(environ, start_response):
    """/journal tells what was called since it was last asked for; an unknown path shows its environ."""
    path = environ["PATH_INFO"]
    if path == "/journal":
        told, JOURNAL[:] = list(JOURNAL), []
        start_response("200 OK", [])
        return [json.dumps(told).encode()]
    JOURNAL.append(f"{environ['REQUEST_METHOD']} {environ['SCRIPT_NAME']}{path}")
    return ROUTES.get(path, ROUTES["/environ"])(environ, start_response)


def other(environ, start_response):
    """A second app, for mounts."""
    start_response("200 OK", [])
    return [json.dumps(["other", environ["SCRIPT_NAME"], environ["PATH_INFO"]]).encode()]


ROUTES["/scope"] = ROUTES["/environ"]


class Steps:
    """What a script may do; a step that answers bytes yields them."""

    def __init__(self, environ, start_response):
        self.environ, self.start_response, self.put = environ, start_response, None

    def start(self, status, headers=(), more=None):
        if isinstance(status, int):
            status = f"{status} {http.HTTPStatus(status).phrase}"
        self.put = self.start_response(status, [(name, value) for name, value in headers])

    def body(self, text="", more=False):
        return text.encode("latin-1")

    def big(self, size, more=False):
        return b"b" * size

    def write(self, text):
        self.put(text.encode("latin-1"))

    def hint(self, headers):
        self.environ["wsgi.early_hints"]([tuple(pair) for pair in headers])

    def read(self, *size):
        self.environ["wsgi.input"].read(*size)

    def readline(self, path):
        gates.signal(path, self.environ["wsgi.input"].readline())

    def wait(self, path):
        gates.block(path)

    def signal(self, path):
        gates.signal(path)

    def log(self, text):
        logging.getLogger("apps.http").error(text)

    def fail(self):
        raise LookupError("by script")


class Script:
    """Runs the steps while it is iterated; counts its close()."""

    def __init__(self, args, steps, doing):
        self.args, self.steps, self.doing = args, steps, doing

    def __iter__(self):
        return self

    def __next__(self):
        while self.steps:
            name, *arguments = self.steps.pop(0)
            try:
                chunk = getattr(self.doing, name)(*arguments)
            except BaseException as error:
                kind = "OSError" if isinstance(error, OSError) else type(error).__name__
                gates.signal(self.args.get("report"), f"{name} {kind}".encode())
                raise
            if chunk is not None:
                return chunk
        raise StopIteration

    def close(self):
        gates.signal(self.args.get("closed"), b"c")


@on("/script")
def script(environ, start_response):
    args = gates.query(environ["QUERY_STRING"])
    return Script(args, json.loads(args["steps"]), Steps(environ, start_response))


@on("/returned")
def returned(environ, start_response):
    """A list with a Content-Length that is not its size."""
    start_response("200 OK", [("Content-Length", environ["QUERY_STRING"])])
    return [b"hello"]


@on("/file-part")
def file_part(environ, start_response):
    """A real file from an offset on; close() reports."""
    args = gates.query(environ["QUERY_STRING"])
    headers = [("Content-Length", args["length"])] if "length" in args else []
    start_response("200 OK", headers)
    found = open(args["path"], "rb")  # noqa: SIM115 - file_wrapper closes it
    found.seek(int(args.get("offset", "0")))
    return environ["wsgi.file_wrapper"](found, 8192)


class Reported(io.BytesIO):
    """A file-like object that counts its close()."""

    def __init__(self, data, report):
        super().__init__(data)
        self.report = report

    def close(self):
        if not self.closed:
            gates.signal(self.report, b"c")
        super().close()


@on("/file-like")
def file_like(environ, start_response):
    args = gates.query(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Length", args["length"])] if "length" in args else [])
    return environ["wsgi.file_wrapper"](Reported(b"f" * int(args["size"]), args.get("report")), 8192)


@on("/reads")
def reads(environ, start_response):
    """Read in the ways asked for: a list of [method, argument...]; "next" iterates."""
    source = environ["wsgi.input"]
    found = []
    for name, *arguments in json.loads(gates.query(environ["QUERY_STRING"])["ways"]):
        got = next(source, b"") if name == "next" else getattr(source, name)(*arguments)
        found.append(got)
    start_response("200 OK", [])
    return [repr(found).encode()]


@on("/lines-iter")
def lines_iter(environ, start_response):
    start_response("200 OK", [])
    return [repr(list(environ["wsgi.input"])).encode()]


@on("/sizes")
def sizes(environ, start_response):
    """Count the body without holding it, and not before the test says so."""
    if "gate" in (args := gates.query(environ["QUERY_STRING"])):
        gates.block(args["gate"])
    size = 0
    while chunk := environ["wsgi.input"].read(65536):
        size += len(chunk)
    start_response("200 OK", [])
    return [b"%d" % size]


@on("/endless")
def endless(environ, start_response):
    """64 KiB chunks without end; reports how many were taken when it is closed."""
    args = gates.query(environ["QUERY_STRING"])
    start_response("200 OK", [])
    sent = 0
    try:
        while True:
            yield b"x" * 65536
            sent += 1
            if sent == 1:
                gates.signal(args.get("started"))
    finally:
        gates.signal(args.get("report"), b"%d" % sent)


@on("/tiny")
def tiny(environ, start_response):
    """Single bytes without end; reports each 100,000."""
    args = gates.query(environ["QUERY_STRING"])
    start_response("200 OK", [])
    while True:
        for _ in range(100_000):
            yield b"x"
        gates.signal(args["report"])


@on("/hint-flood")
def hint_flood(environ, start_response):
    """Early hints without end; reports each 20,000."""
    args = gates.query(environ["QUERY_STRING"])
    while True:
        for _ in range(20_000):
            environ["wsgi.early_hints"]([("Link", "x" * 1000)])
        gates.signal(args["report"])
