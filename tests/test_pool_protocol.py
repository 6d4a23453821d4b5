"""The ASGI steps: what `receive()` answers and when, which `send()` sequences are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import BOTH, http_scope

pytestmark = pytest.mark.anyio

ILLEGAL = [
    "body",
    "more",
    "start,start",
    "start,more,start",
    "unknown",
    "start,unknown",
    "websocket",
    "untyped",
    "status-0",
    "status-1000",
    "status-str",
    "status-none",
    "crlf",
    "nul",
    "name-lf",
    "header-str",
    "two-lengths",
    "start,body-str",
    "length-1,body-xx",
    "link-crlf",
]


def steps(names: str, report: Any = "") -> dict[str, Any]:
    return http_scope("/steps", query_string=f"steps={names}&report={report}".encode())


@BOTH
async def test_app_error_carries_the_remote_traceback(pool: Any) -> None:
    from subpool import AppError

    with pytest.raises(AppError) as caught:
        await pool.run_asgi(http_scope("/raise"))
    error = caught.value
    assert error.type_name.split(".")[-1] == "LookupError"
    assert error.message == "no such thing: \u2603"
    assert "deeper" in error.remote_traceback
    assert "asgi_app.py" in error.remote_traceback
    assert "no such thing" in str(error)


async def test_app_error_of_an_own_type_with_a_cause(pool: Any) -> None:
    from subpool import AppError

    with pytest.raises(AppError) as caught:
        await pool.run_asgi(http_scope("/raise-own"))
    assert caught.value.type_name.endswith("OwnError")
    assert "the cause" in caught.value.remote_traceback


@pytest.mark.parametrize("path", ["/silent", "/half", "/start-only"])
async def test_an_app_that_returns_without_its_whole_response(pool: Any, path: str) -> None:
    from subpool import AppError

    with pytest.raises(AppError, match=r"(?i)response"):
        await pool.run_asgi(http_scope(path))
    assert (await pool.run_asgi(http_scope("/hello"))).status == 200


async def test_an_error_in_the_middle_is_not_a_good_end(pool: Any) -> None:
    from subpool import AppError

    with pytest.raises(AppError, match="in the middle"):
        await pool.run_asgi(http_scope("/raise-half"))


@pytest.mark.parametrize("names", ILLEGAL)
async def test_an_illegal_step_raises_in_the_app(pool: Any, fifo: Any, names: str) -> None:
    from subpool import AppError

    report = fifo("report")
    with pytest.raises(AppError):
        await pool.run_asgi(steps(names, report))
    assert await report.wait() != b"accepted"


@pytest.mark.parametrize("names", ["start,body,body", "start,body,start"])
async def test_a_step_after_the_end_raises_in_the_app(pool: Any, fifo: Any, names: str) -> None:
    """The response was complete by then: the caller may get it or the error, the app must be told."""
    from subpool import AppError

    report = fifo("report")
    try:
        answer = await pool.run_asgi(steps(names, report))
        assert answer.body == b"x"
    except AppError:
        pass
    assert await report.wait() != b"accepted"


async def test_less_body_than_content_length_is_an_error(pool: Any) -> None:
    from subpool import AppError

    with pytest.raises(AppError):
        await pool.run_asgi(steps("length-1,hint"))


async def test_informational_responses_go_before_the_final_one(pool: Any) -> None:
    answer = await pool.run_asgi(http_scope("/hints"))
    assert (answer.status, answer.body) == (200, b"final")


@pytest.mark.parametrize("method", ["HEAD"])
async def test_head_has_no_body(pool: Any, method: str) -> None:
    answer = await pool.run_asgi(http_scope("/hello", method=method))
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("size", [0, 10, 100_000])
async def test_receive_after_the_end_waits_and_then_disconnects(pool: Any, fifo: Any, size: int) -> None:
    """Also with an empty body: an empty request is answered once."""
    report = fifo("report")
    scope = http_scope("/receive-after-end", method="POST", query_string=f"report={report}".encode())
    answer = await pool.run_asgi(scope, b"r" * size)
    assert answer.body == b"r" * size
    assert json.loads(await report.wait()) == [False, "http.disconnect", "http.disconnect"]


async def test_a_streamed_answer_is_joined(pool: Any) -> None:
    answer = await pool.run_asgi(http_scope("/chunks"))
    assert answer.body == b"".join(b"chunk %d\n" % number for number in range(10))
    assert answer.headers == [(b"x-streamed", b"yes")]
