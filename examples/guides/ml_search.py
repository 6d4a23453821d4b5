"""Search by likeness: one numpy model on the host, called from all workers, with answers that they share.

subpool serve ml_search:app --pythonpath examples/guides --function model=ml_model:Model
curl 'http://127.0.0.1:8000/search?text=green+tee'
curl http://127.0.0.1:8000/model

numpy refuses sub-interpreters, and a large model in each process would take its memory many times. `ml_model` is
imported by the helper alone; the workers call its methods by name. It runs under subpool alone.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from subpool import AppError, acall, state


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """`/search?text=...`, `/model`."""
    if scope["type"] != "http":
        raise RuntimeError("this app has neither a lifespan nor WebSockets")
    answer: Any
    status = 200
    if scope["path"] == "/search":
        text = parse_qs(scope["query_string"].decode()).get("text", [""])[0]
        status, answer = await search(text)
    elif scope["path"] == "/model":
        answer = await acall("model.about")
    else:
        status, answer = 404, {"error": "ask /search?text=... or /model"}
    worker = str(scope["extensions"]["subpool"]["worker"]).encode()
    headers = [(b"content-type", b"application/json"), (b"x-worker", worker)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode() + b"\n"})


async def search(text: str) -> tuple[int, Any]:
    """The model is asked once for each text, whichever workers are asked for it; what it refuses is a 400."""
    try:
        found = await state.acached(acall, "model.search", text, key=("search", text), ttl=300)
    except AppError as error:
        if error.type_name != "ValueError":
            raise
        return 400, {"error": error.message}
    return 200, [{"title": title, "likeness": likeness} for title, likeness in found]
