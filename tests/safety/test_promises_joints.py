"""Promise R28 for a robot with joints, by brute force: no input breaks the envelope, and what is wrong lets go."""

from __future__ import annotations

import math
import random

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

# Mostly one number is out of the ordinary; now and then all twelve (or fewer) are any that there are.
VALUES = st.floats(-3, 3) | st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
PROPOSALS = (
    st.none()
    | st.tuples(st.integers(0, 11), VALUES).map(lambda drawn: [0.2] * drawn[0] + [drawn[1]] + [0.2] * (11 - drawn[0]))
    | st.binary(min_size=96, max_size=96).map(lambda bits: np.frombuffer(bits).tolist())
    | VALUES.map(lambda value: [value] * 12)
    | st.integers(0, 14).map(lambda size: [0.2] * size)
)
READINGS = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=32)
EDITS = st.just({}) | st.tuples(st.integers(0, 44), READINGS).map(lambda drawn: dict([drawn]))
Tick = tuple[list[float] | None, dict[int, float], int | None]
"""A proposal, readings to be replaced, and what else is not as it should be: drawn from a seed, None = nothing."""
TICKS = st.tuples(PROPOSALS, EDITS, st.none() | st.integers(0, 2**32))


class Circumstances:
    """What comes with a proposal, mostly as usual."""

    def __init__(self, seed: int | None) -> None:
        chance = random.Random(seed)
        odd = [seed is not None and chance.random() < 0.3 for _ in range(7)]
        self.leaning = (chance.uniform(-4, 4), chance.uniform(-2, 2)) if odd[0] else (chance.uniform(-0.3, 0.3), 0.1)
        self.size = chance.randint(0, 46) if odd[1] and odd[6] else 45
        self.age_ns = chance.choice((-1, 1, TIMEOUT_NS, TIMEOUT_NS + 1)) if odd[2] else 0
        self.passing_ns = chance.randint(0, 60 * MS) if odd[3] else 12 * MS
        states: tuple[ArmState, ...] = ("disarmed", "human", "tripped")
        self.state: ArmState = chance.choice(states) if odd[4] and odd[6] else "armed"
        self.contact, self.astray = odd[5] and odd[6], odd[5] and not odd[6]


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
    for proposal, edits, seed in ticks:
        around = Circumstances(seed)
        now_ns += around.passing_ns
        proprio = observed(edits, around.leaning, around.size)
        observation = Observation(
            {"proprio": proprio}, now_ns - around.age_ns, around.contact, followed=not around.astray
        )
        action = None if proposal is None else Action(tuple(proposal), "policy")
        command = gate.check(action, observation, now_ns, around.state)
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
            assert 0 <= around.age_ns <= TIMEOUT_NS
            assert not around.contact
            assert around.state == "armed" or (around.state == "human" and action is None)
            if action is None:
                assert (command.values, command.reasons) == (last, ("held",))
                assert driven
                assert now_ns - proposed_ns < HOLD_NS
            else:
                assert len(action.values) == 12
                assert all(map(math.isfinite, action.values))
        last = STOP if around.astray else command.values
        driven = not around.astray and not command.damped
        proposed_ns = proposed_ns if action is None else now_ns


@given(st.lists(TICKS, min_size=1, max_size=3))
@settings(max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
@example([([0.2] * 12, {}, None)] + [(None, {}, None)] * 6)
@example([([9.0] * 12, {}, None), ([-9.0] * 12, {}, None)] * 2)
@example([([value] * 12, {}, None) for value in (5e-324, 1.7e308, -1.7e308, math.nan)])
@example([([0.2] * 12, edits, None) for edits in ({}, {5: 0.0}, {3: 3e38, 4: 3e38}, {44: math.inf})])
def test_whatever_comes_in_targets_are_finite_in_range_and_never_faster_than_the_joints(ticks: list[Tick]) -> None:
    check_the_envelope(ticks)


@pytest.mark.long
@given(st.lists(TICKS, min_size=1, max_size=4))
@settings(max_examples=100_000, suppress_health_check=[HealthCheck.too_slow])
def test_a_hundred_thousand_inputs_of_any_kind_break_nothing(ticks: list[Tick]) -> None:
    check_the_envelope(ticks)
