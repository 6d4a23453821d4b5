"""What the hot paths may cost, in operations that do not depend on the machine: frames, wake-ups, copied bytes,
functions.

A change that makes a request dearer has to say so here. What is counted, and how: `perf.counts`. The bounds are what
was found on 3.13 and 3.14, with a little room for what differs between runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from perf import MIB, environ, scope  # noqa: E402
from perf.counts import AT_ONCE, HEAD, SSE_HEAD, of_calls, of_requests, served  # noqa: E402

pytestmark = pytest.mark.anyio
LINUX = sys.platform == "linux"


def perf_pool(isolation: str, app: str = "app") -> Any:
    from subpool import Pool

    return Pool(f"perf:{app}", workers=1, isolation=isolation, pythonpath=[ROOT], lifespan="off")


def hold(found: dict[str, float], isolation: str, figure: Callable[[str], None], **most: float) -> None:
    """No count above its bound. Wake-ups and reads of an eventfd are not for processes: they have sockets."""
    figure(f"{isolation}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    assert found["functions"] > 10, "nothing was counted"
    assert found["frames"] >= 2
    if isolation == "process":
        most["functions"] *= 1.15  # a socket takes and gives in as many pieces as it likes
    over = {
        name: (found[name], bound)
        for name, bound in most.items()
        if found[name] > bound and (name != "system" or LINUX)
    }
    assert not over, f"dearer than it was (found, bound): {over}"


async def test_a_small_asgi_call(isolation: str, figure: Callable[[str], None]) -> None:
    """One frame and one wake-up each way, and an eventfd read for each."""
    request = scope()
    async with perf_pool(isolation) as pool:
        found = await of_calls(pool, lambda: pool.run_asgi(request), 256)
    hold(found, isolation, figure, frames=2.1, items=2.1, wakeups=2.1, system=4.5, copied=870, functions=77)


async def test_a_small_wsgi_call(isolation: str, figure: Callable[[str], None]) -> None:
    request = environ()
    async with perf_pool(isolation, "wsgi") as pool:
        found = await of_calls(pool, lambda: pool.run_wsgi(request), 256)
    hold(found, isolation, figure, frames=2.1, items=2.1, wakeups=2.1, system=4.5, copied=900, functions=72)


async def test_many_calls_at_once(isolation: str, figure: Callable[[str], None]) -> None:
    """What one turn of the loop has for a worker wakes it once."""
    request = scope()
    async with perf_pool(isolation) as pool:
        found = await of_calls(pool, lambda: pool.run_asgi(request), 512, AT_ONCE)
    hold(found, isolation, figure, frames=2.1, items=2.1, wakeups=2.1, system=4.5, copied=870, functions=72)


async def test_a_large_answer_is_not_copied_into_a_frame(isolation: str, figure: Callable[[str], None]) -> None:
    request = scope("/big", b"%d" % MIB)
    async with perf_pool(isolation) as pool:
        assert len((await pool.run_asgi(request)).body) == MIB
        found = await of_calls(pool, lambda: pool.run_asgi(request), 64)
    functions = 170 if isolation == "process" else 96
    hold(found, isolation, figure, frames=4.1, items=3.6, wakeups=3.6, copied=1000, functions=functions)


@pytest.mark.parametrize("app", ["app", "wsgi"])
async def test_a_request_through_the_server(isolation: str, figure: Callable[[str], None], app: str) -> None:
    """Header lines that were seen before are not parsed again, on either side."""
    async with served(isolation, f"perf:{app}") as server:
        again = await of_requests(server, 128)
        assert len(server.front.heads) == 1
    hold(again, isolation, figure, frames=2.1, items=2.1, wakeups=2.1, copied=520, functions=78)


async def test_a_message_and_its_echo(isolation: str, figure: Callable[[str], None]) -> None:
    """One frame and one wake-up each way; the app goes on in the turn of the loop in which the message comes."""
    async with served(isolation, "perf:app") as server:
        found = await of_requests(server, 128, echo=True)
    hold(found, isolation, figure, frames=2.1, items=2.1, wakeups=2.1, copied=230, functions=999)


async def test_what_an_app_sends_in_one_breath_is_one_frame(isolation: str, figure: Callable[[str], None]) -> None:
    """20 events, each with a `send` of its own."""
    async with served(isolation, "perf:app") as server:
        found = await of_requests(server, 64, SSE_HEAD)
    hold(found, isolation, figure, frames=2.1, items=2.1, wakeups=2.1, copied=1800, functions=999)


async def test_lines_that_differ_cost_more(figure: Callable[[str], None]) -> None:
    """The counter sees the difference that the memory of header lines makes."""
    async with served("subinterpreter", "perf:app") as server:
        again = await of_requests(server, 64)
        server.front.remember = lambda block, headers: None
        server.front.heads.clear()
        anew = await of_requests(server, 64, HEAD)
    figure(f"functions: {again['functions']:.1f} known, {anew['functions']:.1f} anew")
    assert anew["functions"] > again["functions"] + 5
