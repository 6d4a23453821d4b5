"""Hooks on the host: a key is asked for, clients have so many requests a second, and what fails is answered in JSON.

subpool serve asgi_scope:app --pythonpath examples/guides --config examples/guides/hooks_gate.yaml
curl -i http://127.0.0.1:8000/
curl -i -H 'x-api-key: open-sesame' http://127.0.0.1:8000/

The hooks run in the server's own process, before any worker: the limit is one for all of its workers. They hold up
every other request while they run, so they are short. `limit` runs first: who guesses keys is slowed down too.
"""

from __future__ import annotations

import json
import time

from subpool import PoolOverloaded, PoolTimeout, Request, Response, ResponseHead

KEYS = {"open-sesame": "ada", "abracadabra": "grace"}
RATE = 5.0  # requests a second, in the long run
BURST = 10.0  # that may come at once
MOST = 10_000  # clients that are remembered

_buckets: dict[str, tuple[float, float]] = {}  # what is left for a client, and since when


def limit(request: Request) -> Response | None:
    """A token bucket for each address."""
    client = request.client[0] if request.client is not None else "unix"
    now = time.monotonic()
    left, since = _buckets.pop(client, (BURST, now))
    left = min(BURST, left + (now - since) * RATE)
    _buckets[client] = max(0.0, left - 1.0), now  # it is the last to be forgotten
    if len(_buckets) > MOST:
        del _buckets[next(iter(_buckets))]
    if left >= 1.0:
        return None
    wait = str(int((1.0 - left) / RATE) + 1).encode()
    return Response(429, [(b"content-type", b"text/plain"), (b"retry-after", wait)], b"too many requests\n")


def authenticate(request: Request) -> Response | None:
    """Who asks is told to the app in a header, which no client can set itself."""
    user = KEYS.get(request.get("x-api-key") or "")
    request.remove("x-api-key")
    request.remove("x-user")
    if user is None:
        return Response(401, [(b"www-authenticate", b"ApiKey")], b"an x-api-key is needed\n")
    request.context["user"] = user
    request.set("x-user", user)
    return None


def harden(request: Request, response: ResponseHead) -> None:
    """Headers that every response has, whoever made it."""
    response.set("x-content-type-options", "nosniff")
    if "user" in request.context:
        response.set("cache-control", "private")


def apologise(request: Request, error: Exception) -> Response:
    """An error of the app or the pool as JSON."""
    status = 504 if isinstance(error, PoolTimeout) else 503 if isinstance(error, PoolOverloaded) else 500
    body = json.dumps({"error": type(error).__name__, "request": request.id}).encode()
    return Response(status, [(b"content-type", b"application/json")], body)
