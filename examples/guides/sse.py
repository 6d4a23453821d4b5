"""Server-sent events: a browser's EventSource gets the time each second, and picks up where it was cut off.

subpool serve sse:app --pythonpath examples/guides
curl -N http://127.0.0.1:8000/events
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route

PAGE = """<!doctype html>
<title>Events</title>
<ol id="list"></ol>
<script>
new EventSource("/events").addEventListener("tick", (event) => {
  const item = document.createElement("li");
  item.textContent = JSON.parse(event.data).time;
  document.getElementById("list").append(item);
});
</script>
"""


async def page(request: Request) -> HTMLResponse:
    """A page that shows the events."""
    return HTMLResponse(PAGE)


async def events(request: Request) -> StreamingResponse:
    """The stream. An EventSource that comes again tells the last id it saw."""
    last = request.headers.get("last-event-id", "")
    first = int(last) + 1 if last.isdecimal() else 0
    interval = float(request.query_params.get("interval", 1))
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(ticks(first, interval), media_type="text/event-stream", headers=headers)


async def ticks(first: int, interval: float) -> AsyncIterator[str]:
    """Events without an end: Starlette stops asking for more when the client has left."""
    yield "retry: 1000\n\n"
    number = first
    while True:
        data = json.dumps({"number": number, "time": datetime.now(UTC).isoformat(timespec="seconds")})
        yield f"id: {number}\nevent: tick\ndata: {data}\n\n"
        number += 1
        await asyncio.sleep(interval)


app = Starlette(routes=[Route("/", page), Route("/events", events)])
