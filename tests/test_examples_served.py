"""Every example behind the server, started as its docstring says, asked by real clients: curl, httpx, websockets, wrk.

The commands of the guides' docstrings are run as they stand, but for the address.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("httptools")
pytest.importorskip("httpx")

import httpx
from conftest import DEADLINE, EXAMPLES
from test_frameworks import DATA, DIGEST, FASTAPI, FORM, FORM_TYPE, SITES, Site

ADDRESS = "http://127.0.0.1:8000"


@contextlib.contextmanager
def command(line: str, **environment: str) -> Iterator[str]:
    """Run a `subpool serve` command, from the project's folder, on a free port; its address. It ends well."""
    words = shlex.split(line)
    assert words[:2] == ["subpool", "serve"]
    child = subprocess.Popen(
        [sys.executable, "-m", "subpool", *words[1:], "--bind", "127.0.0.1:0", "--workers", "1"],
        cwd=EXAMPLES.parent, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    said: list[str] = []
    assert child.stderr is not None
    try:
        address = None
        while address is None:
            said.append(child.stderr.readline())
            assert said[-1], "".join(said)
            address = re.search(r"listening on (http://\S+)", said[-1])
        reader = threading.Thread(target=lambda: said.extend(child.stderr or ()))
        reader.start()
        yield address[1]
        child.terminate()
        assert child.wait(DEADLINE) == 0, "".join(said)
        reader.join(DEADLINE)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        child.stderr.close()


def guides() -> dict[str, list[str]]:
    """The modules of examples/guides that a server runs: the lines of their docstrings that are commands."""
    found = {}
    for path in sorted((EXAMPLES / "guides").glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines = [line for line in text.splitlines() if line.startswith(("subpool serve ", "curl ", "python -m "))]
        if lines and lines[0].startswith("subpool serve"):
            found[path.stem] = lines
    return found


GUIDES = guides()
NEEDS = {"flask_cache": "flask", "bottle_status": "bottle", "fastapi_items": "fastapi", "ws_chat": "starlette",
         "starlette_users": "starlette", "sse": "starlette", "ml_search": "numpy"}  # fmt: skip
# what the first curl lines print, in their order
SHOWN: dict[str, list[str]] = {
    "asgi_errors": [r"3\.5\n$", "400 Bad Request", "500 Internal", "the first half"],
    "asgi_hello": ["^Hello from ASGI!\n$"],
    "asgi_hints": [r"(?s)^HTTP/1\.1 103 .*link: </style\.css>.*HTTP/1\.1 200 OK", r"^HTTP/1\.1 103 "],
    "asgi_middleware": ["(?i)server-timing: app;dur="],
    "asgi_scope": ["b:x-colour"],
    "bottle_status": ['"status": "ok"'],
    "fastapi_items": ['"tea"', '"mood"'],
    "files": ["wsgi.file_wrapper"],
    "flask_cache": ["1\n$", "997"],
    "hooks_gate": ["^HTTP/1.1 401 ", "(?s)^HTTP/1.1 200 .*path"],
    "lifespan_state": ['"mood"'],
    "ml_search": ['^.{2}"title": "green tea", ', r'"number": 1, "shape": \[7, 512\]'],
    "request_body": ['"longest": *"three"|"words": *2', '"sha256"'],
    "starlette_users": ['"Ada"'],
    "uploads": ['"sha256"'],
    "wsgi_environ": ["HTTP_X_COLOUR = 'blue'"],
    "wsgi_errors": [r"3\.5\n$", "400 ", "500 ", "the first half"],
    "wsgi_hello": ["You asked for /some/where\n"],
    "wsgi_hints": [r"(?s)^HTTP/1\.1 103 .*HTTP/1\.1 200 OK"],
    "wsgi_middleware": ["(?i)x-content-type-options: nosniff"],
}
ENDLESS = ("sse", "streaming", "ws_chat", "ws_echo", "ws_rooms")  # asked below, or in test_services_server


@pytest.mark.parametrize("name", sorted(set(GUIDES) - set(ENDLESS)))
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_guides(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    serve, *asks = GUIDES[name]
    with command(serve, FILES_ROOT="examples/guides") as address:
        curls = [line.replace(ADDRESS, address) for line in asks if line.startswith("curl")]
        assert len(curls) == len(SHOWN[name])
        for line, expected in zip(curls, SHOWN[name], strict=True):
            assert address in line
            done = subprocess.run(
                [*shlex.split(line), "-sS", "--max-time", "10", "--noproxy", "*"],
                cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=DEADLINE, check=False,
            )  # fmt: skip
            assert re.search(expected, done.stdout), (line, done)
            assert done.returncode == 0 or (line.endswith("/late") and "transfer closed" in done.stderr), (line, done)


def test_event_source() -> None:
    """What a browser's EventSource does: reads events as they come, and resumes behind the last one it saw."""
    pytest.importorskip("starlette")
    with command(GUIDES["sse"][0]) as address, httpx.Client(base_url=address, timeout=DEADLINE) as client:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        last = -1
        for _ in range(2):
            with client.stream("GET", "/events?interval=0.02", headers=headers) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                fields = (line.partition(": ") for line in answer.iter_lines())
                ids = (int(value) for name, _, value in fields if name == "id")
                for number in (last + 1, last + 2, last + 3):
                    assert next(ids) == number
                last += 3
            headers["last-event-id"] = str(last)


def test_a_stream_comes_as_it_is_made() -> None:
    with command(GUIDES["streaming"][0]) as address, httpx.Client(base_url=address, timeout=DEADLINE) as client:
        with client.stream("GET", "/?lines=3&interval=0.01") as answer:
            assert list(answer.iter_lines()) == ["line 0", "line 1", "line 2", "done"]
        with client.stream("GET", "/?lines=2&interval=1") as answer:
            assert next(answer.iter_lines()) == "line 0"


def test_websocket_guides() -> None:
    websockets = pytest.importorskip("websockets")
    pytest.importorskip("starlette")

    async def talk(address: str, path: str, *others: str) -> list[Any]:
        async with asyncio.timeout(DEADLINE), contextlib.AsyncExitStack() as stack:
            url = address.replace("http", "ws")
            first, *rest = [await stack.enter_async_context(websockets.connect(url + one)) for one in (path, *others)]
            await first.send("hello")
            return [await one.recv() for one in (first, *rest)]

    with command(GUIDES["ws_echo"][0]) as address:
        assert asyncio.run(talk(address, "/")) == ["hello"]
    with command(GUIDES["ws_chat"][0]) as address:
        assert "new WebSocket(" in httpx.get(address).text
        heard = asyncio.run(talk(address, "/chat/lobby?name=a", "/chat/lobby?name=b"))
        assert heard


@pytest.mark.parametrize("site", [*SITES, FASTAPI], ids=[site.folder for site in (*SITES, FASTAPI)])
def test_sites(site: Site, tmp_path: Path) -> None:
    """JSON, an upload, a page, a stream, errors: over HTTP/1.1 and HTTP/2."""
    if site.framework:
        pytest.importorskip(site.framework)
    line = f"subpool serve {site.app} --pythonpath examples/{site.folder} --interface {site.interface}"
    with command(line, DJANGO_SITE_DATA=str(tmp_path / "data"), PYTHONWARNINGS="ignore") as address:
        for how in ({}, {"http1": False, "http2": True}):
            with httpx.Client(base_url=address, timeout=DEADLINE, **how) as client:
                answer = client.get("/json/Ada", params={"times": 3})
                assert (answer.status_code, answer.json()["hello"], answer.json()["times"]) == (200, "Ada", 3)
                assert answer.http_version == ("HTTP/2" if how else "HTTP/1.1")
                body, kind = (FORM, FORM_TYPE) if site.form else (DATA, "application/octet-stream")
                answer = client.post("/upload", content=body, headers={"content-type": kind})
                assert (answer.status_code, answer.json()["bytes"], answer.json()["sha256"]) == (201, len(DATA), DIGEST)
                page = client.get("/page")
                assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
                assert "<li>one</li>" in page.text
                assert client.get("/stream").text == "".join(f"line {number}\n" for number in range(5))
                assert client.get("/missing").status_code == 404
                assert client.get("/error").status_code == 500
                assert client.get("/json/Ada").status_code == 200


def test_django_admin_and_static_files(tmp_path: Path) -> None:
    pytest.importorskip("django")
    line = "subpool serve django_site.wsgi:application --pythonpath examples/django_app --interface wsgi"
    with (
        command(line, DJANGO_SITE_DATA=str(tmp_path / "data")) as address,
        httpx.Client(base_url=address, timeout=DEADLINE) as client,
    ):

        def fill_in(path: str, **fields: str) -> Any:
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', client.get(path).text)
            assert token is not None
            return client.post(path, data={"csrfmiddlewaretoken": token[1], **fields}, headers={"referer": address})

        assert client.get("/admin/").headers["location"] == "/admin/login/?next=/admin/"
        done = fill_in("/admin/login/", username="admin", password="admin", next="/admin/")
        assert (done.status_code, done.headers["location"]) == (302, "/admin/")
        assert fill_in("/admin/django_site/note/add/", text="a <note>").status_code == 302
        page = client.get("/admin/django_site/note/").text
        assert "a &lt;note&gt;" in page
        sheets = re.findall(r'href="(/static/[^"]+\.css)"', page)
        assert sheets
        for sheet in sheets:
            found = client.get(sheet)
            assert (found.status_code, found.headers["content-type"]) == (200, "text/css")
            assert len(found.content) == int(found.headers["content-length"])
            again = client.get(sheet, headers={"if-modified-since": found.headers["last-modified"]})
            assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("folder", ["starlette_app", "quart_app"])
def test_websockets_of_frameworks(folder: str) -> None:
    websockets = pytest.importorskip("websockets")
    site = next(one for one in SITES if one.folder == folder)
    pytest.importorskip(site.framework or "")

    async def talk(address: str) -> Any:
        async with asyncio.timeout(DEADLINE), websockets.connect(f"{address.replace('http', 'ws')}/echo") as socket:
            await socket.send("hello")
            return await socket.recv()

    with command(f"subpool serve {site.app} --pythonpath examples/{folder}", PYTHONWARNINGS="ignore") as address:
        assert asyncio.run(talk(address)) == "HELLO"


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
@pytest.mark.parametrize("name", ["asgi_hello", "wsgi_hello"])
def test_wrk(name: str) -> None:
    with command(GUIDES[name][0]) as address:
        done = subprocess.run(
            ["wrk", "-t1", "-c32", "-d1s", f"{address}/"], capture_output=True, text=True, timeout=DEADLINE, check=True
        ).stdout
        assert re.search(r"[1-9]\d* requests in", done)
        assert "Non-2xx" not in done
        assert "Socket errors" not in done


def test_json_over_one_connection() -> None:
    """httpx keeps it alive; its header lines are the same each time, its paths are not."""
    with command(GUIDES["asgi_scope"][0]) as address, httpx.Client(base_url=address, timeout=DEADLINE) as client:
        for number in range(20):
            scope = json.loads(client.get(f"/number/{number}", params={"n": number}).text)
            assert (scope["path"], scope["query_string"]) == (f"/number/{number}", f"b:n={number}")
