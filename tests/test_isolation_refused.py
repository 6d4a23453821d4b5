"""Apps that cannot live in isolated interpreters: refused with a reason, or given processes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from conftest import environ, free_threaded, http_scope, pool_options

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(free_threaded(), reason="there 'auto' means threads, which take any app"),
]


def options(isolation: str, **more: Any) -> dict[str, Any]:
    return pool_options(isolation, workers=1, **more)


@pytest.fixture
def native() -> str:
    """An app that needs an extension module which refuses isolated interpreters."""
    pytest.importorskip("pydantic_core")
    return "native_app:app"


async def test_a_refusing_extension_is_named_with_its_chain(native: str) -> None:
    from subpool import NotIsolatable, Pool

    with pytest.raises(NotIsolatable) as caught:
        async with Pool(native, **options("subinterpreter")):
            pass
    error = caught.value
    assert error.module.startswith("pydantic_core")
    chain = " ".join(error.chain)
    assert chain.index("native_app") < chain.index("native_layer")
    for text in ("pydantic_core", "native_layer", "process"):
        assert text in str(error)


async def test_auto_falls_back_to_processes_with_one_warning(native: str) -> None:
    from subpool import Pool

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Pool(native, **{**options("auto"), "workers": 2}) as pool:
            assert pool.isolation == "process"
            import pydantic_core

            assert (await pool.run_asgi(http_scope("/"))).body == pydantic_core.__version__.encode()
            assert {worker.kind for worker in pool.stats().workers} == {"process"}
    told = [str(one.message) for one in caught if issubclass(one.category, (UserWarning, RuntimeWarning))]
    assert len(told) == 1
    assert "pydantic_core" in told[0]
    assert "native_app" in told[0]


async def test_auto_takes_a_sub_interpreter_where_it_can() -> None:
    from subpool import Pool

    async with Pool("asgi_app:app", **options("auto")) as pool:
        assert pool.isolation == "subinterpreter"


@pytest.mark.parametrize(("app", "text"), [("daemon_app:app", "daemon"), ("signal_app:app", "signal")])
async def test_what_isolated_interpreters_forbid_at_import(app: str, text: str) -> None:
    """Daemon threads and signal handlers: no ImportError, and yet a matter of isolation."""
    from subpool import NotIsolatable, Pool

    with pytest.raises(NotIsolatable, match=text) as caught:
        async with Pool(app, **options("subinterpreter")):
            pass
    assert app.partition(":")[0] in str(caught.value)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with Pool(app, **options("auto")) as pool:
            assert pool.isolation == "process"
            assert (await pool.run_asgi(http_scope("/"))).status == 200
    assert len([one for one in told if issubclass(one.category, (UserWarning, RuntimeWarning))]) == 1


async def test_an_ordinary_import_error_is_no_reason_to_fall_back() -> None:
    from subpool import AppLoadError, NotIsolatable, Pool

    with pytest.raises(AppLoadError, match="module_that_is_nowhere") as caught:
        async with Pool("broken_import:app", **options("auto")):
            pass
    assert not isinstance(caught.value, NotIsolatable)


async def test_a_refusal_inside_a_handler_is_that_calls_error(native: str) -> None:
    from subpool import Pool, SubpoolError

    async with Pool("asgi_app:app", **options("subinterpreter")) as pool:
        for number in (1, 2):
            with pytest.raises(SubpoolError) as caught:
                await pool.run_asgi(http_scope("/import", query_string=b"pydantic_core"))
            assert "pydantic_core" in str(caught.value)
            assert 'isolation="process"' in str(caught.value)
            assert pool.stats().not_isolatable == number
        with pytest.raises(SubpoolError, match='isolation="process"'):
            await pool.run_wsgi(environ("/import", query="pydantic_core"), app="wsgi_app:app")
        assert pool.stats().not_isolatable == 3
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200


async def test_an_app_named_later_that_is_refused_is_that_calls_error(native: str) -> None:
    from subpool import NotIsolatable, Pool

    async with Pool("asgi_app:app", **options("auto")) as pool:
        with pytest.raises(NotIsolatable, match="pydantic_core"):
            await pool.run_asgi(http_scope("/"), app=native)
        assert pool.stats().not_isolatable == 1
        assert pool.isolation == "subinterpreter"
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200


async def test_processes_take_it(native: str) -> None:
    from subpool import Pool

    async with Pool(native, **options("process")) as pool:
        assert (await pool.run_asgi(http_scope("/"))).status == 200
        assert (await pool.run_asgi(http_scope("/import", query_string=b"pydantic_core"), app="asgi_app:app")).status
