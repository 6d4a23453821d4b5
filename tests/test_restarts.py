"""The pure parts of supervision: how often something is started again, when a worker is renewed, how many there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subpool.elastic import CALM, PATIENCE, Elastic
from subpool.renewal import Renewal
from subpool.restarts import DELAY, Restarts


def test_at_most_so_many_in_a_window() -> None:
    restarts = Restarts(3, 10.0)
    assert [restarts.ended(now, True) for now in (0.0, 1.0, 2.0)] == [0.0, 0.0, 0.0]
    assert restarts.ended(3.0, True) is None
    assert restarts.total == 3


def test_the_window_moves_on() -> None:
    restarts = Restarts(2, 10.0)
    assert [restarts.ended(now, True) for now in (0.0, 9.0, 10.0, 19.0, 20.0)] == [0.0] * 5
    assert restarts.ended(20.5, True) is None


def test_none_at_all() -> None:
    assert Restarts(0, 10.0).ended(0.0, True) is None


def test_what_did_not_prove_itself_is_given_time() -> None:
    restarts = Restarts(100, 1000.0, jitter=lambda: 1.0)
    assert [restarts.ended(0.0, False) for _ in range(9)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert restarts.ended(0.0, True) == 0.0
    assert restarts.ended(0.0, False) == 0.05


def test_ends_far_apart_are_no_series() -> None:
    restarts = Restarts(10, 60.0, jitter=lambda: 1.0)
    assert [restarts.ended(now, False) for now in (0.0, 50.0, 1000.0, 5000.0, 5001.0)] == [0.05, 0.1, 0.05, 0.05, 0.1]


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60), st.integers(0, 5), st.floats(0.1, 50))
def test_whatever_happens(ends: list[tuple[float, bool]], most: int, window: float) -> None:
    """Never more starts than allowed in any window that ends with one; never a longer delay than the longest."""
    restarts = Restarts(most, window)
    starts = []
    for now, proved in sorted(ends):
        delay = restarts.ended(now, proved)
        if delay is not None:
            starts.append(now)
            assert 0.0 <= delay <= DELAY[1]
            assert sum(now - window < at <= now for at in starts) <= most


def test_renewal_by_requests_age_and_memory() -> None:
    limits = Renewal(100, 0, 60.0, 1 << 20, chance=lambda: 0.0).limits()
    assert limits.reached(99, 59.0, (1 << 20) - 1) is None
    assert "100 requests" in (limits.reached(100, 0.0, None) or "")
    assert "60 s old" in (limits.reached(0, 60.0, None) or "")
    assert "1 MiB" in (limits.reached(0, 0.0, 1 << 20) or "")


def test_no_limits() -> None:
    assert Renewal(None, 0, None, None).limits().reached(10**9, 1e9, 1 << 40) is None


@given(st.integers(1, 1000), st.integers(0, 100), st.floats(0, 0.999999))
def test_jitter_adds_up_to_so_many(requests: int, jitter: int, chance: float) -> None:
    limits = Renewal(requests, jitter, 10.0, None, chance=lambda: chance).limits()
    assert requests <= limits.requests <= requests + jitter
    assert 10.0 <= limits.age <= 11.0


def test_one_more_when_work_waits() -> None:
    elastic = Elastic(1, 3)
    steps = [elastic.decide(tick / 10, 1, 5, False) for tick in range(PATIENCE)]
    assert steps == [0] * (PATIENCE - 1) + [1]
    assert elastic.decide(1.0, 1, 5, True) == 0  # one is on its way
    assert [elastic.decide(2 + tick / 10, 3, 5, False) for tick in range(20)] == [0] * 20  # no more than the most


def test_what_waits_now_and_then_asks_for_none() -> None:
    elastic = Elastic(1, 3)
    assert [elastic.decide(tick / 10, 1, tick % PATIENCE, False) for tick in range(50)] == [0] * 50


def test_one_goes_when_it_is_calm() -> None:
    elastic = Elastic(1, 3)
    steps = {tick / 10: elastic.decide(tick / 10, 3, 0, False) for tick in range(round(CALM * 10) + 1)}
    assert [now for now, step in steps.items() if step] == [CALM]
    assert steps[CALM] == -1


def test_none_goes_below_the_least_or_while_work_waits() -> None:
    elastic = Elastic(2, 3)
    assert not any(elastic.decide(tick / 10, 2, 0, False) for tick in range(700))
    elastic = Elastic(1, 3)
    assert not any(elastic.decide(tick / 10, 3, tick % 10 == 0, False) for tick in range(700))


def test_too_few_are_filled_up() -> None:
    assert Elastic(2, 3).decide(0.0, 1, 0, False) == 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_reprs(size: int) -> None:
    assert "of 3 in 10 s" in repr(Restarts(3, 10.0))
    assert f"{size} to 4" in repr(Elastic(size, 4))
    assert "age=None" in repr(Renewal(size, 0, None, None))
