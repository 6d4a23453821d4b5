"""How apps are found: names, factories, `app=`, preloading, and what a bad one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import environ, http_scope

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("app", ["functions:make()", "functions:Holder.app"])
async def test_factories_and_dotted_attributes(make_pool: Any, app: str) -> None:
    async with make_pool(app, workers=1) as pool:
        assert (await pool.run_asgi(http_scope("/"))).body in (b"made", b"dotted")


async def test_other_apps_by_name(pool: Any) -> None:
    assert (await pool.run_asgi(http_scope("/"), app="functions:make()")).body == b"made"
    assert (await pool.run_asgi(http_scope("/"), app="functions:Holder.app")).body == b"dotted"
    assert (await pool.run_wsgi(environ("/hello"), app="wsgi_app:app")).body == b"Hello, World!"
    assert (await pool.run_wsgi(environ("/"), app="functions:make_wsgi()")).body == b"made"
    assert (await pool.run_asgi(http_scope("/hello"))).body == b"Hello, World!"


async def test_a_factory_is_called_once_a_worker(make_pool: Any) -> None:
    async with make_pool(None, workers=1) as pool:
        for _ in range(3):
            assert (await pool.run_asgi(http_scope("/hello"), app="asgi_app:app")).status == 200


async def test_no_app_at_all(make_pool: Any) -> None:
    from subpool import AppLoadError

    async with make_pool(None, workers=1) as pool:
        with pytest.raises((AppLoadError, ValueError), match="app="):
            await pool.run_asgi(http_scope("/hello"))


BAD = [
    ("nowhere_at_all:app", ["nowhere_at_all"]),
    ("asgi_app:nowhere", ["asgi_app", "nowhere"]),
    ("functions:Holder.nowhere", ["functions", "nowhere"]),
    ("functions:not_callable", ["functions", "not_callable"]),
    ("broken_import:app", ["broken_import", "module_that_is_nowhere"]),
    ("broken_body:app", ["broken_body", "SETTINGS is not set"]),
    ("exiting_import:app", ["exiting_import", "wrong arguments"]),
    ("functions:make_badly()", ["make_badly", "no configuration"]),
]


@pytest.mark.parametrize(("app", "texts"), BAD)
async def test_a_bad_app_fails_the_start_and_is_named(make_pool: Any, app: str, texts: list[str]) -> None:
    from subpool import AppLoadError

    with pytest.raises(AppLoadError) as caught:
        async with make_pool(app):
            pass
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize(("app", "texts"), BAD)
async def test_a_bad_app_named_later_fails_that_call(pool: Any, app: str, texts: list[str]) -> None:
    from subpool import AppLoadError

    with pytest.raises(AppLoadError) as caught:
        await pool.run_asgi(http_scope("/"), app=app)
    for text in texts:
        assert text in str(caught.value)
    assert (await pool.run_asgi(http_scope("/hello"))).status == 200


@pytest.mark.parametrize("app", ["asgi_app", "", ":app", "asgi_app:", "asgi app:app", 7])
def test_a_malformed_name_is_refused_at_once(make_pool: Any, app: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        make_pool(app)


@pytest.mark.parametrize("preload", [True, False])
async def test_preload_app_decides_when_it_is_imported(
    make_pool: Any, fifo: Any, monkeypatch: pytest.MonkeyPatch, isolation: str, preload: bool
) -> None:
    import sys

    sys.modules.pop("late_import", None)
    pipe = fifo("imported")
    monkeypatch.setenv("LATE_IMPORT_PIPE", str(pipe))
    async with make_pool("late_import:app", workers=1, preload_app=preload, interface="asgi", lifespan="off") as pool:
        assert pipe.empty() is not preload
        assert (await pool.run_asgi(http_scope("/"))).body == b"late"
        assert await pipe.wait() == b"i"
        await pool.run_asgi(http_scope("/"))
        assert pipe.empty()
    sys.modules.pop("late_import", None)


async def test_a_bad_app_without_preloading_fails_the_request(make_pool: Any) -> None:
    from subpool import AppLoadError

    async with make_pool("broken_body:app", workers=1, preload_app=False, interface="asgi") as pool:
        with pytest.raises(AppLoadError, match="SETTINGS is not set"):
            await pool.run_asgi(http_scope("/"))
        assert (await pool.run_asgi(http_scope("/hello"), app="asgi_app:app")).status == 200


async def test_further_modules_are_preloaded(make_pool: Any) -> None:
    async with make_pool(None, workers=1, preload=("colorsys",)) as pool:
        assert await pool.call("functions:has_module", "colorsys") is True


async def test_pythonpath_reaches_modules(make_pool: Any, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("def answer():\n    return 42\n")
    async with make_pool(None, workers=1, pythonpath=[tmp_path]) as pool:
        assert await pool.call("only_here:answer") == 42


async def test_interface_is_found_out_or_told(make_pool: Any) -> None:
    async with make_pool("wsgi_app:app", workers=1) as pool:
        assert (await pool.run_wsgi(environ("/hello"))).status == "200 OK"
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200  # a scope becomes an environ
        assert (await pool.run_wsgi(environ("/hello"))).status == "200 OK"
