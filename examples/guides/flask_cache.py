"""A Flask app that counts its visits and caches what is slow to compute.

Both live in the worker: each worker counts its own visits and computes once for itself.

subpool serve flask_cache:app --pythonpath examples/guides
curl http://127.0.0.1:8000/
curl 'http://127.0.0.1:8000/api/primes?below=1000'
"""

from __future__ import annotations

import itertools
from functools import lru_cache

from flask import Flask, Response, abort, jsonify, request

app = Flask(__name__)
visits = itertools.count(1)


@app.get("/")
def index() -> str:
    """How often this worker was asked."""
    return f"Visits to this worker: {next(visits)}\n"


@app.get("/api/primes")
def data() -> Response:
    """The primes below a limit, and how often the cache could answer."""
    below = request.args.get("below", 100, type=int)
    if not 0 < below <= 100_000:
        abort(400, "below must be from 1 to 100000")
    return jsonify(below=below, primes=primes(below), hits=primes.cache_info().hits)


@lru_cache(maxsize=32)
def primes(below: int) -> list[int]:
    """The sieve of Eratosthenes."""
    is_prime = bytearray([1]) * below
    for number in range(2, int(below**0.5) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(range(number * number, below, number)))
    return [number for number in range(2, below) if is_prime[number]]
