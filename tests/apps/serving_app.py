"""An app for the faults of serving, once for ASGI and once for WSGI: what takes long, what streams, what is left."""

import asyncio
import collections
import gc
import json
import os
import time

import gates

LEFT = ("subpool.", "h2.", "_asyncio", "asyncio.", "uvloop.loop")  # modules whose objects are told


def left():
    """How many objects of ours, of h2 and of asyncio this interpreter has, by type; its host's too if both are one."""
    gc.collect()
    kinds = collections.Counter()
    for one in gc.get_objects():
        kind = type(one)
        if isinstance(module := kind.__module__, str) and module.startswith(LEFT):
            kinds[f"{module}.{kind.__qualname__}"] += 1
    return json.dumps(kinds).encode()


async def answer(send, body):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def asgi(scope, receive, send):
    if scope["type"] == "websocket":
        return await socket(scope, receive, send)
    path, query = scope["path"], scope["query_string"].decode()
    if path == "/sleep":
        await asyncio.sleep(float(query))
    elif path == "/burn":
        gates.burn(float(query))
    elif path == "/pid":
        return await answer(send, b"%d" % os.getpid())
    elif path == "/left":
        return await answer(send, left())
    elif path == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        return None
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:  # until `send` raises
            await send({"type": "http.response.body", "body": bytes(int(query)), "more_body": True})
    elif path == "/upload":
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return None
    await answer(send, b"done")


async def socket(scope, receive, send):
    """Echo, and a flood."""
    await receive()
    await send({"type": "websocket.accept"})
    while scope["path"] == "/flood":
        await send({"type": "websocket.send", "bytes": bytes(20_000)})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


def wsgi(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    body = b"done"
    if path == "/sleep":
        time.sleep(float(query))
    elif path == "/burn":
        gates.burn(float(query))
    elif path == "/pid":
        body = b"%d" % os.getpid()
    elif path == "/left":
        body = left()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
