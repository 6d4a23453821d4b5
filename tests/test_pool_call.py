"""`pool.call`: any importable function in a worker."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from conftest import BOTH

pytestmark = pytest.mark.anyio


@BOTH
async def test_answers(pool: Any) -> None:
    assert await pool.call("functions:add", 2) == 3
    assert await pool.call("functions:add", 2, right=5) == 7
    assert await pool.call("functions:add", left=2, right=6) == 8
    assert await pool.call("functions:Holder.add", 1, 1) == 2
    assert await pool.call("math:sqrt", 9.0) == 3.0


async def test_coroutine_functions_are_awaited(pool: Any) -> None:
    assert await pool.call("functions:add_later", 2, right=5) == 7


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**70),
        1.5,
        "\u2603",
        b"\xff",
        (1, (2,)),
        [1, [2]],
        {"a": {1: b"x"}},
        {1, 2},
        b"x" * 100_000,
    ],
    ids=repr,
)
async def test_values_survive_the_way(pool: Any, value: object) -> None:
    answer = await pool.call("functions:identity", value)
    assert answer == value
    assert type(answer) is type(value)


async def test_types_of_arguments(pool: Any) -> None:
    positional, named = await pool.call("functions:kinds", 1, "a", (1,), [1], key=b"x", other={})
    assert list(positional) == ["int", "str", "tuple", "list"]
    assert named == {"key": "bytes", "other": "dict"}


async def test_exceptions(pool: Any) -> None:
    from subpool import AppError

    with pytest.raises(AppError, match="as told") as caught:
        await pool.call("functions:fail", "as told")
    assert caught.value.type_name.split(".")[-1] == "LookupError"
    assert "functions.py" in caught.value.remote_traceback
    with pytest.raises(AppError, match="TypeError"):
        await pool.call("functions:add")


@pytest.mark.parametrize("value", [threading.Lock(), object(), len, {"a": [object()]}], ids=lambda v: type(v).__name__)
async def test_arguments_that_cannot_cross_are_refused_before_sending(pool: Any, value: object) -> None:
    with pytest.raises(TypeError):
        await pool.call("functions:identity", value)
    with pytest.raises(TypeError):
        await pool.call("functions:identity", value=value)


async def test_answers_that_cannot_cross_are_an_error(pool: Any) -> None:
    from subpool import SubpoolError

    with pytest.raises((SubpoolError, TypeError), match=r"(?i)lock|marshal|plain data"):
        await pool.call("functions:unmarshallable")
    assert await pool.call("functions:add", 1) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("functions:nowhere", "nowhere"),
        ("nowhere_at_all:add", "nowhere_at_all"),
        ("functions:Holder.nowhere", "nowhere"),
        ("functions:not_callable", "not_callable"),
    ],
)
async def test_a_missing_function_is_named(pool: Any, name: str, text: str) -> None:
    from subpool import SubpoolError

    with pytest.raises(SubpoolError, match=text):
        await pool.call(name)
    assert await pool.call("functions:add", 1) == 2


@pytest.mark.parametrize("name", ["functions", "", ":add", "functions:", 7, None])
async def test_a_malformed_name_is_refused(pool: Any, name: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        await pool.call(name)


async def test_a_pool_without_an_app_calls_functions(make_pool: Any) -> None:
    async with make_pool(None, workers=1) as pool:
        assert await pool.call("functions:add", 1, 1) == 2


async def test_workers_are_isolated_from_each_other(make_pool: Any, isolation: str) -> None:
    """A module's global lives once a worker, except with threads, which share one import."""
    async with make_pool(None, workers=1) as pool:
        first = await pool.call("functions:count")
        assert await pool.call("functions:count") == first + 1
        same = await pool.call("functions:pid") == os.getpid()
        assert same is (isolation != "process")
        assert (first == 1) or isolation == "thread"
