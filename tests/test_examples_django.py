"""The Django project of examples/: its admin, its database, its static files."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from conftest import DEADLINE, EXAMPLES, environ, http_scope, pool_options

from subpool import Pool

pytestmark = pytest.mark.anyio


class Answer(NamedTuple):
    """Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Browser:
    """Keeps cookies, and fills in forms."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.cookies: dict[str, str] = {}

    async def get(self, path: str, **keys: Any) -> Answer:
        given = environ(path, HTTP_COOKIE="; ".join(f"{name}={value}" for name, value in self.cookies.items()), **keys)
        status, headers, body = await self.pool.run_wsgi(given)
        for name, value in headers:
            if name.lower() == "set-cookie":
                cookie, _, text = value.partition(";")[0].partition("=")
                self.cookies[cookie] = text
        return Answer(int(status[:3]), {name.lower(): value for name, value in headers}, body)

    async def post(self, path: str, **fields: str) -> Answer:
        """Get the form, fill it in, send it."""
        page = await self.get(path)
        token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.body)
        assert token is not None
        body = urlencode({"csrfmiddlewaretoken": token[1].decode(), **fields}).encode()
        kind = "application/x-www-form-urlencoded"
        return await self.get(path, method="POST", body=body, CONTENT_TYPE=kind, CONTENT_LENGTH=str(len(body)))


@asynccontextmanager
async def django(data: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[Browser]:
    """The Django project, its database in a fresh folder."""
    pytest.importorskip("django")
    monkeypatch.setenv("DJANGO_SITE_DATA", str(data))
    given = {"interface": "wsgi", "pythonpath": [EXAMPLES / "django_app"], "start_timeout": DEADLINE, **options}
    async with Pool("django_site.wsgi:application", **pool_options("subinterpreter", **given)) as pool:
        yield Browser(pool)


@pytest.mark.parametrize("threads", [1, 2])
async def test_django_admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Two workers start side by side, one of them makes the database; both see what is written and who is logged in."""
    async with django(tmp_path / "data", monkeypatch, threads=threads) as browser:
        assert (await browser.get("/admin/")).headers["location"] == "/admin/login/?next=/admin/"
        assert (await browser.post("/admin/login/", username="admin", password="wrong")).status == 200
        answer = await browser.post("/admin/login/", username="admin", password="admin", next="/admin/")
        assert (answer.status, answer.headers["location"]) == (302, "/admin/")
        for number in range(4):
            answer = await browser.post("/admin/django_site/note/add/", text=f"note <{number}>")
            assert (answer.status, answer.headers["location"]) == (302, "/admin/django_site/note/")
        for _ in range(4):
            shown = await browser.get("/admin/django_site/note/")
            assert shown.status == 200
            assert b"note &lt;3&gt;" in shown.body
            notes = json.loads((await browser.get("/notes")).body)["notes"]
            assert notes == [f"note <{number}>" for number in range(4)]


async def test_django_static_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with django(tmp_path / "data", monkeypatch) as browser:
        page = await browser.get("/admin/login/")
        sheets = re.findall(rb'href="(/static/[^"]+\.css)"', page.body)
        assert sheets
        for path in [b"/static/django_site/style.css", *sheets]:
            answer = await browser.get(path.decode())
            assert (answer.status, answer.headers["content-type"]) == (200, "text/css")
            assert len(answer.body) == int(answer.headers["content-length"])
            again = await browser.get(path.decode(), HTTP_IF_MODIFIED_SINCE=answer.headers["last-modified"])
            assert (again.status, again.body) == (304, b"")
        async with browser.pool.stream_asgi(http_scope("/static/django_site/style.css")) as stream:
            assert b"color: teal" in await stream.read()
        assert (await browser.get("/static/nothing.css")).status == 404
        assert (await browser.get("/static/../django_site/settings.py")).status == 400
