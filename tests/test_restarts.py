"""The restart policy, as the pure function that it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subpool.restarts import LONGEST, SHORTEST, Restarts

GAPS = st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=60)


def test_what_had_proved_itself_starts_at_once() -> None:
    restarts = Restarts(3, 60.0)
    assert [restarts.ended(float(now), True) for now in range(3)] == [0.0, 0.0, 0.0]
    assert restarts.ended(3.0, True) is None
    assert repr(restarts) == "<Restarts 4 of 3 in 60 s>"


def test_what_had_not_waits_longer_each_time() -> None:
    restarts = Restarts(20, 1e9, lambda: 0.0)
    waits = [restarts.ended(0.0, False) for _ in range(9)]
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5, 2.5]
    assert restarts.ended(0.0, True) == 0.0
    assert restarts.ended(0.0, False) == 0.05
    assert Restarts(20, 1e9, lambda: 1.0).ended(0.0, False) == 0.1


def test_old_ends_do_not_count() -> None:
    restarts = Restarts(1, 10.0, lambda: 0.0)
    assert restarts.ended(0.0, True) == 0.0
    assert restarts.ended(10.1, True) == 0.0
    assert restarts.ended(20.0, True) is None


@settings(deadline=None)
@given(st.integers(1, 8), st.floats(0.1, 60), GAPS)
def test_never_more_than_most_in_a_window(most: int, window: float, steps: list[tuple[float, bool]]) -> None:
    """Whatever comes: a start is refused exactly when the window is full, and a wait is within its bounds."""
    restarts = Restarts(most, window)
    now, ends = 0.0, []
    for gap, proved in steps:
        now += gap
        ends.append(now)
        wait = restarts.ended(now, proved)
        recent = [end for end in ends if now - end <= window]
        assert (wait is None) == (len(recent) > most)
        if wait is not None:
            assert wait == 0.0 if proved else SHORTEST <= wait <= LONGEST


@pytest.mark.parametrize("most", [1, 10])
def test_a_refusal_is_not_for_ever(most: int) -> None:
    restarts = Restarts(most, 5.0)
    waits = [restarts.ended(0.0, True) for _ in range(most + 1)]
    assert waits == [0.0] * most + [None]
    assert restarts.ended(5.5, True) == 0.0
