"""The pool without a server: builds scopes and environs, sends them, prints the answers.

python examples/guides/from_python.py
"""

from __future__ import annotations

from pathlib import Path

import anyio

from subpool import AppError, Pool, build_scope

SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/divide",
    "query_string": b"a=7&b=2",
    "headers": [(b"host", b"localhost:8080")],
    "server": ("localhost", 8080),
    "client": ("127.0.0.1", 54321),
}
ENVIRON = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/api/users",
    "QUERY_STRING": "id=123",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "8080",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.url_scheme": "http",
    "wsgi.input": b"",
}


async def main() -> None:
    """A few calls, whole answers."""
    async with Pool("asgi_errors:app", workers=2, pythonpath=[Path(__file__).parent]) as pool:
        status, headers, body = await pool.run_asgi(SCOPE)
        print("ASGI:", status, headers, body)

        template = build_scope(SCOPE)  # checked and packed once, for requests that differ little
        for divisor in (3, 0):
            answer = await pool.run_asgi(template.replace(query_string=b"a=7&b=%d" % divisor))
            print("ASGI:", answer.status, answer.body)

        try:
            await pool.run_asgi(template.replace(path="/late"))
        except AppError as error:  # a server answers 500, or cuts the connection
            print("ASGI:", error.type_name, error.message)

        line, pairs, body = await pool.run_wsgi(ENVIRON, app="wsgi_hello:application")
        print("WSGI:", line, pairs, body)


if __name__ == "__main__":
    anyio.run(main)
