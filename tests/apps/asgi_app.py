"""A bare ASGI app whose paths each show one behaviour.

It does not support lifespan, so it raises, as ASGI says.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import sys
import threading

import gates

HTTP = {}
WEBSOCKET = {}
APP_CALLS = 0


def on(path, table=HTTP):
    """Register a handler for `path`."""

    def register(handler):
        table[path] = handler
        return handler

    return register


async def app(scope, receive, send):
    """Look the path up; an unknown one is an ordinary 404."""
    global APP_CALLS
    if scope["type"] == "lifespan":
        raise RuntimeError("asgi_app has no lifespan")
    APP_CALLS += 1
    table = WEBSOCKET if scope["type"] == "websocket" else HTTP
    await table.get(scope["path"], not_found)(scope, receive, send)


async def answer(send, body, status=200, headers=()):
    """One whole response."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    """The whole request body, and how many messages it came in."""
    chunks = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        chunks.append(message.get("body", b""))
        assert type(chunks[-1]) is bytes, type(chunks[-1])
        if not message.get("more_body", False):
            return b"".join(chunks), len(chunks)


async def not_found(scope, receive, send):
    await answer(send, b"not found", 404)


@on("/hello")
async def hello(scope, receive, send):
    await answer(send, b"Hello, World!", headers=[(b"content-type", b"text/plain")])


@on("/cookies")
async def cookies(scope, receive, send):
    pairs = [
        (b"set-cookie", b"a=1"),
        (b"x-between", b"yes"),
        (b"set-cookie", b"b=2"),
        (b"set-cookie", b"a=1"),
    ]
    await answer(send, b"", 204, pairs)


@on("/list-headers")
async def list_headers(scope, receive, send):
    """Header pairs as lists, which ASGI allows."""
    await answer(send, b"ok", headers=[[b"x-one", b"1"], [b"x-two", b"2"]])


@on("/echo")
async def echo(scope, receive, send):
    body, _ = await read(receive)
    await answer(send, body)


@on("/scope")
async def show_scope(scope, receive, send):
    """The scope as the app saw it, as a Python literal."""
    await answer(send, repr(dict(scope)).encode())


@on("/mutate")
async def mutate(scope, receive, send):
    """Change everything that a request's scope lets an app change."""
    scope["headers"].append((b"x-leak", b"yes"))
    for name in ("state", "extensions", "asgi"):
        scope.setdefault(name, {})["leak"] = True
    scope["method"] = scope["scheme"] = scope["http_version"] = scope["root_path"] = "LEAK"
    scope["leak"] = True
    await answer(send, b"changed")


@on("/worker")
async def worker(scope, receive, send):
    await answer(send, b"%d" % scope["extensions"]["subpool"]["worker"])


@on("/raise")
async def fail(scope, receive, send):
    def deeper():
        raise LookupError("no such thing: \u2603")

    deeper()


class OwnError(Exception):
    """An exception that only exists where the app runs."""


@on("/raise-own")
async def fail_own(scope, receive, send):
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise OwnError("ours") from error


@on("/silent")
async def silent(scope, receive, send):
    """Returns without a response."""


@on("/half")
async def half(scope, receive, send):
    """Returns in the middle of a response."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


@on("/start-only")
async def start_only(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


@on("/raise-half")
async def raise_half(scope, receive, send):
    await half(scope, receive, send)
    raise ValueError("in the middle")


STEPS = {
    "start": {"type": "http.response.start", "status": 200, "headers": []},
    "body": {"type": "http.response.body", "body": b"x"},
    "more": {"type": "http.response.body", "body": b"x", "more_body": True},
    "hint": {"type": "http.response.start", "status": 103, "headers": [(b"link", b"</a.css>")]},
    "link-crlf": {"type": "http.response.early_hint", "links": [b"</a.css>\r\nx: y"]},
    "unknown": {"type": "http.response.nonsense"},
    "websocket": {"type": "websocket.accept"},
    "untyped": {"status": 200},
    "status-0": {"type": "http.response.start", "status": 0, "headers": []},
    "status-1000": {"type": "http.response.start", "status": 1000, "headers": []},
    "status-str": {"type": "http.response.start", "status": "200", "headers": []},
    "status-none": {"type": "http.response.start", "headers": []},
    "crlf": {"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]},
    "nul": {"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\0b")]},
    "name-lf": {"type": "http.response.start", "status": 200, "headers": [(b"x\ny", b"a")]},
    "header-str": {"type": "http.response.start", "status": 200, "headers": [("x", "a")]},
    "two-lengths": {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-length", b"1"), (b"content-length", b"1")],
    },
    "length-1": {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]},
    "body-str": {"type": "http.response.body", "body": "x"},
    "body-xx": {"type": "http.response.body", "body": b"xx"},
}


@on("/steps")
async def steps(scope, receive, send):
    """Send the named messages; report through the pipe what the last one raised."""
    args = gates.query(scope["query_string"])
    *legal, last = args["steps"].split(",")
    for name in legal:
        await send(dict(STEPS[name]))
    try:
        await send(dict(STEPS[last]))
    except Exception as error:
        gates.signal(args.get("report"), type(error).__name__.encode())
        raise
    gates.signal(args.get("report"), b"accepted")


@on("/hints")
async def hints(scope, receive, send):
    await send(dict(STEPS["hint"]))
    await send(dict(STEPS["hint"]))
    await answer(send, b"final")


@on("/receive-after-end")
async def receive_after_end(scope, receive, send):
    """A `receive()` behind the last body message waits, and wakes with the disconnect."""
    args = gates.query(scope["query_string"])
    body, _ = await read(receive)
    waiter = asyncio.create_task(receive())
    for _ in range(50):
        await asyncio.sleep(0)
    early = waiter.done()
    await answer(send, body)
    message = await waiter
    again = await receive()
    gates.signal(args["report"], json.dumps([early, message["type"], again["type"]]).encode())


@on("/forever")
async def forever(scope, receive, send):
    """Wait until cancelled."""
    args = gates.query(scope["query_string"])
    gates.signal(args.get("started"))
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        gates.signal(args.get("cancelled"))
        raise


@on("/gate")
async def gate(scope, receive, send):
    """Wait for the test without holding the worker."""
    args = gates.query(scope["query_string"])
    gates.signal(args.get("started"))
    await gates.wait(args["gate"])
    await answer(send, b"through")


@on("/block")
async def block(scope, receive, send):
    """Wait for the test and hold the worker's thread meanwhile."""
    args = gates.query(scope["query_string"])
    gates.signal(args.get("started"))
    gates.block(args["gate"])
    await answer(send, b"through")


@on("/spin")
async def spin(scope, receive, send):
    """Hold the worker's thread in pure Python, after an await."""
    await asyncio.sleep(0)
    gates.signal(gates.query(scope["query_string"]).get("started"))
    while True:
        pass


@on("/deaf")
async def deaf(scope, receive, send):
    """Hold the worker's thread and swallow every exception until the test makes a file."""
    args = gates.query(scope["query_string"])
    gates.signal(args.get("started"))
    gates.spin(args["stop"])
    await answer(send, b"late")


@on("/gil")
async def gil(scope, receive, send):
    """A C call of some seconds that never gives up the GIL."""
    re.match("(x+x+)+y", "x" * 28)
    await answer(send, b"late")


@on("/nibble")
async def nibble(scope, receive, send):
    """Deaf too, and give up the GIL for a moment again and again."""
    gates.spin(gates.query(scope["query_string"])["stop"], 2_000)
    await answer(send, b"late")


@on("/stubborn")
async def stubborn(scope, receive, send):
    """Swallow the cancellation and answer late."""
    args = gates.query(scope["query_string"])
    gates.signal(args.get("started"))
    while True:
        try:
            await gates.wait(args["gate"])
            break
        except asyncio.CancelledError:
            continue
    await answer(send, b"late")


@on("/burn")
async def burn(scope, receive, send):
    gates.burn(float(scope["query_string"]))
    await answer(send, b"burnt")


@on("/exit")
async def leave(scope, receive, send):
    raise SystemExit(3)


@on("/interrupt")
async def interrupt(scope, receive, send):
    raise KeyboardInterrupt


@on("/os-exit")
async def os_exit(scope, receive, send):
    os._exit(3)


@on("/pid")
async def pid(scope, receive, send):
    await answer(send, b"%d" % os.getpid())


@on("/chunks")
async def chunks(scope, receive, send):
    """Ten numbered chunks and an empty end."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-streamed", b"yes")]})
    for number in range(10):
        await send({"type": "http.response.body", "body": b"chunk %d\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@on("/many")
async def many(scope, receive, send):
    """As many pieces as asked for, each as large as asked for; the end."""
    args = gates.query(scope["query_string"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(int(args["count"])):
        await send({"type": "http.response.body", "body": b"x" * int(args["size"]), "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


@on("/step-chunks")
async def step_chunks(scope, receive, send):
    """Two chunks; the second only after the test let it go."""
    args = gates.query(scope["query_string"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await gates.wait(args["gate"])
    await send({"type": "http.response.body", "body": b"second"})


@on("/endless")
async def endless(scope, receive, send):
    """64 KiB chunks without end; reports how many went out, and what stopped it."""
    args = gates.query(scope["query_string"])
    sent = 0
    chunk = b"x" * 65536
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while True:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            sent += 1
            if sent == 1:
                gates.signal(args.get("started"))
    except BaseException as error:
        kind = "os" if isinstance(error, OSError) else type(error).__name__
        gates.signal(args.get("report"), json.dumps([sent, kind]).encode())
        raise


@on("/big")
async def big(scope, receive, send):
    """A body of the size asked for, in one message."""
    await answer(send, b"b" * int(scope["query_string"]))


@on("/digest")
async def digest(scope, receive, send):
    """Reads the body message by message; never holds it whole."""
    args = gates.query(scope["query_string"])
    size, widest, hasher = 0, 0, hashlib.sha256()
    if "gate" in args:
        gates.signal(args.get("started"))
        await gates.wait(args["gate"])
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            gates.signal(args.get("report"), b"disconnect")
            return
        hasher.update(message["body"])
        size += len(message["body"])
        widest = max(widest, len(message["body"]))
        if not message.get("more_body"):
            break
    await answer(send, json.dumps([size, widest, hasher.hexdigest()]).encode())


@on("/log")
async def log(scope, receive, send):
    logging.getLogger("apps.asgi").warning("a warning from %s", "the worker", extra={"colour": "blue"})
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("apps.asgi").exception("a failure")
    await answer(send, b"logged")


@on("/print")
async def show(scope, receive, send):
    text = gates.query(scope["query_string"])["text"]
    print(text)
    print("err", text, file=sys.stderr)
    await answer(send, b"printed")


@on("/import")
async def import_module(scope, receive, send):
    __import__(scope["query_string"].decode())
    await answer(send, b"imported")


@on("/linger")
async def linger(scope, receive, send):
    """Leave an ordinary thread behind that runs until the test lets it go."""
    path = gates.query(scope["query_string"])["gate"]
    threading.Thread(target=gates.block, args=(path,), name="left-behind").start()
    await answer(send, b"left")


@on("/calls")
async def calls(scope, receive, send):
    """How often the app has been called in this copy, this call included."""
    await answer(send, b"%d" % APP_CALLS)


@on("/echo", WEBSOCKET)
async def ws_echo(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    chosen = scope["subprotocols"][0] if scope.get("subprotocols") else None
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-ws", b"yes")]})
    await send({"type": "websocket.send", "text": "welcome"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            report = gates.query(scope["query_string"]).get("report")
            gates.signal(report, json.dumps([message["code"], message.get("reason") or ""]).encode())
            return
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


@on("/many", WEBSOCKET)
async def ws_many(scope, receive, send):
    """As many messages as asked for, each as large as asked for."""
    args = gates.query(scope["query_string"])
    await receive()
    await send({"type": "websocket.accept"})
    for _ in range(int(args["count"])):
        await send({"type": "websocket.send", args["kind"]: "x" * int(args["size"])})
    await send({"type": "websocket.close"})


@on("/deny", WEBSOCKET)
async def ws_deny(scope, receive, send):
    await receive()
    await send({"type": "websocket.close", "code": 4403, "reason": "no"})


@on("/deny-response", WEBSOCKET)
async def ws_deny_response(scope, receive, send):
    """A denial with a response of its own, where that is offered (ASGI extension websocket.http.response)."""
    assert "websocket.http.response" in scope["extensions"]
    await receive()
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]})
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"are you?"})


@on("/close", WEBSOCKET)
async def ws_close(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "last"})
    await send({"type": "websocket.close", "code": 4001, "reason": "done"})


@on("/push", WEBSOCKET)
async def ws_push(scope, receive, send):
    """A background task pushes while the handler waits."""
    await receive()
    await send({"type": "websocket.accept"})

    async def push():
        for number in range(5):
            await send({"type": "websocket.send", "text": str(number)})

    task = asyncio.create_task(push())
    await receive()
    await task
    await send({"type": "websocket.close"})


@on("/raise", WEBSOCKET)
async def ws_raise(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    raise LookupError("in the socket")


@on("/raise-early", WEBSOCKET)
async def ws_raise_early(scope, receive, send):
    await receive()
    raise LookupError("before the accept")


@on("/flood", WEBSOCKET)
async def ws_flood(scope, receive, send):
    """Push without end; reports how many went out when it is stopped."""
    args = gates.query(scope["query_string"])
    await receive()
    await send({"type": "websocket.accept"})
    sent = 0
    try:
        while True:
            await send({"type": "websocket.send", "bytes": b"x" * 65536})
            sent += 1
    except BaseException:
        gates.signal(args["report"], b"%d" % sent)
        raise


@on("/here")
async def here(scope, receive, send):
    """What a handler, a task and a thread of it find: is it the worker that the scope names?"""
    import asyncio

    from subpool.here import worker

    async def later():
        await asyncio.sleep(0)
        return worker().id

    found = [worker().id, await asyncio.create_task(later()), (await asyncio.to_thread(worker)).id]
    own = scope["extensions"]["subpool"]["worker"]
    await answer(send, b"%s" % str([one == own for one in found]).encode())
