"""Calls with a runner of our own, tenant_runner.py, between the worker and the app.

python examples/guides/custom_runners.py
"""

from __future__ import annotations

import json
from pathlib import Path

import anyio

from subpool import Pool


async def main() -> None:
    """The same apps as ever: the runner tells them whose request it is."""
    async with Pool("asgi_scope:app", workers=2, pythonpath=[Path(__file__).parent]) as pool:
        scope = {"type": "http", "path": "/", "headers": [(b"host", b"acme.example.com")]}
        answer = await pool.run_asgi(scope, runner="tenant_runner")
        print("ASGI state:", json.loads(answer.body)["state"])
        print("ASGI headers:", answer.headers)

        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "globex.example.com",
            "wsgi.url_scheme": "http",
            "wsgi.input": b"",
        }
        reply = await pool.run_wsgi(environ, app="wsgi_environ:application", runner="tenant_runner")
        print("WSGI environ:", *(line for line in reply.body.decode().splitlines() if "tenant" in line))
        print("WSGI headers:", reply.headers)

        plain = await pool.run_asgi(scope)
        print("without it:", json.loads(plain.body)["state"], plain.headers)


if __name__ == "__main__":
    anyio.run(main)
