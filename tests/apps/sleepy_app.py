"""Handlers that sleep, and tell on which loop."""

import asyncio
import contextvars
import json
import time

from subpool import aio

name = contextvars.ContextVar("name")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("sleepy_app has no lifespan")
    told = {"loop": type(asyncio.get_running_loop()).__module__}
    if scope["path"] == "/for-ever":
        while True:
            await aio.sleep(0.01)
    elif scope["path"] == "/sleeps":
        name.set(scope["query_string"].decode())
        task, before, early = asyncio.current_task(), set(asyncio.all_tasks()), 0
        for sleep in (aio.sleep, asyncio.sleep):
            for delay in (0.0001, 0.001, 0.003):
                start = time.monotonic()
                early += await sleep(delay, "slept") != "slept" or time.monotonic() - start < delay - 1e-7
        told.update(early=early, name=name.get(), same=asyncio.current_task() is task and task in before)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def wsgi(environ, start_response):
    async def inner():
        await asyncio.gather(*(sleep(0.001) for sleep in (aio.sleep, asyncio.sleep)))
        return type(asyncio.get_running_loop()).__module__

    start_response("200 OK", [])
    return [asyncio.run(inner()).encode()]
