"""What `auto` means on a build without a GIL."""

from __future__ import annotations

import pytest
from conftest import free_threaded, http_scope, pool_options

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not free_threaded(), reason="needs a free-threaded build"),
]


async def test_auto_means_threads() -> None:
    from subpool import Pool

    async with Pool("asgi_app:app", **pool_options("auto")) as pool:
        assert pool.isolation == "thread"
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200


async def test_sub_interpreters_work_there_too() -> None:
    from subpool import Pool

    async with Pool("asgi_app:app", **pool_options("subinterpreter")) as pool:
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200
