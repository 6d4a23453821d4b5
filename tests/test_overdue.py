"""The calls that nobody waits for: when they are interrupted, and when their worker counts as stuck."""

from __future__ import annotations

import pytest

from subpool.overdue import HITS, SILENT, Overdue


class Steward:
    """Notes the interrupts, and answers each as it is told."""

    def __init__(self, overdue: Overdue, answer: bool | None) -> None:
        self.overdue, self.answer = overdue, answer
        self.asked: list[int] = []

    def __call__(self, call: int) -> None:
        self.asked.append(call)
        if self.answer is not None:
            self.overdue.answered(call, self.answer)


def until_stuck(answer: bool | None, limit: int = 50) -> int:
    """The interrupts before the worker counts as stuck; `limit` if it never does."""
    overdue = Overdue(1.0)
    steward = Steward(overdue, answer)
    overdue.add(7, 0.0)
    for second in range(1, limit + 1):
        if overdue.escalate(float(second), steward):
            return len(steward.asked)
    return limit


@pytest.mark.parametrize(("answer", "interrupts"), [(True, HITS), (None, SILENT), (False, 50)])
def test_when_a_worker_is_stuck(answer: bool | None, interrupts: int) -> None:
    assert until_stuck(answer) == interrupts


def test_a_grace_passes_before_each_step() -> None:
    overdue = Overdue(0.5)
    steward = Steward(overdue, False)
    overdue.add(1, 10.0)
    for now, asked in ((10.0, 0), (10.4, 0), (10.5, 1), (10.9, 1), (11.0, 2)):
        assert not overdue.escalate(now, steward)
        assert len(steward.asked) == asked


def test_an_answer_ends_the_silence() -> None:
    overdue = Overdue(1.0)
    overdue.add(1, 0.0)
    for second in range(1, 40):
        assert not overdue.escalate(float(second), lambda _: None)
        if second % SILENT == 0:
            overdue.answered(1, False)


def test_a_forgotten_call_is_not_interrupted() -> None:
    overdue = Overdue(1.0)
    steward = Steward(overdue, True)
    overdue.add(1, 0.0)
    overdue.add(2, 0.0)
    overdue.forget(1)
    overdue.forget(3)
    overdue.answered(1, True)
    assert len(overdue) == 1
    assert not overdue.escalate(5.0, steward)
    assert steward.asked == [2]
