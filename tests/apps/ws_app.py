"""A bare ASGI app of WebSockets: each path shows one behaviour. Paths of HTTP answer with their name, /begun
with `BEGUN`.

`report`, `started` and `gate` in the query are pipes of the test, see `gates`.
"""

import asyncio
import json
import os

import gates

WEBSOCKET = {}
BEGUN = []  # what was called, in order


def on(path):
    """Register a handler for `path`; it is given the query too."""

    def register(handler):
        WEBSOCKET[path] = handler
        return handler

    return register


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("ws_app has no lifespan")
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        text = json.dumps(BEGUN) if scope["path"] == "/begun" else scope["path"]
        await send({"type": "http.response.body", "body": text.encode()})
        return
    path = scope["path"].removeprefix("/mounted")
    BEGUN.append(path)
    await WEBSOCKET[path](scope, receive, send, gates.query(scope["query_string"]))


def report(query, what):
    gates.signal(query.get("report"), json.dumps(what).encode())


async def accept(receive, send, **fields):
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **fields})


def content(message):
    """What a `websocket.receive` holds."""
    return message["text"] if message.get("text") is not None else message["bytes"]


@on("/echo")
async def echo(scope, receive, send, query):
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    report(query, [message["code"], message["reason"]])


@on("/scope")
async def show_scope(scope, receive, send, query):
    await accept(receive, send, subprotocol=query.get("choose"), headers=[(b"X-Mine", b"1"), (b"x-mine", b"2")])
    plain = {name: value for name, value in scope.items() if name not in ("state", "asgi")}
    await send({"type": "websocket.send", "text": json.dumps(plain, default=lambda value: value.decode("latin-1"))})
    await send({"type": "websocket.close"})


@on("/behind-accept")
async def behind_accept(scope, receive, send, query):
    """Everything at once, and no word of the client awaited."""
    await accept(receive, send)
    for number in range(3):
        await send({"type": "websocket.send", "text": str(number)})


@on("/accept")
async def odd_accept(scope, receive, send, query):
    headers = [(query["header"].encode(), b"x")] if "header" in query else []
    await accept(receive, send, subprotocol=query.get("subprotocol"), headers=headers)
    await receive()


@on("/close")
async def close(scope, receive, send, query):
    await accept(receive, send)
    await send({"type": "websocket.close", "code": int(query["code"]), "reason": query.get("reason", "")})
    message = await receive()
    report(query, [message["type"], message.get("code")])


@on("/deny")
async def deny(scope, receive, send, query):
    assert "websocket.http.response" in scope["extensions"]
    await receive()
    headers = [(b"x-why", b"because")]
    if "length" in query:
        headers.append((b"content-length", query["length"].encode()))
    await send({"type": "websocket.http.response.start", "status": int(query["status"]), "headers": headers})
    pieces = [b"x" * int(size) for size in query.get("pieces", "0").split(",")]
    for piece in pieces[:-1]:
        await send({"type": "websocket.http.response.body", "body": piece, "more_body": True})
    if "raise" in query:
        raise LookupError("in a denial")
    await send({"type": "websocket.http.response.body", "body": pieces[-1]})
    report(query, [(await receive())["type"]])


@on("/refuse")
async def refuse(scope, receive, send, query):
    await receive()
    await send({"type": "websocket.close", "code": 4403, "reason": "no"})
    report(query, [(await receive())["type"]])


@on("/raise")
async def raise_(scope, receive, send, query):
    await receive()
    if "early" not in query:
        await send({"type": "websocket.accept"})
    raise LookupError("in the socket")


@on("/surrogate")
async def surrogate(scope, receive, send, query):
    await accept(receive, send)
    await send({"type": "websocket.send", "text": "\ud800"})
    report(query, [(await receive())["type"]])


@on("/exit")
async def exit_(scope, receive, send, query):
    await receive()
    if "early" not in query:
        await send({"type": "websocket.accept"})
        await receive()
    os._exit(3)


@on("/late")
async def late(scope, receive, send, query):
    """Does not ask for anything until the gate opens; then reports the types and sizes of all that came."""
    if "accept" in query:
        await accept(receive, send)
    gates.signal(query.get("started"))
    await gates.wait(query["gate"])
    came = []
    while not came or came[-1][0] != "websocket.disconnect":
        message = await receive()
        size = len(content(message)) if message["type"] == "websocket.receive" else message.get("code")
        came.append([message["type"], size])
    report(query, came)


@on("/hold")
async def hold(scope, receive, send, query):
    """Holds its thread until the gate opens; then reports all that it hears and, when it has waited, how it ends."""
    gates.signal(query.get("started"))
    gates.block(query["gate"])
    came = []
    try:
        while not came or came[-1][0] != "websocket.disconnect":
            message = await receive()
            came.append([message["type"], message.get("code")])
        await asyncio.sleep(0)
        await send({"type": "websocket.accept"})
    except BaseException as error:
        came.append([type(error).__name__, None])
    report(query, came)


@on("/stay")
async def stay(scope, receive, send, query):
    """Does not go when it is told to; reports what ends it."""
    await accept(receive, send)
    message = await receive()
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        report(query, [message["type"], message["code"], type(error).__name__])
        raise


@on("/count")
async def count(scope, receive, send, query):
    """Reads everything once the gate opens; answers "end" with how many bytes came, and whether all were as sent."""
    await accept(receive, send)
    await gates.wait(query["gate"])
    total, right = 0, True
    while (message := await receive())["type"] == "websocket.receive":
        data = content(message)
        if data == "end":
            await send({"type": "websocket.send", "text": json.dumps([total, right])})
            continue
        right = right and data == bytes([total // (len(data) or 1) % 256]) * len(data)
        total += len(data)


@on("/flood")
async def flood(scope, receive, send, query):
    """Sends numbered messages without end; reports how many went out when it is stopped."""
    await accept(receive, send)
    sent = 0
    try:
        while True:
            await send({"type": "websocket.send", "bytes": b"%08d" % sent + b"x" * 65528})
            sent += 1
    finally:
        report(query, sent)


@on("/tiny")
async def tiny(scope, receive, send, query):
    """Messages of `size` bytes, or characters, without end; reports each 20,000."""
    await accept(receive, send)
    size = int(query["size"])
    message = {"text": "x" * size} if "text" in query else {"bytes": b"x" * size}
    while True:
        for _ in range(20_000):
            await send({"type": "websocket.send", **message})
        gates.signal(query["report"])


@on("/push")
async def push(scope, receive, send, query):
    """A background task pushes when the test says so, while the handler waits."""
    await accept(receive, send)

    async def pushing():
        for number in range(3):
            await gates.wait(query["gate"])
            await send({"type": "websocket.send", "text": str(number)})

    task = asyncio.create_task(pushing())
    await receive()
    task.cancel()


@on("/slow")
async def slow(scope, receive, send, query):
    """Accepts when the gate opens."""
    assert (await receive())["type"] == "websocket.connect"
    gates.signal(query.get("started"))
    try:
        await gates.wait(query["gate"])
        await send({"type": "websocket.accept"})
    except BaseException as error:
        report(query, [type(error).__name__])
        raise
    report(query, [(await receive())["type"]])
