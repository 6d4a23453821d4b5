"""`stream_asgi`: both bodies piece by piece, with back-pressure both ways."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from conftest import BOTH, DEADLINE, eventually, http_scope, in_flight

pytestmark = pytest.mark.anyio


async def drain(pool: Any) -> None:
    """Nothing is left in flight."""
    await eventually(lambda: in_flight(pool) == 0 and pool.stats().pending == 0)


@BOTH
async def test_chunks_arrive(pool: Any) -> None:
    async with pool.stream_asgi(http_scope("/chunks")) as stream:
        assert stream.status == 200
        assert stream.headers == [(b"x-streamed", b"yes")]
        chunks = [chunk async for chunk in stream]
    assert all(type(chunk) is bytes and chunk for chunk in chunks)
    assert b"".join(chunks) == b"".join(b"chunk %d\n" % number for number in range(10))
    await drain(pool)


@BOTH
async def test_a_chunk_arrives_before_the_next_is_made(pool: Any, fifo: Any) -> None:
    gate = fifo("gate")
    with anyio.fail_after(DEADLINE):
        async with pool.stream_asgi(http_scope("/step-chunks", query_string=f"gate={gate}".encode())) as stream:
            chunks = aiter(stream)
            assert await anext(chunks) == b"first"
            gate.release()
            assert await anext(chunks) == b"second"
            with pytest.raises(StopAsyncIteration):
                await anext(chunks)


@pytest.mark.parametrize("size", [0, 1, 100_000, 8 * 1024 * 1024])
async def test_bodies_of_all_sizes(pool: Any, size: int) -> None:
    async with pool.stream_asgi(http_scope("/big", query_string=b"%d" % size)) as stream:
        assert sum([len(chunk) async for chunk in stream]) == size


@BOTH
@pytest.mark.parametrize("kind", ["list", "generator", "async"])
async def test_the_body_may_be_any_iterable(pool: Any, kind: str) -> None:
    pieces = [b"one ", b"", b"two ", b"x" * 40_000]

    async def later() -> AsyncIterator[bytes]:
        for piece in pieces:
            await anyio.lowlevel.checkpoint()
            yield piece

    body: Any = {"list": pieces, "generator": iter(pieces), "async": later()}[kind]
    async with pool.stream_asgi(http_scope("/echo", method="POST"), body) as stream:
        assert b"".join([chunk async for chunk in stream]) == b"".join(pieces)


@BOTH
async def test_a_reader_that_is_slow_holds_the_app_back(make_pool: Any, fifo: Any) -> None:
    """An app without end, a reader that takes little: what the app may run ahead is bounded."""
    report, started = fifo("report"), fifo("started")
    async with make_pool(workers=1) as pool:
        query = f"report={report}&started={started}".encode()
        with anyio.fail_after(DEADLINE):
            async with pool.stream_asgi(http_scope("/endless", query_string=query)) as stream:
                await started.wait()
                taken = 0
                async for chunk in stream:
                    taken += len(chunk)
                    if taken >= 3 * 65536:
                        break
                # The worker still answers others while the stream waits.
                for _ in range(20):
                    assert (await pool.run_asgi(http_scope("/hello"))).status == 200
            sent, kind = json.loads(await report.wait())
        assert 3 <= sent <= 200
        assert kind in ("os", "CancelledError")
        await drain(pool)


@pytest.mark.parametrize("size", [0, 1])
async def test_many_small_pieces(pool: Any, wsgi_pool: Any, size: int) -> None:
    """Each counts more than it holds, also an empty one; all that was taken is told to the app."""
    with anyio.fail_after(DEADLINE):
        for one in (pool, wsgi_pool):
            async with one.stream_asgi(http_scope("/many", query_string=b"count=2000&size=%d" % size)) as stream:
                assert await stream.read() == b"x" * 2000 * size + b"end"
            await drain(one)


@BOTH
async def test_an_upload_is_held_back_by_a_slow_app(make_pool: Any, fifo: Any) -> None:
    """64 MiB go up while the app does not read: only a window of it is taken from the caller."""
    gate, started = fifo("gate"), fifo("started")
    pieces, size = 1024, 65536
    given = 0
    hasher = hashlib.sha256()

    async def upload() -> AsyncIterator[bytes]:
        nonlocal given
        for number in range(pieces):
            given += 1
            piece = bytes([number % 256]) * size
            hasher.update(piece)
            yield piece

    async with make_pool(workers=1) as pool:
        query = f"gate={gate}&started={started}".encode()
        answers: list[Any] = []

        async def send() -> None:
            scope = http_scope("/digest", method="POST", query_string=query)
            async with pool.stream_asgi(scope, upload()) as stream:
                answers.append(json.loads(b"".join([chunk async for chunk in stream])))

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await started.wait()
            for _ in range(50):
                assert (await pool.run_asgi(http_scope("/hello"))).status == 200
            assert given < 300
            gate.release()
        assert given == pieces
        total, widest, digest = answers[0]
        assert total == pieces * size
        assert widest < total / 10
        assert digest == hasher.hexdigest()


async def test_leaving_early_ends_the_app(make_pool: Any, fifo: Any) -> None:
    report, started = fifo("report"), fifo("started")
    async with make_pool(workers=1) as pool:
        query = f"report={report}&started={started}".encode()
        async with pool.stream_asgi(http_scope("/endless", query_string=query)) as stream:
            assert stream.status == 200
        assert json.loads(await report.wait())[1] in ("os", "CancelledError")
        await drain(pool)
        assert pool.stats().abandoned == 0


async def test_an_upload_that_fails_ends_the_request(make_pool: Any, fifo: Any) -> None:
    report = fifo("report")

    async def upload() -> AsyncIterator[bytes]:
        yield b"some"
        raise LookupError("the source broke")

    async with make_pool(workers=1) as pool:
        scope = http_scope("/digest", method="POST", query_string=f"report={report}".encode())
        with anyio.fail_after(DEADLINE), pytest.raises((LookupError, ExceptionGroup)):
            async with pool.stream_asgi(scope, upload()) as stream:
                async for _ in stream:
                    pass
        await drain(pool)
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200


async def test_pieces_that_are_no_bytes_are_refused(pool: Any) -> None:
    with pytest.raises((TypeError, ExceptionGroup), match=r"(?i)bytes|body|group"):
        async with pool.stream_asgi(http_scope("/echo", method="POST"), ["text"]) as stream:
            async for _ in stream:
                pass
    await drain(pool)


@BOTH
async def test_errors_before_the_start_are_raised_on_entering(pool: Any) -> None:
    from subpool import AppError

    for path in ("/raise", "/silent"):
        with pytest.raises(AppError):
            async with pool.stream_asgi(http_scope(path)):
                pytest.fail("entered")
    await drain(pool)


@BOTH
@pytest.mark.parametrize("path", ["/raise-half", "/half"])
async def test_errors_in_the_middle_are_raised_from_the_iteration(pool: Any, path: str) -> None:
    from subpool import AppError

    with pytest.raises(AppError):
        async with pool.stream_asgi(http_scope(path)) as stream:
            assert await anext(aiter(stream)) == b"half"
            async for _ in stream:
                pass
    await drain(pool)


async def test_an_answer_before_the_upload_is_read(pool: Any) -> None:
    """An app that does not read the body answers; what the caller still has to send does not matter."""

    async def upload() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    with anyio.fail_after(DEADLINE):
        async with pool.stream_asgi(http_scope("/hello", method="POST"), upload()) as stream:
            assert b"".join([chunk async for chunk in stream]) == b"Hello, World!"
    await drain(pool)


@pytest.mark.parametrize("burst", [(300, 64), pytest.param((2000, 2000), marks=pytest.mark.soak)])
async def test_a_burst_of_lent_buffers(make_pool: Any, burst: tuple[int, int]) -> None:
    number, at_once = burst
    async with make_pool(max_pending=4096, timeout=120.0) as pool:
        limiter = anyio.Semaphore(at_once)

        async def one() -> None:
            async with limiter:
                answer = await pool.run_asgi(http_scope("/big", query_string=b"200000"))
                assert len(answer.body) == 200_000

        async with anyio.create_task_group() as group:
            for _ in range(number):
                group.start_soon(one)
        await drain(pool)


async def test_answers_outlive_their_pool(make_pool: Any) -> None:
    async with make_pool(workers=1) as pool:
        answers = [await pool.run_asgi(http_scope("/big", query_string=b"1000000")) for _ in range(5)]
    assert all(answer.body == b"b" * 1_000_000 for answer in answers)


async def test_a_pool_closes_while_slow_readers_hold_buffers(make_pool: Any) -> None:
    """Readers that have taken one piece of many when the pool closes: they get an error, no crash."""
    from subpool import SubpoolError

    kept: list[bytes] = []
    ended: list[str] = []
    reading = 0

    async with anyio.create_task_group() as group:
        async with make_pool(close_timeout=1.0) as pool:
            closed = anyio.Event()

            async def reader() -> None:
                nonlocal reading
                try:
                    async with pool.stream_asgi(http_scope("/endless")) as stream:
                        chunks = aiter(stream)
                        kept.append(await anext(chunks))
                        reading += 1
                        await closed.wait()
                        kept.extend([chunk async for chunk in chunks])
                    ended.append("end")
                except SubpoolError as error:
                    ended.append(type(error).__name__)

            for _ in range(10):
                group.start_soon(reader)
            await eventually(lambda: reading == 10)
        closed.set()
    assert len(ended) == 10
    assert "end" not in ended
    assert {bytes(chunk[:1]) for chunk in kept} == {b"x"}
