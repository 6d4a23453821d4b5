"""`run_wsgi`: PEP 3333 as an app sees it, and what the caller gets."""

from __future__ import annotations

import ast
import io
import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import BOTH, environ, http_scope

pytestmark = pytest.mark.anyio


async def seen(pool: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The environ's plain values as the app saw them."""
    found = ast.literal_eval((await pool.run_wsgi(given)).body.decode())
    assert isinstance(found, dict)
    return found


@BOTH
async def test_hello(wsgi_pool: Any) -> None:
    status, headers, body = await wsgi_pool.run_wsgi(environ("/hello"))
    assert (status, headers, body) == ("200 OK", [("Content-Type", "text/plain")], b"Hello, World!")


async def test_many_at_once_each_get_their_own_answer(wsgi_pool: Any) -> None:
    answers: dict[int, bytes] = {}

    async def one(number: int) -> None:
        answers[number] = (await wsgi_pool.run_wsgi(environ("/echo", method="POST", body=b"%d" % number))).body

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(one, number)
    assert answers == {number: b"%d" % number for number in range(200)}


async def test_answer_has_names(wsgi_pool: Any) -> None:
    answer = await wsgi_pool.run_wsgi(environ("/cookies"))
    assert answer.status == "200 Fine"
    assert answer.headers == [("Set-Cookie", "a=1"), ("X-Between", "yes"), ("Set-Cookie", "b=2")]
    assert answer.body == b""


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 20 * 1024, 8 * 1024 * 1024])
async def test_body_comes_back(wsgi_pool: Any, size: int) -> None:
    body = os.urandom(size)
    given = environ("/echo", method="POST", body=body, CONTENT_LENGTH=str(size))
    assert (await wsgi_pool.run_wsgi(given)).body == body


@BOTH
@pytest.mark.parametrize("size", [0, 100, 300_000])
async def test_input_may_be_a_readable(wsgi_pool: Any, size: int) -> None:
    body = os.urandom(size)
    assert (await wsgi_pool.run_wsgi(environ("/echo", method="POST", body=io.BytesIO(body)))).body == body


async def test_input_may_be_a_file(wsgi_pool: Any, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"u" * 200_000)
    with open(tmp_path / "upload", "rb") as file:
        answer = await wsgi_pool.run_wsgi(environ("/echo", method="POST", body=file))
    assert answer.body == b"u" * 200_000


@pytest.mark.parametrize("streamed", [False, True])
async def test_all_ways_to_read_the_input(wsgi_pool: Any, streamed: bool) -> None:
    body = b"first\nsecond\nthird\nfourth\nfifth"
    source: Any = io.BytesIO(body) if streamed else body
    answer = await wsgi_pool.run_wsgi(environ("/lines", method="POST", body=source))
    assert ast.literal_eval(answer.body.decode()) == [
        b"first\n", b"sec", b"ond\n", b"th", b"ird\n", b"fourth\n", b"fifth", b"", b"", b"",
    ]  # fmt: skip


async def test_environ_of_the_caller_arrives(wsgi_pool: Any) -> None:
    given = environ(
        "/environ",
        method="PATCH",
        query="a=%20",
        HTTP_X_ODD="\xc3\xb6",
        REMOTE_ADDR="192.0.2.7",
        SCRIPT_NAME="/mount",
        CONTENT_TYPE="text/plain",
    )
    found = await seen(wsgi_pool, given)
    for name, value in given.items():
        if name != "wsgi.input":
            assert found[name] == value, name


async def test_defaults_of_the_environ(wsgi_pool: Any, isolation: str) -> None:
    given = environ("/environ")
    del given["SCRIPT_NAME"], given["QUERY_STRING"]
    found = await seen(wsgi_pool, given)
    assert found["SCRIPT_NAME"] == ""
    assert found["QUERY_STRING"] == ""
    assert found["wsgi.version"] == (1, 0)
    assert found["wsgi.run_once"] is False
    assert found["wsgi.multithread"] is (isolation == "thread")
    assert found["wsgi.multiprocess"] is (isolation != "thread")
    assert found["wsgi.input_terminated"] is True
    assert found["subpool.worker"] in {worker.id for worker in wsgi_pool.stats().workers}
    kinds = json.loads((await wsgi_pool.run_wsgi(environ("/kinds"))).body)
    assert {"wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.early_hints"} <= kinds.keys()


async def test_what_the_caller_gives_wins(wsgi_pool: Any) -> None:
    given = environ("/environ", **{"wsgi.multithread": True, "wsgi.run_once": True, "wsgi.multiprocess": False})
    found = await seen(wsgi_pool, given)
    assert (found["wsgi.multithread"], found["wsgi.run_once"], found["wsgi.multiprocess"]) == (
        True,
        True,
        False,
    )


async def test_environ_is_the_requests_own(make_pool: Any) -> None:
    async with make_pool("wsgi_app:app", workers=1) as pool:
        before = await seen(pool, environ("/environ"))
        assert (await pool.run_wsgi(environ("/mutate"))).body == b"changed"
        assert await seen(pool, environ("/environ")) == before


async def test_the_callers_environ_is_not_changed(wsgi_pool: Any) -> None:
    given = environ("/mutate")
    before = repr(given)
    await wsgi_pool.run_wsgi(given)
    assert repr(given) == before


async def test_generator_app(wsgi_pool: Any) -> None:
    answer = await wsgi_pool.run_wsgi(environ("/generator"))
    assert answer == ("201 Created", [("X-Late", "yes")], b"one two")


async def test_empty_answer(wsgi_pool: Any) -> None:
    assert await wsgi_pool.run_wsgi(environ("/empty")) == ("204 No Content", [], b"")


async def test_written_data_goes_first(wsgi_pool: Any) -> None:
    assert (await wsgi_pool.run_wsgi(environ("/write"))).body == b"written twice returned"


async def test_close_is_called_exactly_once(wsgi_pool: Any, fifo: Any) -> None:
    report = fifo("report")
    assert (await wsgi_pool.run_wsgi(environ("/close", query=f"report={report}"))).body == b"ab"
    await wsgi_pool.run_wsgi(environ("/hello"))
    assert await report.wait() == b"c"
    assert report.empty()


@pytest.mark.parametrize("path", ["/close", "/close-unstarted"])
async def test_close_is_called_exactly_once_after_an_error(wsgi_pool: Any, fifo: Any, path: str) -> None:
    from subpool import AppError

    report = fifo("report")
    with pytest.raises(AppError):
        await wsgi_pool.run_wsgi(environ(path, query=f"report={report}&fail=1"))
    assert await report.wait() == b"c"
    assert report.empty()


async def test_an_error_in_close_is_the_callers(wsgi_pool: Any) -> None:
    from subpool import AppError

    with pytest.raises(AppError, match="in close"):
        await wsgi_pool.run_wsgi(environ("/close-raises"))


@BOTH
async def test_app_error(wsgi_pool: Any) -> None:
    from subpool import AppError

    with pytest.raises(AppError) as caught:
        await wsgi_pool.run_wsgi(environ("/raise"))
    assert caught.value.type_name.split(".")[-1] == "LookupError"
    assert caught.value.message == "no such thing: \u2603"
    assert "wsgi_app.py" in caught.value.remote_traceback


@pytest.mark.parametrize(
    "path",
    [
        "/raise-half",
        "/silent",
        "/start-twice",
        "/start-exc-info-late",
        "/bad-status?status=",
        "/bad-status?status=200",
        "/bad-status?status=OK",
        "/bad-header",
        "/bad-body",
    ],
)
async def test_what_pep_3333_forbids_is_an_app_error(wsgi_pool: Any, path: str) -> None:
    from subpool import AppError

    path, _, query = path.partition("?")
    with pytest.raises(AppError):
        await wsgi_pool.run_wsgi(environ(path, query=query))
    assert (await wsgi_pool.run_wsgi(environ("/hello"))).status == "200 OK"


async def test_start_response_with_exc_info_replaces_the_first(wsgi_pool: Any) -> None:
    answer = await wsgi_pool.run_wsgi(environ("/start-exc-info"))
    assert answer == ("500 Sorry", [("X-Second", "yes")], b"replaced")


async def test_file_wrapper(wsgi_pool: Any, tmp_path: Path) -> None:
    assert (await wsgi_pool.run_wsgi(environ("/file"))).body == b"f" * 100_000
    (tmp_path / "page").write_bytes(b"p" * 50_000)
    assert (await wsgi_pool.run_wsgi(environ("/real-file", query=f"path={tmp_path}/page"))).body == b"p" * 50_000


async def test_early_hints_are_harmless(wsgi_pool: Any) -> None:
    assert (await wsgi_pool.run_wsgi(environ("/hints"))).body == b"final"


async def test_head_has_no_body(wsgi_pool: Any) -> None:
    assert await wsgi_pool.run_wsgi(environ("/hello", method="HEAD")) == (
        "200 OK", [("Content-Type", "text/plain")], b"",
    )  # fmt: skip


@pytest.mark.parametrize("app", ["app", "writer"])
async def test_the_standard_librarys_validator_is_content(wsgi_pool: Any, app: str) -> None:
    for method, body in (("GET", b""), ("POST", b"body"), ("POST", b"b" * 100_000)):
        given = environ("/", method=method, body=body, CONTENT_LENGTH=str(len(body)))
        answer = await wsgi_pool.run_wsgi(given, app=f"strict_wsgi:{app}")
        assert answer.status == "200 OK"
        assert answer.body == b"strict " + (body if app == "app" else b"writing")


async def test_threads_run_beside_each_other(make_pool: Any, fifo: Any) -> None:
    """Two calls that each wait for the test hold one worker at the same time."""
    started, gate = fifo("started"), fifo("gate")
    async with make_pool("wsgi_app:app", workers=1, threads=2) as pool:
        assert (await seen(pool, environ("/environ")))["wsgi.multithread"] is True
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(pool.run_wsgi, environ("/block", query=f"started={started}&gate={gate}"))
            arrived = b""
            while len(arrived) < 2:
                arrived += await started.wait()
            gate.release(2)


@pytest.mark.parametrize("threads", [1, 2])
async def test_an_app_may_run_a_loop_of_its_own(make_pool: Any, threads: int) -> None:
    """`asyncio.run` in a handler, whole and streamed: no loop runs where a WSGI app is called."""
    async with make_pool("wsgi_app:app", workers=1, threads=threads) as pool:
        for _ in range(2):
            assert (await pool.run_wsgi(environ("/own-loop"))).body == b"from a loop"
            async with pool.stream_asgi(http_scope("/own-loop")) as answer:
                assert await answer.read() == b"from a loop"
        assert (await pool.run_wsgi(environ("/own-loop"), app="wsgi_app:late")).body == b"from a loop"


async def test_a_streamed_answer_comes_whole_from_threads(make_pool: Any) -> None:
    """What a thread posted arrives before the end of its call."""
    async with make_pool("wsgi_app:app", workers=1, threads=2) as pool:
        for _ in range(100):
            async with pool.stream_asgi(http_scope("/hello")) as answer:
                assert await answer.read() == b"Hello, World!"
