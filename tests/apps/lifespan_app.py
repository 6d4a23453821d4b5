"""Apps with a lifespan, one for each way it can go.

They report to the pipe that the environment variable LIFESPAN_PIPE names.
"""

import os

import gates

PIPE = os.environ.get("LIFESPAN_PIPE", "")


async def serve(scope, receive, send):
    """Shows the state, then changes it."""
    body = repr(sorted(scope.get("state", {}).items())).encode()
    scope["state"]["request"] = "own"
    if scope["path"] == "/gate":
        args = gates.query(scope["query_string"])
        gates.signal(args["started"])
        await gates.wait(args["gate"])
        gates.signal(PIPE, b"g")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def app(scope, receive, send):
    """A well-behaved app."""
    if scope["type"] != "lifespan":
        return await serve(scope, receive, send)
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["started"] = "yes"
    scope["state"]["shared"] = []
    gates.signal(PIPE, b"+")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    gates.signal(PIPE, b"-")
    await send({"type": "lifespan.shutdown.complete"})


async def failing(scope, receive, send):
    """Says that it cannot start."""
    if scope["type"] != "lifespan":
        return await serve(scope, receive, send)
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database at db.example"})


async def raising(scope, receive, send):
    """Raises before startup.complete: 'not supported' under auto (ASGI Lifespan 2.0)."""
    if scope["type"] != "lifespan":
        return await serve(scope, receive, send)
    await receive()
    raise LookupError("unsupported here")


async def strict(scope, receive, send):
    """Fails any call that is no HTTP request: shows that 'off' never calls it."""
    if scope["type"] != "http":
        gates.signal(PIPE, b"!")
        raise AssertionError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"strict"})


async def raising_late(scope, receive, send):
    """Starts well and raises in its shutdown."""
    if scope["type"] != "lifespan":
        return await serve(scope, receive, send)
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise LookupError("at the end")


async def hanging(scope, receive, send):
    """Starts well and never ends its shutdown."""
    if scope["type"] != "lifespan":
        return await serve(scope, receive, send)
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await gates.wait(PIPE)


async def silent(scope, receive, send):
    """Returns from lifespan without a word."""
    if scope["type"] != "lifespan":
        return await serve(scope, receive, send)
