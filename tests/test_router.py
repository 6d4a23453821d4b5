"""The router's decisions, without workers: state in, decisions out, the clock is an argument."""

from __future__ import annotations

from typing import Any

import pytest

from subpool.errors import PoolOverloaded
from subpool.hostcall import PENDING, Call
from subpool.router import DEAF, SILENCE, Router


class FakePlace:
    """What the router knows of a worker."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.waiting = 0
        self.in_flight = self.websockets = 0
        self.stalled = self.deaf = False
        self.only_websockets = False
        self.heard = 0.0

    def hasty(self) -> bool:
        return not self.only_websockets


def call(number: int, affinity: Any = None) -> Call:
    return Call(number, (1, number), None, None, affinity, waiter=None)  # type: ignore[arg-type]


def make(places: int = 2, window: int = 2, max_pending: int = 3) -> Router[FakePlace]:
    router: Router[FakePlace] = Router(window, max_pending)
    router.places = [FakePlace(number) for number in range(places)]
    return router


def give(router: Router[FakePlace], one: Call) -> FakePlace | None:
    place = None if router.pending else router.choose(one)
    if place is None:
        router.wait(one)
    else:
        place.waiting += 1
        place.in_flight += 1
    return place


def test_the_least_loaded_worker_gets_it() -> None:
    router = make()
    router.places[0].in_flight = 5
    assert give(router, call(1)) is router.places[1]


def test_websockets_are_spread_and_weigh_nothing_for_requests() -> None:
    router = make(window=10)
    first, second = router.places
    socket = call(1)
    socket.websocket = True
    first.websockets, second.in_flight = 100, 1
    assert give(router, call(2)) is first
    assert router.choose(socket) is second
    first.websockets = 0
    assert router.choose(socket) is first  # as many requests, no more WebSockets
    first.in_flight = 2
    assert router.choose(socket) is second
    second.stalled = True  # a moment of silence does not count: it will stay for long
    assert router.choose(socket) is second
    second.deaf = True
    assert router.choose(socket) is first


def test_websockets_wait_for_a_silent_worker_but_not_for_a_deaf_one() -> None:
    router = make()
    place = router.places[0]
    place.waiting, place.only_websockets = 1, True
    assert router.stalls(2 * SILENCE) == router.stalls(DEAF) == []
    assert not place.stalled
    assert router.stalls(1.1 * DEAF) == [place]
    assert place.stalled
    assert place.deaf
    place.stalled = place.deaf = place.only_websockets = False
    assert router.stalls(2 * SILENCE) == [place]  # a request is behind it
    assert not place.deaf


def test_what_has_no_room_waits_in_order_and_is_bounded() -> None:
    router = make(places=1)
    for number in range(2):
        assert give(router, call(number)) is not None
    for number in range(2, 5):
        assert give(router, call(number)) is None
    with pytest.raises(PoolOverloaded, match="3"):
        router.wait(call(5))
    assert router.refused == 1
    assert router.next() is None
    router.places[0].waiting = 0
    found = router.next()
    assert found is not None
    assert found[0].id == 2


def test_a_newcomer_does_not_overtake() -> None:
    router = make(places=1)
    router.places[0].waiting = 2
    assert give(router, call(1)) is None
    router.places[0].waiting = 0
    assert give(router, call(2)) is None
    assert [waiting.id for waiting in router.pending] == [1, 2]


def test_a_silent_worker_is_stalled_and_gets_nothing() -> None:
    router = make()
    silent, other = router.places
    silent.waiting = 1
    assert router.stalls(SILENCE / 2) == []
    other.heard = 1.0
    assert router.stalls(1.0) == [silent]
    assert silent.stalled
    other.in_flight = 9
    assert give(router, call(1)) is other


def test_nothing_is_moved_when_all_are_silent() -> None:
    router = make()
    for place in router.places:
        place.waiting = 1
    assert router.stalls(1.0) == []
    assert give(router, call(1)) is None


def test_an_idle_worker_is_not_silent() -> None:
    router = make()
    assert router.stalls(100.0) == []
    assert not any(place.stalled for place in router.places)


def test_what_is_taken_back_goes_before_what_came_later() -> None:
    router = make(places=1, window=1)
    router.places[0].waiting = 1
    late, first, second, gone = call(9), call(1), call(2), call(3)
    give(router, late)
    gone.state = PENDING + 3
    router.put_back([first, second, gone])
    assert list(router.pending) == [first, second, late]
    assert router.taken_back == 2


def test_affinity_prefers_one_worker_as_long_as_it_answers() -> None:
    router = make(places=4, window=100)
    chosen = {give(router, call(number, affinity="key")) for number in range(20)}
    assert len(chosen) == 1
    (place,) = chosen
    assert place is not None
    place.stalled = True
    assert give(router, call(99, affinity="key")) is not place


def test_withdrawn_calls_are_gone() -> None:
    router = make(places=1, window=1)
    router.places[0].waiting = 1
    one = call(1)
    give(router, one)
    assert router.withdraw(one)
    assert not router.withdraw(one)
    assert not router.pending
