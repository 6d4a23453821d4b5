"""The Quart app in a pool of two workers: sends a few requests and prints the answers.

python examples/quart_app/run.py
"""

from __future__ import annotations

from pathlib import Path

import anyio

from subpool import AppError, Pool

FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nan upload\r\n--edge--\r\n"
)
HEADERS = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=edge")]


async def main() -> None:
    """Start the pool, ask, print."""
    here = Path(__file__).parent
    requests = [
        ("GET", "/json/Ada", b"times=3", b""),
        ("POST", "/upload", b"", FORM),
        ("GET", "/page", b"", b""),
        ("GET", "/missing", b"", b""),
        ("GET", "/error", b"", b""),
    ]
    async with Pool("quart_site:app", workers=2, pythonpath=[here]) as pool:
        for method, path, query, body in requests:
            scope = {
                "type": "http",
                "method": method,
                "path": path,
                "query_string": query,
                "headers": HEADERS,
            }
            try:
                answer = await pool.run_asgi(scope, body)
                print(path, answer.status, " ".join(answer.body.decode().split())[:100])
            except AppError as error:
                print(path, "raised", error.type_name, error.message)
        async with pool.stream_asgi({"type": "http", "path": "/stream"}) as stream:
            async for chunk in stream:
                print("/stream", stream.status, chunk.decode().strip())
        print("isolation:", pool.isolation)


if __name__ == "__main__":
    anyio.run(main)
