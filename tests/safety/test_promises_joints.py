"""Promise R28 for a robot with joints, by brute force: no input breaks the envelope, and what is wrong lets go."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from policyloop.core.profile import load_profile
from policyloop.core.step import Action, Observation
from policyloop.safety.arming import ArmState
from policyloop.safety.gate import SafetyGate

MS = 1_000_000
PROFILE = load_profile("lite3")
STOP = PROFILE.stop().values
LOWS, HIGHS = (-0.523, -2.67, 0.524) * 4, (0.523, 0.314, 2.792) * 4
PER_TICK = (0.3144, 0.3144, 0.72) * 4  # rad: 26.2 and 60 rad/s for 12 ms
HOLD_NS = TIMEOUT_NS = 50 * MS

# Moderate numbers make commands that are driven, all others are to be survived.
VALUES = st.floats(-3, 3) | st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
PROPOSALS = (
    st.none()
    | st.tuples(st.floats(-3, 3), st.integers(0, 11), VALUES).map(
        lambda drawn: [drawn[2] if joint == drawn[1] else drawn[0] for joint in range(12)]
    )
    | st.lists(VALUES, min_size=12, max_size=12)
    | st.lists(VALUES, max_size=14)
)
READINGS = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=32)
EDITS = st.just({}) | st.dictionaries(st.integers(0, 44), READINGS, max_size=3)
LEANING = st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)) | st.tuples(st.floats(-4, 4), st.floats(-2, 2))
SIZES = st.just(45) | st.integers(0, 46)
AGES_NS = st.just(0) | st.integers(-1, TIMEOUT_NS + 1)
PASSING_NS = st.just(12 * MS) | st.integers(0, 60 * MS)
STATES: st.SearchStrategy[ArmState] = st.just("armed") | st.sampled_from(("armed", "disarmed", "human", "tripped"))
TICKS = st.tuples(PROPOSALS, EDITS, LEANING, SIZES, AGES_NS, PASSING_NS, STATES, st.booleans(), st.booleans())
Tick = tuple[list[float] | None, dict[int, float], tuple[float, float], int, int, int, ArmState, bool, bool]
PLAIN: Tick = ([0.2] * 12, {}, (0.0, 0.0), 45, 0, 12 * MS, "armed", False, False)


def observed(edits: dict[int, float], leaning: tuple[float, float], size: int) -> np.ndarray:
    roll, pitch = leaning
    proprio = np.zeros(45, np.float32)
    proprio[3:6] = math.sin(pitch), -math.cos(pitch) * math.sin(roll), -math.cos(pitch) * math.cos(roll)
    for index, value in edits.items():
        proprio[index] = value
    return np.resize(proprio, size)


def sound(proprio: np.ndarray) -> bool:
    """Whether these are 45 numbers of a body that stands."""
    if len(proprio) != 45 or not np.isfinite(proprio).all():
        return False
    x, y, z = proprio[3:6].astype(float)
    if not 0.9 <= math.hypot(x, y, z) <= 1.1:
        return False
    return abs(math.atan2(-y, -z)) <= 0.5237 and abs(math.atan2(x, math.hypot(y, z))) <= 0.7855


def check_the_envelope(ticks: list[Tick]) -> None:
    gate, last, driven, proposed_ns, now_ns = SafetyGate(PROFILE), STOP, False, 0, 0
    for proposal, edits, leaning, size, age_ns, passing_ns, state, contact, astray in ticks:
        now_ns += passing_ns
        proprio = observed(edits, leaning, size)
        observation = Observation({"proprio": proprio}, now_ns - age_ns, contact, followed=not astray)
        action = None if proposal is None else Action(tuple(proposal), "policy")
        command = gate.check(action, observation, now_ns, state)
        assert len(command.values) == 12
        for value, low, high in zip(command.values, LOWS, HIGHS, strict=True):
            assert math.isfinite(value)
            assert low <= value <= high
        if command.damped:
            assert command.values == STOP
            assert len(command.reasons) == 1
        else:
            for value, before, most in zip(command.values, last, PER_TICK, strict=True):
                assert abs(value - before) <= most + 1e-9
            assert sound(proprio)
            assert 0 <= age_ns <= TIMEOUT_NS
            assert not contact
            assert state == "armed" or (state == "human" and action is None)
            if action is None:
                assert (command.values, command.reasons) == (last, ("held",))
                assert driven
                assert now_ns - proposed_ns < HOLD_NS
            else:
                assert len(action.values) == 12
                assert all(map(math.isfinite, action.values))
        last = STOP if astray else command.values
        driven = not astray and not command.damped
        proposed_ns = proposed_ns if action is None else now_ns


@given(st.lists(TICKS, min_size=1, max_size=4))
@settings(max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
@example([PLAIN] * 4)
@example([PLAIN, (None, *PLAIN[1:]), (None, *PLAIN[1:5], 37 * MS, *PLAIN[6:]), (None, *PLAIN[1:5], MS, *PLAIN[6:])])
@example([([9.0] * 12, *PLAIN[1:]), ([-9.0] * 12, *PLAIN[1:])] * 2)
@example([([5e-324, -5e-324] * 6, *PLAIN[1:]), ([1.7e308] * 12, *PLAIN[1:]), ([-1.7e308] * 12, *PLAIN[1:])])
@example([PLAIN, (*PLAIN[:7], True, False), (None, *PLAIN[1:7], True, False), PLAIN])
@example([PLAIN, (*PLAIN[:8], True), (None, *PLAIN[1:]), PLAIN])
@example([PLAIN, (*PLAIN[:1], {3: 0.0, 4: 0.0, 5: 0.0}, *PLAIN[2:]), (*PLAIN[:1], {3: 3e38, 4: 3e38}, *PLAIN[2:])])
def test_whatever_comes_in_targets_are_finite_in_range_and_never_faster_than_the_joints(ticks: list[Tick]) -> None:
    check_the_envelope(ticks)


@pytest.mark.long
@given(st.lists(TICKS, min_size=1, max_size=4))
@settings(max_examples=100_000, suppress_health_check=[HealthCheck.too_slow])
def test_a_hundred_thousand_inputs_of_any_kind_break_nothing(ticks: list[Tick]) -> None:
    check_the_envelope(ticks)
