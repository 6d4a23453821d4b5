"""The ASGI app behind the HTTP server's tests: `asgi_app`, a journal of calls, and responses by script."""

import json
import logging

import asgi_app
import gates
from asgi_app import HTTP, answer, on, read

JOURNAL = []


async def app(scope, receive, send):
    """Serve at any mount; /journal tells what was called since it was last asked for."""
    if scope["type"] != "http":
        return await asgi_app.app(scope, receive, send)
    root = scope.get("root_path", "")
    path = scope["path"]
    path = path[len(root) :] if root and path.startswith(root) else path
    if path == "/journal":
        told, JOURNAL[:] = list(JOURNAL), []
        return await answer(send, json.dumps(told).encode())
    JOURNAL.append(f"{scope['method']} {scope['path']}")
    return await HTTP.get(path, show_anything)(scope, receive, send)


async def other(scope, receive, send):
    """A second app, for mounts."""
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    shown = [scope["root_path"], scope["path"], scope["raw_path"].decode("latin-1")]
    await answer(send, json.dumps(["other", *shown]).encode())


async def show_anything(scope, receive, send):
    """An unknown path shows its scope too: tests of targets need no route."""
    await answer(send, repr(dict(scope)).encode())


def pairs(headers):
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


class Steps:
    """What a script may do; each step is a method."""

    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send

    async def start(self, status, headers=(), more=None):
        await self.send({"type": "http.response.start", "status": status, "headers": pairs(headers), **(more or {})})

    async def body(self, text="", more=False):
        await self.send({"type": "http.response.body", "body": text.encode("latin-1"), "more_body": more})

    async def big(self, size, more=False):
        await self.send({"type": "http.response.body", "body": b"b" * size, "more_body": more})

    async def bare(self, message):
        await self.send(message)

    async def links(self, *links):
        await self.send({"type": "http.response.early_hint", "links": [link.encode() for link in links]})

    async def trailers(self, headers, more=False):
        await self.send({"type": "http.response.trailers", "headers": pairs(headers), "more_trailers": more})

    async def pathsend(self, path):
        await self.send({"type": "http.response.pathsend", "path": path})

    async def read(self):
        await read(self.receive)

    async def tell(self, path):
        """Report the next message's type and its body's size."""
        message = await self.receive()
        gates.signal(path, f"{message['type']} {len(message.get('body', b''))};".encode())

    async def wait(self, path):
        await gates.wait(path)

    async def signal(self, path):
        gates.signal(path)

    async def log(self, text):
        logging.getLogger("apps.http").error(text)

    async def fail(self):
        raise LookupError("by script")


@on("/script")
async def script(scope, receive, send):
    """Do the steps of the query; report the first that raises."""
    args = gates.query(scope["query_string"])
    doing = Steps(scope, receive, send)
    for name, *arguments in json.loads(args["steps"]):
        try:
            await getattr(doing, name)(*arguments)
        except BaseException as error:
            kind = "OSError" if isinstance(error, OSError) else type(error).__name__
            gates.signal(args.get("report"), f"{name} {kind}".encode())
            raise


@on("/lines")
async def count(scope, receive, send):
    """How many body messages came."""
    body, messages = await read(receive)
    await answer(send, json.dumps([messages, len(body)]).encode())


@on("/listen")
async def listen(scope, receive, send):
    """Read until the disconnect; report every message."""
    args = gates.query(scope["query_string"])
    gates.signal(args.get("started"))
    while True:
        message = await receive()
        text = message["type"]
        if text == "http.request":
            text += f" {len(message.get('body', b''))} {message.get('more_body', False)}"
        gates.signal(args["report"], f"{text};".encode())
        if message["type"] == "http.disconnect":
            return


@on("/events")
async def events(scope, receive, send):
    """Server-sent events; each waits for the test. The head goes out with the first body message, an empty one."""
    args = gates.query(scope["query_string"])
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    try:
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        for number in range(int(args["count"])):
            await gates.wait(args["gate"])
            body = b"id: %d\ndata: event %d\n\n" % (number, number)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except OSError:
        gates.signal(args.get("report"), b"os")
        raise


@on("/tiny")
async def tiny(scope, receive, send):
    """Single bytes without end; reports each 100,000."""
    args = gates.query(scope["query_string"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        for _ in range(100_000):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        gates.signal(args["report"])


@on("/hint-flood")
async def hint_flood(scope, receive, send):
    """Early hints without end; reports each 20,000."""
    args = gates.query(scope["query_string"])
    while True:
        for _ in range(20_000):
            await send({"type": "http.response.early_hint", "links": [b"x" * 1000]})
        gates.signal(args["report"])
