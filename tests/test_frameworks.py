"""The unmodified apps of examples/: Flask, Django, Bottle, Starlette, Quart, FastAPI and bare ASGI answer."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest
from conftest import DEADLINE, EXAMPLES, environ, free_threaded, http_scope, pool_options, websocket_scope

pytestmark = [
    pytest.mark.anyio,
    # Thread workers live in this process: what a framework deprecates is not ours to fail on.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning"),
]

DATA = os.urandom(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
FORM_TYPE = "multipart/form-data; boundary=edge"
FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n" + DATA + b"\r\n--edge--\r\n"
)


class Site(NamedTuple):
    """An example: its folder, the app's name, the framework's module, and how it takes an upload."""

    folder: str
    app: str
    framework: str | None
    interface: str
    form: bool = False


SITES = [
    Site("flask_app", "flask_site:app", "flask", "wsgi", True),
    Site("django_app", "django_site.wsgi:application", "django", "wsgi", True),
    Site("bottle_app", "bottle_site:app", "bottle", "wsgi", True),
    Site("starlette_app", "starlette_site:app", "starlette", "asgi"),
    Site("quart_app", "quart_site:app", "quart", "asgi", True),
    Site("bare_asgi", "bare_site:app", None, "asgi"),
]
FASTAPI = Site("fastapi_app", "fastapi_site:app", "fastapi", "asgi")


class Client:
    """Sends requests of either interface, and gives answers of one form: (status, headers, body)."""

    def __init__(self, pool: Any, site: Site) -> None:
        self.pool, self.site = pool, site

    async def get(self, path: str, query: str = "") -> tuple[int, dict[str, str], bytes]:
        return await self.send("GET", path, query)

    async def send(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes = b"",
        kind: str = "application/octet-stream",
    ) -> tuple[int, dict[str, str], bytes]:
        """`body` with its type and length; header names come back in lower case."""
        length = str(len(body))
        if self.site.interface == "wsgi":
            given = environ(path, method=method, query=query, body=body, CONTENT_LENGTH=length, CONTENT_TYPE=kind)
            answer = await self.pool.run_wsgi(given)
            status = int(answer.status[:3])
            headers = {name.lower(): value for name, value in answer.headers}
        else:
            pairs = [
                (b"host", b"example.test"),
                (b"content-type", kind.encode()),
                (b"content-length", length.encode()),
            ]
            scope = http_scope(path, method=method, query_string=query.encode(), headers=pairs)
            answer = await self.pool.run_asgi(scope, body)
            status = answer.status
            headers = {name.decode().lower(): value.decode() for name, value in answer.headers}
        return status, headers, answer.body


async def opened(site: Site, isolation: str) -> AsyncIterator[Client]:
    """A pool of the site."""
    from subpool import Pool

    if site.framework:
        pytest.importorskip(site.framework)
    options = pool_options(isolation, pythonpath=[EXAMPLES / site.folder], start_timeout=DEADLINE)
    async with AsyncExitStack() as stack:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pool = await stack.enter_async_context(Pool(site.app, **options))
        yield Client(pool, site)


@pytest.fixture(scope="module", params=SITES, ids=[site.folder for site in SITES])
async def client(request: pytest.FixtureRequest, isolation: str, anyio_backend: str) -> AsyncIterator[Client]:
    async for one in opened(request.param, isolation):
        yield one


@pytest.fixture(scope="module")
async def fastapi(anyio_backend: str) -> AsyncIterator[Client]:
    """FastAPI under 'auto'."""
    async for one in opened(FASTAPI, "auto"):
        yield one


async def check_json(client: Client) -> None:
    status, headers, body = await client.get("/json/Ada", "times=3")
    assert status == 200
    assert headers["content-type"].startswith("application/json")
    answer = json.loads(body)
    assert (answer["hello"], answer["times"]) == ("Ada", 3)


async def check_upload(client: Client) -> None:
    if client.site.form:
        status, _, body = await client.send("POST", "/upload", body=FORM, kind=FORM_TYPE)
    else:
        status, _, body = await client.send("POST", "/upload", body=DATA)
    assert status == 201
    answer = json.loads(body)
    assert (answer["bytes"], answer["sha256"]) == (len(DATA), DIGEST)


async def check_page(client: Client) -> None:
    status, headers, body = await client.get("/page")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert b"<li>one</li>" in body
    assert b"&lt;two&gt;" in body


async def check_stream(client: Client) -> None:
    expected = b"".join(b"line %d\n" % number for number in range(5))
    assert (await client.get("/stream"))[2] == expected
    if client.site.interface == "asgi":
        async with client.pool.stream_asgi(http_scope("/stream")) as stream:
            assert stream.status == 200
            assert b"".join([chunk async for chunk in stream]) == expected


async def check_errors(client: Client) -> None:
    """An HTTP error is an answer; a bug is a 500 of the framework, or the app's own error."""
    from subpool import AppError

    status, _, body = await client.get("/missing")
    assert status == 404
    assert b"no such thing" in body or client.site.folder == "django_app"
    if client.site.folder in ("starlette_app", "bare_asgi", "fastapi_app"):
        with pytest.raises(AppError, match="a bug in the app"):
            await client.get("/error")
    else:
        assert (await client.get("/error"))[0] == 500
    await check_json(client)


CHECKS = [check_json, check_upload, check_page, check_stream, check_errors]


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__.removeprefix("check_") for check in CHECKS])
async def test_sites(client: Client, check: Any) -> None:
    await check(client)


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__.removeprefix("check_") for check in CHECKS])
async def test_fastapi(fastapi: Client, check: Any) -> None:
    assert fastapi.pool.isolation == ("thread" if free_threaded() else "process")
    await check(fastapi)


async def test_fastapi_checks_bodies(fastapi: Client) -> None:
    good = await fastapi.send("POST", "/items", body=b'{"name": "a", "price": 2}', kind="application/json")
    assert (good[0], json.loads(good[2])) == (201, {"created": "a", "price": 2.0})
    assert (await fastapi.send("POST", "/items", body=b"{}", kind="application/json"))[0] == 422


async def test_websockets(client: Client) -> None:
    if client.site.folder not in ("starlette_app", "quart_app"):
        pytest.skip("this example has no WebSocket")
    async with client.pool.websocket(websocket_scope("/echo")) as socket:
        await socket.send("hello")
        assert await socket.receive() == "HELLO"


@pytest.mark.parametrize("site", [*SITES, FASTAPI], ids=[site.folder for site in (*SITES, FASTAPI)])
def test_the_shown_command(site: Site) -> None:
    """`python examples/<folder>/run.py`, from the project's folder, prints an answer for each path."""
    if site.framework:
        pytest.importorskip(site.framework)
    command = [sys.executable, f"examples/{site.folder}/run.py"]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=28, check=False)
    assert done.returncode == 0, done.stderr
    for path in ("/json/Ada", "/upload", "/page", "/stream", "/missing", "/error"):
        assert path in done.stdout
    assert "isolation: " in done.stdout
