from __future__ import annotations

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action
from policyloop.runtime.health import Probation, Shadow, SwapSettings

SETTINGS = SwapSettings(shadow_ticks=4, divergence=0.25, probation_s=30, late_share=0.01, trip_ratio=3)


def action(linear: float = 0.0, angular: float = 0.0) -> Action:
    return Action((linear, angular), "policy")


def shadow_of(profile: RobotProfile, proposed: Action, latency_s: float = 0.001, ticks: int = 4) -> Shadow:
    shadow = Shadow(profile, SETTINGS)
    for _ in range(ticks):
        shadow.compare(action(), proposed, latency_s)
    return shadow


def test_a_candidate_that_answers_alike_and_in_time_may_drive(mini: RobotProfile) -> None:
    shadow = shadow_of(mini, action(0.01, 0.02))
    assert (shadow.done, shadow.problem) == (True, "")
    assert not shadow_of(mini, action(), ticks=3).done


def test_divergence_is_the_mean_over_ticks_and_actions_of_the_share_of_the_range(mini: RobotProfile) -> None:
    linear, angular = (2 * half for half in mini.action_half_range.tolist())
    # 0.4 of one action's range and 0.2 of the other's: 0.3 in the mean, of which 0.25 is allowed.
    assert "30% of their range away" in shadow_of(mini, action(0.4 * linear, -0.2 * angular)).problem
    shadow = Shadow(mini, SETTINGS)
    for share in (0.4, 0.0, 0.4, 0.0):  # 0.2 in the mean
        shadow.compare(action(), action(share * linear, share * angular), 0.001)
    assert shadow.problem == ""
    assert "divergence mean 20.0%, largest 40.0%" in shadow.summary


def test_a_candidate_that_needs_more_than_its_share_of_a_tick_may_not_drive(mini: RobotProfile) -> None:
    tick_s = 1 / mini.rates.control_hz
    assert shadow_of(mini, action(), 0.79 * tick_s).problem == ""
    assert "of a tick (p99)" in shadow_of(mini, action(), 0.81 * tick_s).problem


def test_one_answer_that_is_not_finite_ends_the_shadow_at_once(mini: RobotProfile) -> None:
    shadow = shadow_of(mini, action(float("nan")), ticks=1)
    assert shadow.done
    assert "not finite" in shadow.problem


def drive(probation: Probation, ticks: int, *, late_every: int = 0, trip_every: int = 0) -> None:
    for tick in range(1, ticks + 1):
        probation.inferred("late" if late_every and tick % late_every == 0 else "fine")
        probation.commanded(tripped=bool(trip_every) and tick % trip_every == 0)


def test_a_policy_is_good_after_so_many_seconds_of_driving() -> None:
    probation = Probation(SETTINGS, 10.0)
    drive(probation, 299)
    assert not probation.passed
    drive(probation, 1)
    assert (probation.passed, probation.problem) == (True, "")


@pytest.mark.parametrize("outcome", ["error", "not-finite"])
def test_one_error_or_nan_is_one_too_many(outcome: str) -> None:
    probation = Probation(SETTINGS, 10.0)
    drive(probation, 100)
    probation.inferred(outcome, "why")  # type: ignore[arg-type]
    assert f"{outcome} while driving: why" in probation.problem
    drive(probation, 300)
    assert not probation.passed


def test_one_in_a_hundred_ticks_may_be_late_and_the_next_may_not() -> None:
    probation = Probation(SETTINGS, 10.0)  # 300 ticks: three may be late
    drive(probation, 3, late_every=1)
    assert probation.problem == ""
    probation.inferred("late")
    assert "4 of 4 ticks late" in probation.problem


def test_a_policy_that_only_hangs_is_found_out_within_two_seconds() -> None:
    for control_hz in (10.0, 30.0, 83.3):
        probation, ticks = Probation(SETTINGS, control_hz), 0
        while not probation.problem:
            probation.inferred("late")
            ticks += 1
        assert ticks / control_hz < 0.5


def test_the_gate_may_stop_it_three_times_as_often_as_the_policy_before_it() -> None:
    calm = Probation(SETTINGS, 10.0, baseline=0.1)
    drive(calm, 299, trip_every=4)  # 25 %, of which 30 % are allowed
    assert calm.problem == ""
    wild = Probation(SETTINGS, 10.0, baseline=0.1)
    drive(wild, 299, trip_every=3)
    assert "at most 30% are allowed" in wild.problem


def test_a_policy_that_never_had_to_be_stopped_leaves_its_successor_some_room() -> None:
    probation = Probation(SETTINGS, 10.0, baseline=0.0)
    drive(probation, 299, trip_every=7)  # 14 %, of which 15 % are allowed
    assert probation.problem == ""


def test_without_a_policy_before_it_stops_are_not_held_against_it() -> None:
    probation = Probation(SETTINGS, 10.0, baseline=None)
    drive(probation, 300, trip_every=1)
    assert probation.passed


def test_the_first_ticks_are_too_few_to_count_stops() -> None:
    probation = Probation(SETTINGS, 10.0)
    drive(probation, 49, trip_every=1)
    assert probation.problem == ""
    drive(probation, 1, trip_every=1)
    assert "the gate stopped it in 50 of 50 ticks" in probation.problem
