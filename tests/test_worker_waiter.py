"""What an app waits for in `receive()` and `send()`: when its task goes on, and what cancels it."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import Any

import pytest

from subpool.worker.streams import Inbox
from subpool.worker.waiter import Waiter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def waiting(inbox: Inbox, said: list[Any]) -> None:
    while True:
        while not inbox.events:
            inbox.waiter = Waiter(asyncio.get_running_loop())
            await inbox.waiter
        said.append(inbox.events.popleft())


async def test_a_task_goes_on_when_it_is_let_and_in_its_own_context() -> None:
    """One wait takes all that came; a second event for it wakes nobody twice."""
    woken: deque[Waiter] = deque()
    inbox, said = Inbox(woken), []
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")

    async def app() -> None:
        mark.set("app")
        inbox.waiter = Waiter(asyncio.get_running_loop())
        await inbox.waiter
        said.append((mark.get(), list(inbox.events)))

    task = asyncio.create_task(app())
    await asyncio.sleep(0)
    inbox.put("one")
    inbox.put("two")
    assert len(woken) == 1
    over = asyncio.get_running_loop().create_future()

    def let() -> None:  # a callback of the loop, as `Worker.on_flow` is
        woken.popleft().go()
        over.set_result(list(said))

    asyncio.get_running_loop().call_soon(let)
    assert await over == [("app", ["one", "two"])]
    assert mark.get() == "none"
    await task


async def test_one_that_is_to_go_on_soon_goes_on_in_the_next_turn() -> None:
    inbox, said = Inbox(deque()), []
    task = asyncio.create_task(waiting(inbox, said))
    await asyncio.sleep(0)
    inbox.events.append("last")
    inbox.end()
    assert said == []
    await asyncio.sleep(0)
    assert said == ["last"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("woken_before", [False, True])
async def test_a_cancelled_wait_ends_the_task(woken_before: bool) -> None:
    """Also of a task that was woken and did not go on yet: cancelled by one that went on before it."""
    woken: deque[Waiter] = deque()
    inbox, said = Inbox(woken), []
    task = asyncio.create_task(waiting(inbox, said))
    await asyncio.sleep(0)
    if woken_before:
        inbox.put("never read")
    task.cancel("enough")
    while woken:
        woken.popleft().go_soon()
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert said == []


async def test_a_wait_that_is_over_before_its_task_waits() -> None:
    """Who drives a coroutine may keep what it yielded for long."""
    loop = asyncio.get_running_loop()
    waiter = Waiter(loop)
    waiter.over = True
    waiter.go()  # nobody waits: nothing
    await asyncio.wait_for(waiting_for(waiter), 10)
    assert not waiter.cancel()


async def waiting_for(waiter: Waiter) -> None:
    await waiter
