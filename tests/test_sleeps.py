"""Sleeping: a worker's loop and its selector, `aio.sleep` there and elsewhere.

No test here says how long a sleep takes, but that it is never too short; `perf.sleeps` measures the rest.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import itertools
import json
import os
import random
import selectors
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from conftest import BOTH, environ, eventually, http_scope
from hypothesis import given, settings
from hypothesis import strategies as st

from subpool import PoolTimeout, aio

linux = pytest.mark.skipif(not hasattr(os, "timerfd_create"), reason="timerfd is Linux's")
SLEEPS = (aio.sleep, asyncio.sleep)
both = pytest.mark.parametrize("sleep", SLEEPS, ids=["aio", "asyncio"])
Sleep = Callable[..., Awaitable[Any]]


def run(main: Callable[[], Any], short: float | None = None) -> Any:
    """`main()` on a worker's loop; a long `short` keeps sleeps that are to be cancelled from ending."""
    from subpool.timed_loop import Loop

    def make() -> Loop:
        loop = Loop()
        loop.short = loop.short if short is None else short
        return loop

    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(main())


# the loop


@linux
@both
@settings(max_examples=25)
@given(delays=st.lists(st.floats(0.0, 0.015) | st.sampled_from([1e-9, 0.001, 0.002]), min_size=1, max_size=30))
def test_no_sleep_is_too_short(sleep: Sleep, delays: list[float]) -> None:
    async def one(delay: float) -> float:
        start = time.monotonic_ns()
        await sleep(delay)
        return time.monotonic_ns() - start - delay * 1e9

    async def main() -> list[float]:
        return await asyncio.gather(*map(one, delays))

    least = -1 if sleep is aio.sleep else -1000  # asyncio: by its clock's resolution, and floats
    assert min(run(main)) >= least


@linux
@both
def test_sleeps_end_in_their_order(sleep: Sleep) -> None:
    delays = [random.Random(7).choice([0.0002, 0.001, 0.0025, 0.004, 0.02]) for _ in range(200)]
    ended: list[tuple[float, float]] = []

    async def one(delay: float) -> None:
        earliest = time.monotonic() + delay
        coro = sleep(delay)
        waiting = asyncio.ensure_future(coro)  # eager: asleep behind this line
        latest = time.monotonic() + delay
        await waiting
        ended.append((earliest, latest))

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await asyncio.gather(*map(one, delays))

    run(main)
    assert len(ended) == len(delays)
    for (earliest, _), (_, latest) in itertools.pairwise(ended):
        assert earliest <= latest


@linux
def test_sleeps_and_timers_beside_each_other() -> None:
    """Long timers, short timers, sleeps, and a descriptor that is ready again and again."""
    count = {"timer": 0, "sleep": 0, "bytes": 0}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)

            def echo() -> None:
                count["bytes"] += len(ours.recv(1))
                theirs.send(b".")

            loop.add_reader(ours, echo)
            theirs.send(b".")
            far = [loop.call_later(30 + number, int) for number in range(50)]
            for number in range(50):
                loop.call_later(number / 5000, lambda: count.update(timer=count["timer"] + 1))

            async def sleeper() -> None:
                for _ in range(10):
                    await aio.sleep(0.001)
                    count["sleep"] += 1

            await asyncio.gather(*(sleeper() for _ in range(20)), aio.sleep(0.012))
            loop.remove_reader(ours)
            for handle in far:
                handle.cancel()

    run(main)
    assert count["timer"] == 50
    assert count["sleep"] == 200
    assert count["bytes"] > 10


@linux
@both
def test_many_thousand_sleeps(sleep: Sleep) -> None:
    rng = random.Random(1)

    async def main() -> int:
        return sum(await asyncio.gather(*(sleep(rng.uniform(0.0, 0.05), 1) for _ in range(20_000))))

    assert run(main) == 20_000


@linux
def test_cancelling_ends_a_sleep_at_once() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        tasks = [asyncio.create_task(aio.sleep(20)) for _ in range(5000)]
        await asyncio.sleep(0)
        assert len(loop._sleepers) == 5000
        assert "<Sleeper pending>" in repr(tasks[0])
        for task in tasks:
            assert task.cancel("enough")
        await asyncio.sleep(0)  # one turn later
        assert all(task.cancelled() for task in tasks)
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await tasks[0]
        assert loop._selector.select(0.0001) == []
        assert loop._sleepers == []  # who was cancelled is not waited for

    run(main, short=30)


@linux
def test_time_limits_around_a_sleep() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await aio.sleep(20)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aio.sleep(20), 0.001)
        with anyio.move_on_after(0.001) as scope:
            await aio.sleep(20)
        assert scope.cancelled_caught
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert await aio.sleep(0.001, "and on") == "and on"

    run(main, short=30)


@linux
def test_cancelled_by_who_was_due_in_the_same_turn() -> None:
    ended = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def first() -> None:
            await aio.sleep(0.002)
            second.cancel()

        async def last() -> None:
            try:
                await aio.sleep(0.003)
            finally:
                ended.append(loop.time())

        second = loop.create_task(last())
        other = loop.create_task(first())
        await asyncio.sleep(0)
        start = time.monotonic()
        while time.monotonic() < start + 0.005:  # both are due when the loop looks again
            pass
        await asyncio.wait([second, other])
        assert second.cancelled()

    run(main)
    assert len(ended) == 1


@linux
def test_cancelled_before_it_began() -> None:
    async def cancelled_in_its_own_step() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await aio.sleep(20)

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(cancelled_in_its_own_step())

    run(main, short=30)


@linux
def test_tasks_written_in_python() -> None:
    """Who debugs or patches asyncio has these instead of those in C."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def one() -> str:
        name.set("mine")
        await aio.sleep(0.001)
        return name.get()

    async def main() -> None:
        make = asyncio.tasks._PyTask  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        assert await make(one(), loop=loop) == "mine"
        task = make(aio.sleep(20), loop=loop)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main, short=30)


@linux
def test_a_sleep_that_ends_the_loop_leaves_the_others() -> None:
    from subpool.timed_loop import Loop

    ended = []

    async def leave() -> None:
        await aio.sleep(0.002)
        raise SystemExit(3)

    async def stay() -> None:
        await aio.sleep(0.002)
        ended.append(True)

    async def start() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(one()) for one in (leave, stay, stay)]
        await asyncio.sleep(0)
        return tasks

    loop = Loop()
    try:
        tasks = loop.run_until_complete(start())
        with pytest.raises(SystemExit):
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(asyncio.wait(tasks))
        assert ended == [True, True]
        assert isinstance(tasks[0].exception(), SystemExit)
    finally:
        loop.close()


@linux
def test_debug_mode() -> None:
    from subpool.timed_loop import Loop

    with asyncio.Runner(loop_factory=Loop, debug=True) as runner:
        assert runner.run(aio.sleep(0.001, "slept")) == "slept"


# what it costs


class Timers:
    """Counts what is asked of the system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = self.armed = 0
        self.error: OSError | None = None
        make, arm = os.timerfd_create, os.timerfd_settime_ns

        def create(*args: Any, **kwargs: Any) -> int:
            self.made += 1
            if self.error is not None:
                raise self.error
            return make(*args, **kwargs)

        def settime(*args: Any, **kwargs: Any) -> Any:
            self.armed += 1
            return arm(*args, **kwargs)

        monkeypatch.setattr(os, "timerfd_create", create)
        monkeypatch.setattr(os, "timerfd_settime_ns", settime)


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    return Timers(monkeypatch)


@linux
def test_without_short_waits_there_is_no_timer(timers: Timers) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        far = [loop.call_later(30 + number, int) for number in range(100)]
        for _ in range(10):
            await asyncio.sleep(0)
            await loop.run_in_executor(None, int)  # woken by a descriptor
        for handle in far:
            handle.cancel()

    run(main)
    assert (timers.made, timers.armed) == (0, 0)


@linux
def test_a_timer_is_armed_once_for_a_moment(timers: Timers) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        handle = loop.call_later(0.09, int)
        waiting = asyncio.create_task(aio.sleep(0.08))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            for _ in range(30):  # each a wait of its own
                await loop.sock_sendall(theirs, b".")
                await loop.sock_recv(ours, 1)
        assert timers.armed < 10  # a machine that stalls costs another
        await waiting
        handle.cancel()

    run(main)
    assert timers.made <= 1


@linux
@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOSYS])
def test_a_system_that_gives_no_timers(timers: Timers, error: int) -> None:
    async def main() -> None:
        timers.error = OSError(error, os.strerror(error))
        start = time.monotonic()
        for sleep in SLEEPS:
            await sleep(0.002)
        assert time.monotonic() - start >= 0.003999
        assert timers.made >= 2
        assert timers.armed == 0
        timers.error = None  # there are descriptors again
        await aio.sleep(0.002)
        assert timers.armed >= 1

    run(main)


# the selector


def kinds() -> Iterator[Any]:
    yield selectors.DefaultSelector
    if hasattr(os, "timerfd_create"):
        from subpool.timed_loop import TimedSelector

        yield TimedSelector


@pytest.mark.parametrize("kind", list(kinds()))
def test_the_contract_of_selectors(kind: type[selectors.BaseSelector]) -> None:
    ours, theirs = socket.socketpair()
    with kind() as selector, ours, theirs:
        key = selector.register(ours, selectors.EVENT_READ, "data")
        assert key == (ours, ours.fileno(), selectors.EVENT_READ, "data")
        with pytest.raises(KeyError):
            selector.register(ours, selectors.EVENT_READ)
        with pytest.raises(ValueError, match="Invalid events"):
            selector.register(theirs, 0)
        assert selector.select(0) == []
        assert selector.select(-1) == []
        for _ in range(3):  # each ends by its timeout
            start = time.monotonic()
            assert selector.select(0.002) == []
            assert time.monotonic() - start >= 0.002
        theirs.send(b".")
        for timeout in (None, 0, 0.001, 0.05, 5.0):
            assert selector.select(timeout) == [(key, selectors.EVENT_READ)]
        assert dict(selector.get_map()) == {ours.fileno(): key}
        assert selector.get_key(ours) == key
        key = selector.modify(ours, selectors.EVENT_READ | selectors.EVENT_WRITE, "other")
        assert selector.select(0.01) == [(key, selectors.EVENT_READ | selectors.EVENT_WRITE)]
        key = selector.modify(ours, selectors.EVENT_WRITE, "other")
        assert selector.select(0.01) == [(key, selectors.EVENT_WRITE)]
        other = selector.register(theirs.fileno(), selectors.EVENT_WRITE)
        assert sorted(key.fd for key, _ in selector.select(0.01)) == sorted([ours.fileno(), theirs.fileno()])
        assert selector.unregister(theirs.fileno()) == other
        with pytest.raises(KeyError):
            selector.unregister(theirs)
        with pytest.raises(KeyError):
            selector.modify(theirs, selectors.EVENT_READ)
        assert selector.unregister(ours) == key
        assert selector.select(0.001) == []
        assert isinstance(selector.fileno(), int)  # type: ignore[attr-defined]
        closing = socket.socketpair()
        selector.register(closing[0], selectors.EVENT_READ)
        for sock in closing:
            sock.close()
        selector.unregister(closing[0])  # closed meanwhile
        assert selector.select(0.001) == []
    assert selector.get_map() is None
    with pytest.raises(RuntimeError):
        selector.get_key(ours)
    selector.close()  # twice is no harm


@linux
def test_what_is_ready_is_told_before_the_timer() -> None:
    """With one descriptor there is room for one event at a time: the timer's must not hide it for good."""
    from subpool.timed_loop import TimedSelector

    ours, theirs = socket.socketpair()
    with TimedSelector() as selector, ours, theirs:
        key = selector.register(ours, selectors.EVENT_READ)
        for _ in range(20):
            assert selector.select(0.0005) == []
        start = time.monotonic()
        assert selector.select(0.11) == []  # and without a timer: nothing is left of the last
        assert time.monotonic() - start >= 0.11
        theirs.send(b".")
        found = [selector.select(0.0005) for _ in range(3)]
        assert found.count([(key, selectors.EVENT_READ)]) >= 2


@linux
def test_the_timer_is_closed_with_the_loop() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run(lambda: aio.sleep(0.001))
    assert set(os.listdir("/proc/self/fd")) == before


# workers


LOOP = "subpool.timed_loop" if hasattr(os, "timerfd_create") else "asyncio.unix_events"  # where a worker's is defined


@pytest.mark.anyio
async def test_handlers_sleep(make_pool: Any) -> None:
    async with make_pool("sleepy_app:app") as pool:
        answers: list[dict[str, Any]] = []

        async def ask(number: int) -> None:
            response = await pool.run_asgi(http_scope("/sleeps", query_string=b"%d" % number))
            answers.append(json.loads(response.body))

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(ask, number)
    assert {answer["loop"] for answer in answers} == {LOOP}
    assert {answer["name"] for answer in answers} == {str(number) for number in range(20)}
    assert all(answer["early"] == 0 and answer["same"] for answer in answers)


@pytest.mark.anyio
async def test_a_time_limit_ends_a_sleep(make_pool: Any) -> None:
    async with make_pool("sleepy_app:app", workers=1) as pool:
        with pytest.raises(PoolTimeout) as caught:
            await pool.run_asgi(http_scope("/for-ever"), timeout=0.3)
        assert caught.value.started
        (worker,) = pool.stats().workers
        await eventually(lambda: pool.stats().workers[0].in_flight == 0)
        assert (await pool.run_asgi(http_scope("/"))).status == 200
        assert pool.stats().workers[0].generation == worker.generation


@pytest.mark.anyio
@pytest.mark.parametrize("threads", [1, 3])
async def test_a_loop_of_the_apps_own_is_asyncios(make_pool: Any, threads: int) -> None:
    async with make_pool("sleepy_app:wsgi", threads=threads, interface="wsgi") as pool:
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                answer = await pool.run_wsgi(environ("/"))
                assert answer.body.decode() == "asyncio.unix_events"

            for _ in range(6):
                group.start_soon(ask)


@linux
@pytest.mark.anyio
async def test_no_descriptor_is_left(make_pool: Any) -> None:
    async def once() -> None:
        async with make_pool("sleepy_app:app") as pool:
            await pool.run_asgi(http_scope("/sleeps"))

    def count() -> int:
        return sum("timerfd" in name or "eventpoll" in name for name in map(target, os.listdir("/proc/self/fd")))

    def target(fd: str) -> str:
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            return ""

    await once()
    before = count()
    await once()
    await eventually(lambda: count() <= before)


def test_a_loop_that_the_app_chose_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that installs uvloop, in a process or where workers are threads."""
    from subpool.worker.life import _new_loop

    class Chosen(asyncio.SelectorEventLoop):
        pass

    monkeypatch.setattr(asyncio, "new_event_loop", Chosen)
    loop = _new_loop()
    try:
        assert type(loop) is Chosen
    finally:
        loop.close()
        asyncio.set_event_loop(None)


# everywhere


@pytest.mark.anyio
@BOTH
async def test_on_the_host(anyio_backend: str) -> None:
    start = time.monotonic()
    assert await aio.sleep(0.002, "slept") == "slept"
    assert await aio.sleep(0.002) is None
    assert time.monotonic() - start >= 0.0039
    assert await aio.sleep(0, "at once") == "at once"
    assert await aio.sleep(-1, "at once") == "at once"
    with pytest.raises(ValueError, match="NaN"):
        await aio.sleep(float("nan"))
    with anyio.move_on_after(0.001) as scope:
        await aio.sleep(20)
    assert scope.cancelled_caught


def test_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(aio.sleep(0.001, "slept")) == "slept"


@linux
def test_arguments_are_those_of_asyncio() -> None:
    async def main() -> None:
        for sleep in SLEEPS:
            with pytest.raises(ValueError, match="NaN"):
                await sleep(float("nan"))
            with pytest.raises(TypeError):
                await sleep("1")
            assert await sleep(0.001, "result") == "result"
            assert await sleep(True - 1, result="keyword") == "keyword"
            turns: list[int] = []
            loop = asyncio.get_running_loop()
            loop.call_soon(turns.append, 1)
            await sleep(0)
            assert turns == [1]
            loop.call_soon(loop.call_soon, turns.append, 2)
            await sleep(-5)
            assert turns == [1]  # once
            await sleep(0)
            assert turns == [1, 2]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sleep(20), 0.001)

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is nothing to load")
def test_who_only_sleeps_loads_no_loop() -> None:
    import subprocess

    code = "from subpool import aio; import sys; assert 'subpool.timed_loop' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=25, check=True)
