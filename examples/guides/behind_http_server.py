"""The pool in a program with threads and without an event loop: http.server does the HTTP, the workers run the app.

The argument is the port; 0 takes a free one.

python examples/guides/behind_http_server.py 8000
curl http://127.0.0.1:8000/some/where
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote_to_bytes

from subpool import Pool, SubpoolError
from subpool.blocking import BlockingPool


class Handler(BaseHTTPRequestHandler):
    """Turns a request into an environ, and the pool's answer into a response."""

    pool: BlockingPool

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length", 0))
        environ = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(length),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": str(self.connection.getsockname()[1]),
            "SERVER_PROTOCOL": self.request_version,
            "wsgi.url_scheme": "http",
            "wsgi.input": self.rfile.read(length),
        }
        for name in self.headers:
            if "_" not in name and name.lower() not in ("content-type", "content-length"):
                environ["HTTP_" + name.upper().replace("-", "_")] = ",".join(self.headers.get_all(name, ()))
        try:
            status, headers, body = self.pool.run_wsgi(environ)
        except SubpoolError as error:
            self.send_error(500, explain=type(error).__name__)
            return
        self.send_response(int(status[:3]), status[4:])
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server looks for


def main(port: int) -> None:
    """Serve until interrupted."""
    with (
        Pool.blocking("wsgi_hello:application", workers=2, pythonpath=[Path(__file__).parent]) as Handler.pool,
        ThreadingHTTPServer(("127.0.0.1", port), Handler) as server,
    ):
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
