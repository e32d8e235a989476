from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from policyloop.core.profile import Rates
from policyloop.robot.watchdog import LoopWatchdog


class Told:
    """When the watchdog said what."""

    def __init__(self, period_s: float, valid_s: float | None = None) -> None:
        self.said: list[tuple[str, float]] = []
        self.watchdog = LoopWatchdog(
            Rates(control_hz=1 / period_s, command_valid_s=valid_s),
            late=lambda: self.said.append(("late", time.monotonic())),
            hung=lambda: self.said.append(("hung", time.monotonic())),
        )

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.said]


def test_a_loop_that_hangs_is_stopped_within_two_ticks_and_tripped_after_half_a_second(
    until: Callable[..., None],
) -> None:
    told = Told(period_s=0.2)
    told.watchdog.pet()
    petted_s = time.monotonic()
    until(lambda: len(told.said) == 2)
    told.watchdog.close()
    assert told.words == ["late", "hung"]
    (_, late_s), (_, hung_s) = told.said
    assert late_s - petted_s > 0.34
    assert hung_s - petted_s > 0.59


def test_it_says_so_once_for_each_time_and_again_the_next_time(until: Callable[..., None]) -> None:
    told = Told(period_s=0.05)
    until(lambda: told.words == ["late", "hung"])
    time.sleep(0.2)
    assert told.words == ["late", "hung"]
    told.watchdog.pet()
    until(lambda: told.words == ["late", "hung"] * 2)
    told.watchdog.close()


def test_a_loop_that_is_petted_is_left_alone() -> None:
    told = Told(period_s=5.0)
    for _ in range(20):
        told.watchdog.pet()
        time.sleep(0.005)
    told.watchdog.close()
    assert told.words == []
    assert "loop-watchdog" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("period_s", "valid_s", "late_s", "hung_s"),
    [
        (0.1, None, 0.175, 0.5),  # 7/8 of two ticks
        (0.012, 0.1, 0.0875, 0.5),  # 7/8 of 100 ms: a robot that walks bears missing ticks
        (0.012, 0.013, 0.021, 0.5),  # never before 1.75 ticks
        (0.2, 0.5, 0.4375, 0.6),
        (1.0, None, 1.75, 3.0),
    ],
)
def test_a_loop_is_late_before_its_commands_end_and_not_before_a_tick_can_be(
    period_s: float, valid_s: float | None, late_s: float, hung_s: float
) -> None:
    told = Told(period_s, valid_s)
    told.watchdog.close()
    assert [after_s for after_s, _ in told.watchdog._stages] == pytest.approx([late_s, hung_s])


def test_a_robot_that_bears_missing_ticks_is_left_alone_for_some(until: Callable[..., None]) -> None:
    told = Told(period_s=0.02, valid_s=0.4)
    told.watchdog.pet()
    petted_s = time.monotonic()
    until(lambda: told.words[:1] == ["late"])
    told.watchdog.close()
    assert told.said[0][1] - petted_s > 0.349


def test_after_the_whole_process_was_frozen_the_loop_is_told_though_it_lives_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(period_s=5.0)  # its thread sleeps, as it did while the process was frozen
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 14.0)
    told.watchdog.pet()
    assert told.words == []
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 14.0 + 15.5)  # three ticks of five seconds
    told.watchdog.pet()
    assert told.words == ["hung"]
    told.watchdog.pet()
    assert told.words == ["hung"]
    monkeypatch.undo()
    told.watchdog.close()
