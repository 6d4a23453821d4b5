"""What a run does not use is not imported: HTTP/2, WebSocket, metrics, YAML, the command line's library."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import APPS

pytest.importorskip("pydantic")
pytest.importorskip("httptools")

SERVE = """
import asyncio, json, sys
from subpool.http.config import ServerConfig
from subpool.http.server import Server

async def main():
    server = Server(ServerConfig(app="asgi_app:app", workers=1, bind=["127.0.0.1:0"], pythonpath=[sys.argv[1]]))
    await server.start()
    port = int(server.addresses[0].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /hello HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
    answer = await reader.read()
    writer.close()
    await server.stop(1.0)
    assert answer.endswith(b"Hello, World!"), answer
    print(json.dumps(sorted(sys.modules)))

asyncio.run(main())
"""


def test_a_plain_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVE, APPS], capture_output=True, text=True, timeout=25, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "httptools" in loaded
    unused = {"h2", "hpack", "hyperframe", "wsproto", "h11", "prometheus_client", "yaml", "click", "rich", "redis"}
    assert not loaded & unused
