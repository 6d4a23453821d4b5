"""Bad input is refused before anything is sent, and the refusal names the field."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import BOTH, environ, http_scope

pytestmark = pytest.mark.anyio

SCOPES: list[tuple[str, Any]] = [
    ("path", {"type": "http"}),
    ("type", {"path": "/hello"}),
    ("type", http_scope("/hello", type="gopher")),
    ("type", http_scope("/hello", type=7)),
    ("path", http_scope("/hello", path=b"/hello")),
    ("path", http_scope("/hello", path=None)),
    ("raw_path", http_scope("/hello", raw_path="/hello")),
    ("query_string", http_scope("/hello", query_string="a=1")),
    ("method", http_scope("/hello", method=b"GET")),
    ("scheme", http_scope("/hello", scheme=7)),
    ("http_version", http_scope("/hello", http_version=1.1)),
    ("root_path", http_scope("/hello", root_path=b"/x")),
    ("headers", http_scope("/hello", headers=[("host", "x")])),
    ("headers", http_scope("/hello", headers=[(b"host", "x")])),
    ("headers", http_scope("/hello", headers=[("host", b"x")])),
    ("headers", http_scope("/hello", headers=[(b"host",)])),
    ("headers", http_scope("/hello", headers=[b"host"])),
    ("headers", http_scope("/hello", headers=7)),
    ("server", http_scope("/hello", server="example.test:80")),
    ("server", http_scope("/hello", server=("example.test", "80"))),
    ("client", http_scope("/hello", client=("192.0.2.1",))),
    ("state", http_scope("/hello", state={"lock": object()})),
    ("state", http_scope("/hello", state=[1])),
    ("extensions", http_scope("/hello", extensions={"x": object()})),
    ("scope", None),
    ("scope", [("type", "http")]),
]


def named(error: pytest.ExceptionInfo[BaseException], field: str) -> bool:
    return field in str(error.value)


@pytest.mark.parametrize(("field", "scope"), SCOPES, ids=[f"{n}-{field}" for n, (field, _) in enumerate(SCOPES)])
async def test_scopes(pool: Any, field: str, scope: Any) -> None:
    before = sum(worker.served + worker.failed for worker in pool.stats().workers)
    with pytest.raises((ValueError, TypeError)) as caught:
        await pool.run_asgi(scope)
    assert named(caught, field)
    assert sum(worker.served + worker.failed for worker in pool.stats().workers) == before


@pytest.mark.parametrize(("field", "scope"), SCOPES[:8], ids=[f"{n}-{SCOPES[n][0]}" for n in range(8)])
async def test_templates(field: str, scope: Any) -> None:
    from subpool import build_scope

    with pytest.raises((ValueError, TypeError)) as caught:
        build_scope(scope)
    assert named(caught, field)


async def test_replacements_of_templates() -> None:
    from subpool import build_scope

    template = build_scope(http_scope("/hello"))
    for field, value in (("path", b"/x"), ("query_string", "a"), ("headers", [("a", "b")])):
        with pytest.raises((ValueError, TypeError), match=field):
            template.replace(**{field: value})


@BOTH
@pytest.mark.parametrize("body", ["text", 7, None, ["a"], object()], ids=lambda value: type(value).__name__)
async def test_bodies(pool: Any, body: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="body"):
        await pool.run_asgi(http_scope("/echo"), body)


ENVIRONS: list[tuple[str, Any]] = [
    *((name, {key: value for key, value in environ("/hello").items() if key != name})
      for name in ("REQUEST_METHOD", "PATH_INFO", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL",
                   "wsgi.url_scheme", "wsgi.input")),
    ("REQUEST_METHOD", environ("/hello", REQUEST_METHOD=b"GET")),
    ("REQUEST_METHOD", environ("/hello", REQUEST_METHOD="")),
    ("PATH_INFO", environ("/hello", PATH_INFO=7)),
    ("PATH_INFO", environ("/hello", PATH_INFO="/\u2603")),
    ("SERVER_PORT", environ("/hello", SERVER_PORT=80)),
    ("HTTP_X", environ("/hello", HTTP_X=b"bytes")),
    ("HTTP_X", environ("/hello", HTTP_X=["a"])),
    ("wsgi.input", environ("/hello", body="text")),
    ("wsgi.input", environ("/hello", body=7)),
    ("my.lock", environ("/hello", **{"my.lock": object()})),
    ("environ", None),
    ("environ", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "given"), ENVIRONS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(ENVIRONS)])
async def test_environs(wsgi_pool: Any, field: str, given: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        await wsgi_pool.run_wsgi(given)
    assert named(caught, field)


OPTIONS: list[tuple[str, Any]] = [
    ("workers", 0),
    ("workers", -1),
    ("workers", "2"),
    ("workers", 1.5),
    ("isolation", "fibre"),
    ("interface", "cgi"),
    ("lifespan", "maybe"),
    ("threads", 0),
    ("timeout", 0),
    ("timeout", -1),
    ("timeout", "30"),
    ("max_pending", 0),
    ("window", 0),
    ("start_timeout", 0),
    ("close_timeout", -1),
    ("grace", -1),
    ("max_concurrency", 0),
    ("pythonpath", "not a list"),
    ("preload", "not a list"),
]


@pytest.mark.parametrize(("option", "value"), OPTIONS, ids=[f"{name}-{value}" for name, value in OPTIONS])
def test_options(option: str, value: Any) -> None:
    from subpool import Pool

    with pytest.raises((ValueError, TypeError), match=option):
        Pool("asgi_app:app", **{option: value})


def test_an_unknown_option_is_refused() -> None:
    from subpool import Pool

    with pytest.raises((ValueError, TypeError), match="wrokers"):
        Pool("asgi_app:app", wrokers=2)
