"""A chat: what one says in a room, all in the room hear. Open the page in two tabs.

The rooms are in the memory of one worker, so there is but one. (ASGI has no way from worker to worker of its own.)

subpool serve ws_chat:app --pythonpath examples/guides --workers 1
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PAGE = """<!doctype html>
<title>Chat</title>
<form><input autofocus placeholder="say something"></form>
<ul></ul>
<script>
const name = Math.random().toString(36).slice(2, 6);
const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/chat/lobby?name=${name}`);
const input = document.querySelector("input");
socket.onmessage = (event) => {
  const item = document.createElement("li");
  item.textContent = event.data;
  document.querySelector("ul").append(item);
};
document.querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  socket.send(input.value);
  input.value = "";
};
</script>
"""

rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def page(request: Request) -> HTMLResponse:
    """A page to chat with."""
    return HTMLResponse(PAGE)


async def chat(socket: WebSocket) -> None:
    """One member of a room, from coming to going."""
    room, name = socket.path_params["room"], socket.query_params.get("name", "someone")
    await socket.accept()
    rooms[room].add(socket)
    try:
        await tell(room, f"{name} came, {len(rooms[room])} here")
        async for text in socket.iter_text():
            await tell(room, f"{name}: {text}")
    finally:
        rooms[room].discard(socket)
        await tell(room, f"{name} left, {len(rooms[room])} here")
        if not rooms[room]:
            del rooms[room]


async def tell(room: str, text: str) -> None:
    """Send to all at once. Who has gone meanwhile is taken out by its own call of `chat`."""

    async def one(member: WebSocket) -> None:
        try:
            await member.send_text(text)
        except (OSError, RuntimeError, WebSocketDisconnect):
            pass

    await asyncio.gather(*(one(member) for member in set(rooms[room])))


app = Starlette(routes=[Route("/", page), WebSocketRoute("/chat/{room}", chat)])
