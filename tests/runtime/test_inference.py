from __future__ import annotations

import threading
import time

import pytest

from policyloop.core.step import Action, Observation
from policyloop.runtime.inference import InferenceLate, InferenceThread

SEEN = Observation({}, 0)


class Thinker:
    """Answers with a number that grows, when it is let."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.asked = 0

    def act(self, observation: Observation, exploration: object = None) -> Action:
        self.asked += 1
        number = self.asked
        self.may.wait()
        if number == 13:
            raise ValueError("thirteen")
        return Action((float(number),), "policy")


def test_an_answer_in_time_comes_back() -> None:
    inference, thinker = InferenceThread(5.0), Thinker()
    assert [inference.act(thinker, SEEN).values for _ in range(3)] == [(1.0,), (2.0,), (3.0,)]  # type: ignore[arg-type]
    inference.close()
    assert not inference._thread.is_alive()


def test_what_the_policy_raises_is_raised_where_it_was_asked() -> None:
    inference, thinker = InferenceThread(5.0), Thinker()
    thinker.asked = 12
    with pytest.raises(ValueError, match="thirteen"):
        inference.act(thinker, SEEN)  # type: ignore[arg-type]
    assert inference.act(thinker, SEEN).values == (14.0,)  # type: ignore[arg-type]
    inference.close()


def test_a_late_answer_is_thrown_away_and_nobody_waits_for_it() -> None:
    inference, thinker = InferenceThread(0.02), Thinker()
    thinker.may.clear()
    started_s = time.monotonic()
    with pytest.raises(InferenceLate, match="longer than 20 ms"):
        inference.act(thinker, SEEN)  # type: ignore[arg-type]
    for _ in range(5):
        with pytest.raises(InferenceLate, match="still busy"):
            inference.act(thinker, SEEN)  # type: ignore[arg-type]
    assert time.monotonic() - started_s < 2.0
    assert thinker.asked == 1
    thinker.may.set()
    deadline_s = time.monotonic() + 10
    while inference.busy and time.monotonic() < deadline_s:
        time.sleep(0.001)
    inference._deadline_s = 5.0
    assert inference.act(thinker, SEEN).values == (2.0,)  # type: ignore[arg-type]
    inference.close()


def test_one_that_hangs_is_left_behind() -> None:
    inference, thinker = InferenceThread(0.01), Thinker()
    thinker.may.clear()
    with pytest.raises(InferenceLate):
        inference.act(thinker, SEEN)  # type: ignore[arg-type]
    inference.close()
    assert inference._thread.is_alive()
    thinker.may.set()
    inference._thread.join(10)
    assert not inference._thread.is_alive()
