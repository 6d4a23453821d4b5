"""A Flask app that counts its visits and caches what is slow to compute, in the state that all workers share.

subpool serve flask_cache:app --pythonpath examples/guides
curl http://127.0.0.1:8000/
curl 'http://127.0.0.1:8000/api/primes?below=1000'
"""

from __future__ import annotations

from flask import Flask, Response, abort, jsonify, request

from subpool import state

app = Flask(__name__)


@app.get("/")
def index() -> str:
    """How often this site was asked, whichever worker answered."""
    return f"Visits: {state.incr('visits')}\n"


@app.get("/api/primes")
def data() -> Response:
    """The primes below a limit, and how often the cache could answer."""
    below = request.args.get("below", 100, type=int)
    if not 0 < below <= 100_000:
        abort(400, "below must be from 1 to 100000")
    found = state.cached(primes, below, ttl=300)  # computed once for all workers, and again after 5 minutes
    return jsonify(below=below, primes=found, hits=state.cache_stats()["hits"])


def primes(below: int) -> list[int]:
    """The sieve of Eratosthenes."""
    is_prime = bytearray([1]) * below
    for number in range(2, int(below**0.5) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(range(number * number, below, number)))
    return [number for number in range(2, below) if is_prime[number]]
