"""The gate's mathematics, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyloop.convert.judge import Judgement, Thresholds, judge
from policyloop.core.profile import RobotProfile


def verdict(
    profile: RobotProfile | None, expected: list, found: list, precision: str = "int8", **more: object
) -> Judgement:
    distances = more.pop("distances_m", None)
    return judge(
        np.array(expected, np.float32),
        np.array(found, np.float32),
        profile=profile,
        distances_m=None if distances is None else np.array(distances, np.float32),
        thresholds=Thresholds(**more),
        precision=precision,
    )


def test_errors_are_those_of_the_action_in_its_unit(mini: RobotProfile) -> None:
    result = verdict(mini, [[0.0, 0.0], [1.0, 0.0]], [[0.1, 0.0], [1.0, -0.2]])
    linear, angular = result.actions
    # linear: -0.1..0.6 m/s, half range 0.35; angular: -1.2..1.2 rad/s
    assert (linear.unit, linear.range, angular.unit, angular.range) == (
        "m/s",
        pytest.approx(0.7),
        "rad/s",
        pytest.approx(2.4),
    )
    assert linear.worst == pytest.approx(0.35 * math.tanh(0.1), abs=1e-6)
    assert linear.mean == pytest.approx(0.35 * math.tanh(0.1) / 2, abs=1e-6)
    assert angular.worst == pytest.approx(1.2 * math.tanh(0.2), abs=1e-6)
    assert result.output_max_abs == pytest.approx(0.2)
    assert result.output_mean_abs == pytest.approx((0.1 + 0.2) / 4)
    assert result.worst_samples == [1, 0]  # 0.237 of 2.4 is more than 0.035 of 0.7


def test_the_worst_near_an_obstacle_counts_the_unknown_as_near(mini: RobotProfile) -> None:
    found = [[0.3, 0.0], [0.2, 0.0], [0.1, 0.0]]
    result = verdict(mini, [[0.0, 0.0]] * 3, found, distances_m=[2.0, 0.5, 0.0])
    assert result.actions[0].worst_near == pytest.approx(0.35 * math.tanh(0.2), abs=1e-6)
    assert verdict(mini, [[0.0, 0.0]], [[0.1, 0.0]], distances_m=[3.0]).actions[0].worst_near is None
    assert verdict(mini, [[0.0, 0.0]], [[0.1, 0.0]]).actions[0].worst_near is None


def test_the_gate_passes_up_to_its_limits_and_names_what_is_beyond(mini: RobotProfile) -> None:
    # one sample of 100 is off by about half the range: mean 0.5 %, but p99 far beyond
    expected = [[0.0, 0.0]] * 100
    assert verdict(mini, expected, expected).failures == []
    result = verdict(mini, expected, [[0.0, 2.0]] * 2 + expected[2:])
    assert len(result.failures) == 1
    assert result.failures[0].startswith("angular: p99 error")
    assert "rad/s" in result.failures[0]
    result = verdict(mini, expected, [[0.1, 0.0]] * 100)
    # 0.35 tanh(0.1) = 0.0349 m/s: 4.98 % of 0.7, within p99's 5 % but beyond the mean's 2 %
    assert [failure.split(" error")[0] for failure in result.failures] == ["linear: mean"]
    assert "5.0% of its range, at most 2%" in result.failures[0]


def test_float16_must_also_keep_the_output_itself(mini: RobotProfile) -> None:
    assert verdict(mini, [[3.0, 0.0]], [[3.004, 0.0]], "float16").failures == []
    failures = verdict(mini, [[3.0, 0.0]], [[3.01, 0.0]], "float16").failures
    assert failures == ["the network's output: worst error 1.0e-02, at most 0.005"]
    assert verdict(mini, [[3.0, 0.0]], [[3.01, 0.0]], "int8").failures == []


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_numbers_that_are_not_finite_never_pass(mini: RobotProfile, broken: float) -> None:
    failures = verdict(mini, [[0.0, 0.0]], [[broken, 0.0]]).failures
    assert failures[0] == "the converted network answers with numbers that are not finite"


def test_without_a_profile_the_outputs_are_judged_against_the_range_they_span() -> None:
    result = verdict(None, [[0.0], [10.0]], [[0.1], [10.0]])
    assert (result.actions[0].name, result.actions[0].range) == ("output 0", pytest.approx(10.0))
    assert result.actions[0].worst == pytest.approx(0.1)
    assert result.failures == []
    assert verdict(None, [[0.0], [10.0]], [[0.6], [10.0]]).failures != []
