"""A node's parameters: typed, within their range; limits of safety only ever get tighter while it runs."""

from __future__ import annotations

import math

import pytest

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Action
from policyloop.errors import ConfigError, SafetyRefusal
from policyloop.robot.ros.limits import tightened
from policyloop.robot.ros.parameters import Parameter, Value, why_refused
from policyloop.safety.gate import SafetyGate

TABLE = (
    Parameter(name="speed", default=0.18, about="", unit="m/s", low=0.01, high=5.0, live="down"),
    Parameter(name="room", default=0.25, about="", unit="m", low=0.05, high=5.0, live="up"),
    Parameter(name="topic", default="/odom", about=""),
    Parameter(name="count", default=3, about="", low=1, high=9, live="free"),
    Parameter(name="stamped", default=False, about=""),
)
OLD: dict[str, Value] = {parameter.name: parameter.default for parameter in TABLE}


@pytest.mark.parametrize(
    "new", [{"speed": 0.1}, {"room": 0.3}, {"count": 9}, {"speed": 0.18, "topic": "/odom"}, {"room": 1}]
)
def test_what_is_fine(new: dict[str, Value]) -> None:
    assert why_refused(TABLE, OLD, new) == ""


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ({"speed": 0.2}, "speed: a limit of safety can only be lowered while the node runs, it is 0.18"),
        ({"room": 0.2}, "room: a limit of safety can only be raised"),
        ({"speed": 0.1, "room": 0.2}, "room: "),
        ({"speed": 0.0}, "0.0 is not within 0.01 to 5 m/s"),
        ({"speed": math.nan}, "nan is not finite"),
        ({"speed": "fast"}, "'fast' is no float"),
        ({"count": True}, "True is no int"),
        ({"count": 1.5}, "1.5 is no int"),
        ({"stamped": 1}, "1 is no bool"),
        ({"topic": "/other"}, "topic: it cannot change while the node runs"),
        ({"colour": 1}, "there is no parameter colour"),
    ],
)
def test_what_is_refused_and_why(new: dict[str, Value], why: str) -> None:
    assert why in why_refused(TABLE, OLD, new)


def test_at_the_start_a_limit_may_be_anything_within_its_range() -> None:
    assert why_refused(TABLE, {}, {"speed": 5.0, "topic": "/other"}) == ""
    assert why_refused(TABLE, {}, {"speed": 5.1}) != ""


LIMITS = {"max_linear_mps": 0.18, "max_angular_radps": 1.0, "safety_distance_m": 0.3}


def test_limits_are_the_narrower_of_the_profiles_and_the_parameters() -> None:
    rover = load_profile("rover")
    narrow = tightened(rover, **LIMITS)
    assert (narrow.limits.max_forward_mps, narrow.limits.max_reverse_mps) == (0.18, 0.1)
    assert narrow.limits.safety_distance_m == 0.3
    assert [(entry.low, entry.high) for entry in narrow.action] == [(-0.1, 0.18), (-1.0, 1.0)]
    wide = tightened(rover, max_linear_mps=9.0, max_angular_radps=9.0, safety_distance_m=0.01)
    assert (wide.limits, wide.action) == (rover.limits, rover.action)
    with pytest.raises(ConfigError):
        tightened(rover, **{**LIMITS, "safety_distance_m": 9.99})


def test_a_gate_takes_narrower_limits_while_it_runs_and_no_wider_ones(mini: RobotProfile) -> None:
    narrow, gate = tightened(mini, **LIMITS), SafetyGate(mini)
    gate.tighten(narrow)
    assert gate.rules(Action((9.0, 9.0), "policy"), None, 0).values == (0.0, 0.0)
    for wider in (mini, tightened(mini, **{**LIMITS, "safety_distance_m": 0.25})):
        with pytest.raises(SafetyRefusal, match="cannot be widened"):
            gate.tighten(wider)
    gate.tighten(narrow)
