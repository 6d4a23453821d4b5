"""`run_asgi`: what an ASGI app sees of a request, and what the caller gets of its answer."""

from __future__ import annotations

import ast
import os
from typing import Any

import anyio
import pytest
from conftest import BOTH, http_scope

pytestmark = pytest.mark.anyio

SIZES = [0, 1, 1000, 16 * 1024 - 1, 16 * 1024, 20 * 1024, 8 * 1024 * 1024]


async def seen(pool: Any, scope: Any, **options: Any) -> dict[str, Any]:
    """The scope as the app saw it."""
    answer = await pool.run_asgi(scope, **options)
    found = ast.literal_eval(answer.body.decode())
    assert isinstance(found, dict)
    return found


@BOTH
async def test_hello(pool: Any) -> None:
    status, headers, body = await pool.run_asgi(http_scope("/hello"))
    assert (status, headers, body) == (200, [(b"content-type", b"text/plain")], b"Hello, World!")


@BOTH
async def test_many_at_once_each_get_their_own_answer(pool: Any) -> None:
    answers: dict[int, bytes] = {}

    async def one(number: int) -> None:
        answers[number] = (await pool.run_asgi(http_scope("/echo", method="POST"), b"%d" % number)).body

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(one, number)
    assert answers == {number: b"%d" % number for number in range(200)}


async def test_answer_is_a_triple_with_names(pool: Any) -> None:
    answer = await pool.run_asgi(http_scope("/nowhere"))
    assert answer.status == 404
    assert answer.body == b"not found"
    assert len(answer) == 3
    assert [type(part) for part in answer] == [int, list, bytes]


async def test_header_order_and_duplicates_are_kept(pool: Any) -> None:
    answer = await pool.run_asgi(http_scope("/cookies"))
    assert answer.headers == [
        (b"set-cookie", b"a=1"),
        (b"x-between", b"yes"),
        (b"set-cookie", b"b=2"),
        (b"set-cookie", b"a=1"),
    ]


async def test_header_pairs_given_as_lists_become_tuples(pool: Any) -> None:
    assert (await pool.run_asgi(http_scope("/list-headers"))).headers == [(b"x-one", b"1"), (b"x-two", b"2")]


@pytest.mark.parametrize("size", SIZES)
async def test_body_comes_back(pool: Any, size: int) -> None:
    body = os.urandom(size)
    answer = await pool.run_asgi(http_scope("/echo", method="POST"), body)
    assert answer.body == body
    assert type(answer.body) is bytes


@pytest.mark.parametrize("wrap", [bytearray, memoryview])
async def test_body_may_be_any_bytes_like(pool: Any, wrap: Any) -> None:
    for size in (5, 100_000):
        answer = await pool.run_asgi(http_scope("/echo", method="POST"), wrap(b"a" * size))
        assert answer.body == b"a" * size


async def test_binary_bodies_are_not_recoded(pool: Any) -> None:
    body = bytes(range(256)) + "\u2603".encode()
    assert (await pool.run_asgi(http_scope("/echo", method="POST"), body)).body == body


async def test_types_of_the_scope(pool: Any) -> None:
    scope = await seen(
        pool,
        http_scope(
            "/scope",
            method="PUT",
            raw_path=b"/sc%6Fpe",
            query_string=b"a=%20&b=\xff",
            root_path="/mount",
            headers=[(b"X-Upper", b"Value"), (b"accept", b"*/*")],
        ),
    )
    assert scope["type"] == "http"
    assert scope["method"] == "PUT"
    assert scope["path"] == "/scope"
    assert scope["raw_path"] == b"/sc%6Fpe"
    assert scope["query_string"] == b"a=%20&b=\xff"
    assert scope["root_path"] == "/mount"
    assert scope["scheme"] == "http"
    assert scope["http_version"] == "1.1"
    assert scope["server"] == ("example.test", 80)
    assert scope["client"] == ("192.0.2.7", 50123)
    assert [tuple(pair) for pair in scope["headers"]] == [(b"x-upper", b"Value"), (b"accept", b"*/*")]
    assert scope["asgi"]["version"] == "3.0"
    assert isinstance(scope["asgi"]["spec_version"], str)
    assert isinstance(scope["state"], dict)


async def test_defaults_of_the_scope(pool: Any) -> None:
    scope = await seen(pool, {"type": "http", "path": "/scope"})
    assert scope["method"] == "GET"
    assert scope["scheme"] == "http"
    assert scope["http_version"] in ("1.0", "1.1")
    assert scope["raw_path"] == b"/scope"
    assert scope["query_string"] == b""
    assert scope["root_path"] == ""
    assert scope["headers"] == []
    assert scope["client"] is None
    assert scope["state"] == {}


@pytest.mark.parametrize("path", ["/sn\u00f6\u2603", "/a b", "/a%20b", "/a\u0000b"])
async def test_path_is_text_and_raw_path_bytes(pool: Any, path: str) -> None:
    """An odd path is a 404 of this app; the request must arrive all the same."""
    assert (await pool.run_asgi(http_scope(path))).status == 404


async def test_state_and_extensions_of_the_caller_arrive(pool: Any) -> None:
    scope = await seen(pool, http_scope("/scope", state={"user": 7}, extensions={"http.response.trailers": {}}))
    assert scope["state"] == {"user": 7}
    assert scope["extensions"]["http.response.trailers"] == {}


async def test_the_app_knows_its_worker(pool: Any) -> None:
    known = {worker.id for worker in pool.stats().workers}
    assert int((await pool.run_asgi(http_scope("/worker"))).body) in known


async def test_nothing_leaks_from_a_cached_template(make_pool: Any) -> None:
    """One worker, requests that differ in one field each: every one sees its own."""
    base = http_scope("/scope")
    variants: list[dict[str, Any]] = [
        base,
        {**base, "method": "POST"},
        {**base, "scheme": "https"},
        {**base, "http_version": "2"},
        {**base, "root_path": "/app"},
        {**base, "server": ("other.test", 8080)},
        {**base, "client": ("198.51.100.1", 1)},
        {**base, "client": None},
        {**base, "headers": [(b"host", b"other.test")]},
        {**base, "query_string": b"x=1"},
        {**base, "state": {"mine": 1}},
        {**base, "extensions": {"tls": {}}},
    ]
    async with make_pool(workers=1) as pool:
        for scope in [*variants, *reversed(variants), *variants]:
            found = await seen(pool, scope)
            for name, value in scope.items():
                if name == "extensions":
                    assert found[name].keys() >= value.keys()
                else:
                    assert found[name] == value, name
            if "state" not in scope:
                assert found["state"] == {}
            if "extensions" not in scope:
                assert "tls" not in found["extensions"]


async def test_more_templates_than_the_cache_holds(make_pool: Any) -> None:
    async with make_pool(workers=1) as pool:
        for _ in range(2):
            for number in range(100):
                found = await seen(pool, http_scope("/scope", server=("example.test", 1000 + number)))
                assert found["server"] == ("example.test", 1000 + number)


@pytest.mark.parametrize("templated", [False, True])
async def test_what_an_app_changes_no_later_request_sees(make_pool: Any, templated: bool) -> None:
    from subpool import build_scope

    fields = {"state": {"a": 1}, "extensions": {"tls": {}}, "asgi": {"version": "3.0", "spec_version": "2.3"}}
    scope: Any = http_scope("/mutate", **fields)
    show: Any = http_scope("/scope", **fields)
    if templated:
        scope = build_scope(scope)
        show = scope.replace(path="/scope")
    async with make_pool(workers=1) as pool:
        before = await seen(pool, show)
        for _ in range(3):
            assert (await pool.run_asgi(scope)).body == b"changed"
        assert await seen(pool, show) == before
        assert "leak" not in repr(before).lower()


async def test_the_callers_scope_is_not_changed(pool: Any) -> None:
    scope = http_scope("/mutate", state={"a": 1}, extensions={})
    before = repr(scope)
    await pool.run_asgi(scope)
    assert repr(scope) == before


async def test_template_with_replacements(pool: Any) -> None:
    from subpool import build_scope

    template = build_scope(http_scope("/scope"), state={"tenant": "a"}, extensions={"tls": {}})
    first = await seen(pool, template)
    assert (first["path"], first["state"], first["query_string"]) == ("/scope", {"tenant": "a"}, b"")
    changed = template.replace(query_string=b"q=1", headers=[(b"x-new", b"1")])
    second = await seen(pool, changed)
    assert second["query_string"] == b"q=1"
    assert [tuple(pair) for pair in second["headers"]] == [(b"x-new", b"1")]
    assert (await pool.run_asgi(template.replace(path="/hello"))).body == b"Hello, World!"
    again = await seen(pool, template)
    for scope in (first, again):
        del scope["extensions"]["subpool"]  # the worker, which may be another one
    assert again == first


async def test_one_app_call_a_request(make_pool: Any) -> None:
    async with make_pool(workers=1) as pool:
        before = int((await pool.run_asgi(http_scope("/calls"))).body)
        for _ in range(20):
            await pool.run_asgi(http_scope("/hello"))
        with pytest.raises(Exception, match="no such thing"):
            await pool.run_asgi(http_scope("/raise"))
        assert int((await pool.run_asgi(http_scope("/calls"))).body) == before + 22


async def test_affinity_keeps_to_one_worker(pool: Any) -> None:
    """Each session has its worker, and both have some. A preference: where the machine holds a worker up, another
    answers, so a session may need several rounds."""

    async def its_worker(session: str) -> bytes:
        for _ in range(50):
            ids = {(await pool.run_asgi(http_scope("/worker"), affinity=session)).body for _ in range(10)}
            if len(ids) == 1:
                return ids.pop()
        raise AssertionError(f"{session} went from worker to worker")

    workers = {session: await its_worker(session) for session in map(str, range(8))}
    assert len(set(workers.values())) == 2
    assert {session: await its_worker(session) for session in workers} == workers


async def test_both_workers_are_used(pool: Any, fifo: Any) -> None:
    """While one worker is held, the other answers."""
    started, gate = fifo("started"), fifo("gate")
    async with anyio.create_task_group() as group:
        held: list[bytes] = []

        async def hold() -> None:
            query = f"started={started}&gate={gate}".encode()
            held.append((await pool.run_asgi(http_scope("/block", query_string=query))).body)

        group.start_soon(hold)
        await started.wait()
        with anyio.fail_after(10):
            assert (await pool.run_asgi(http_scope("/hello"))).status == 200
        gate.release()
    assert held == [b"through"]
