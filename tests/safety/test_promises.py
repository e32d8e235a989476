"""Promises R25 and R28, by brute force: stale data stops in the same tick, and no input breaks the envelope."""

from __future__ import annotations

import math
import random

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Action, Arrays, Observation
from policyloop.safety.gate import SafetyGate

MS = 1_000_000
TIMEOUT_NS = 200 * MS  # rover-mini
FORWARD = Action((0.4, 0.5), "policy")


def observe(profile: RobotProfile, captured_ns: int) -> Observation:
    arrays: Arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in profile.observation_specs.items()}
    arrays["proprio"][profile.proprio_index("min_forward_dist")] = 5.0
    if "depth" in arrays:
        arrays["depth"][:] = 5000
    return Observation(arrays, captured_ns)


def violations_in_freezes(profile: RobotProfile, count: int, seed: int = 0) -> int:
    """Let the sensors freeze so often, in virtual time; counts the ticks in which the gate was wrong."""
    chance, gate, picture = random.Random(seed), SafetyGate(profile), observe(profile, 0)
    now_ns = wrong = stopped = 0
    for _ in range(count):
        captured_ns = now_ns - chance.randint(0, TIMEOUT_NS // 2)
        frozen = msgspec.structs.replace(picture, captured_ns=captured_ns)
        ends_ns = now_ns + chance.randint(0, 600 * MS)
        while True:
            command = gate.check(FORWARD, frozen, now_ns)
            stale = now_ns - captured_ns > TIMEOUT_NS
            stopped += stale
            wrong += (command.values == (0.0, 0.0)) != stale or (command.reasons == ("stale",)) != stale
            if now_ns >= ends_ns:
                break
            # Ticks come early and late, and as near to the timeout as can be.
            later_ns = captured_ns + TIMEOUT_NS + chance.choice((0, 1))
            jittered_ns = now_ns + chance.randint(50 * MS, 150 * MS)
            now_ns = later_ns if now_ns < later_ns and chance.random() < 0.3 else jittered_ns
        now_ns += chance.randint(1, 100 * MS)
    assert stopped > count
    return wrong


def test_whenever_the_sensors_freeze_the_robot_stops_in_the_tick_in_which_they_are_too_old(mini: RobotProfile) -> None:
    assert violations_in_freezes(msgspec.structs.replace(mini, camera=None), 10_000) == 0
    assert violations_in_freezes(mini, 500, seed=1) == 0


@pytest.mark.long
def test_in_a_hundred_thousand_freezes_of_the_sensors_the_robot_always_stops(mini: RobotProfile) -> None:
    assert violations_in_freezes(mini, 100_000, seed=2) == 0


PROFILE = load_profile("rover-mini")
PER_TICK = (0.15, 0.4)  # m/s: 1.5 m/s^2 for 0.1 s is the faster of both ways; rad/s: 4 rad/s^2
RANGES = ((-0.1, 0.6), (-1.2, 1.2))
# Moderate numbers make commands that are driven, all others are to be survived.
VALUES = st.floats(-1.5, 1.5) | st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
PROPOSALS = st.none() | st.lists(VALUES, min_size=2, max_size=2) | st.lists(VALUES, max_size=4)
READINGS = st.floats(-2, 6, width=32) | st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=32)
PROPRIO = st.lists(st.floats(0, 6, width=32), min_size=6, max_size=6) | st.lists(READINGS, min_size=5, max_size=7)
OBSTACLE = st.tuples(st.integers(0, 63), st.integers(1, 30), st.sampled_from((0, 1, 150, 300, 450, 900, 65535)))
AGES_NS = st.just(0) | st.integers(-1, TIMEOUT_NS + 1)
INPUTS = st.lists(st.tuples(PROPOSALS, PROPRIO, OBSTACLE, AGES_NS), min_size=1, max_size=5)
Inputs = list[tuple[list[float] | None, list[float], tuple[int, int, int], int]]


def check_the_envelope(inputs: Inputs) -> None:
    gate, last = SafetyGate(PROFILE), (0.0, 0.0)
    for tick, (proposal, proprio, (column, width, depth_mm), age_ns) in enumerate(inputs):
        now_ns = tick * 100 * MS
        observation = observe(PROFILE, now_ns - age_ns)
        observation.arrays["proprio"] = np.array(proprio, np.float32)
        observation.arrays["depth"][:, column : column + width] = depth_mm
        action = None if proposal is None else Action(tuple(proposal), "policy")
        command = gate.check(action, observation, now_ns)
        assert len(command.values) == 2
        for value, before, (low, high), most in zip(command.values, last, RANGES, PER_TICK, strict=True):
            assert math.isfinite(value)
            assert low <= value <= high
            braked = abs(value) <= abs(before) and value * before >= 0
            assert braked or abs(value - before) <= most + 1e-12
        if not all(map(math.isfinite, (*proprio, *(proposal or [math.nan])))) or len(proprio) != 6:
            assert command.values == (0.0, 0.0)
        last = command.values


@given(INPUTS)
@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@example(
    [([0.6, 1.2], [0.0, 0.0, 0.0, 0.0, 9.81, 5.0], (0, 1, 5000), 0)] * 4 + [([-0.1, -1.2], [0.0] * 6, (30, 4, 450), 0)]
)
@example([([0.6, 1.2], [3e38, 3e38, 0.0, 0.0, 0.0, 5.0], (30, 4, 450), 0)] * 3)
@example([([5e-324, -5e-324], [1e-45] * 6, (30, 4, 450), 0)] * 2)
def test_whatever_comes_in_what_goes_out_is_finite_in_range_and_never_faster_than_the_motors(inputs: Inputs) -> None:
    check_the_envelope(inputs)


@pytest.mark.long
@given(INPUTS)
@settings(max_examples=100_000, suppress_health_check=[HealthCheck.too_slow])
def test_a_hundred_thousand_inputs_of_any_kind_break_nothing(inputs: Inputs) -> None:
    check_the_envelope(inputs)
