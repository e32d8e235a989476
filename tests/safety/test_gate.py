from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.spec import Quantity, RangedQuantity
from policyloop.core.step import Action, Arrays, Command, Observation
from policyloop.errors import ConfigError
from policyloop.safety.gate import GateMode, SafetyGate

NOW_NS = 5_000_000_000
TIMEOUT_NS = 300_000_000  # rover-mini: sensor_timeout_s = 0.3
DISTANCE = 5  # position of min_forward_dist in the proprioception vector
MODES: tuple[GateMode, ...] = ("full", "limits")


def observe(
    profile: RobotProfile, distance_m: float = 5.0, *, captured_ns: int = NOW_NS, contact: bool = False, **replaced: Any
) -> Observation:
    arrays: Arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in profile.observation_specs.items()}
    arrays["proprio"][profile.proprio_index("min_forward_dist")] = distance_m
    arrays.update(replaced)
    return Observation(arrays, captured_ns, contact)


def propose(*values: float) -> Action:
    return Action(values, "policy")


def gate_check(
    profile: RobotProfile, action: Action | None, observation: Observation | None, mode: GateMode = "full"
) -> Command:
    return SafetyGate(profile, mode).check(action, observation, NOW_NS)


@pytest.mark.parametrize("mode", MODES)
def test_a_harmless_proposal_passes_unchanged_and_without_a_reason(mini: RobotProfile, mode: GateMode) -> None:
    assert gate_check(mini, propose(0.4, -0.7), observe(mini), mode) == Command((0.4, -0.7), ())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", [0, 1])
def test_a_proposal_that_is_not_finite_stops(mini: RobotProfile, mode: GateMode, bad: float, index: int) -> None:
    values = [0.3, 0.3]
    values[index] = bad
    assert gate_check(mini, propose(*values), observe(mini), mode) == Command((0.0, 0.0), ("not-finite",))


@pytest.mark.parametrize("values", [(), (0.3,), (0.3, 0.3, 0.3)])
def test_a_proposal_of_another_length_stops(mini: RobotProfile, values: tuple[float, ...]) -> None:
    assert gate_check(mini, propose(*values), observe(mini)).values == (0.0, 0.0)


@pytest.mark.parametrize("mode", MODES)
def test_no_proposal_stops(mini: RobotProfile, mode: GateMode) -> None:
    assert gate_check(mini, None, observe(mini), mode) == Command((0.0, 0.0), ("no-proposal",))


@pytest.mark.parametrize("mode", MODES)
def test_no_observation_stops(mini: RobotProfile, mode: GateMode) -> None:
    assert gate_check(mini, propose(0.3, 0.3), None, mode) == Command((0.0, 0.0), ("no-observation",))


@pytest.mark.parametrize("mode", MODES)
def test_an_observation_drives_until_its_timeout_and_not_a_nanosecond_longer(
    mini: RobotProfile, mode: GateMode
) -> None:
    just_fresh, just_stale = (observe(mini, captured_ns=NOW_NS - TIMEOUT_NS - late) for late in (0, 1))
    assert gate_check(mini, propose(0.3, 0.3), just_fresh, mode).values == (0.3, 0.3)
    assert gate_check(mini, propose(0.3, 0.3), just_stale, mode) == Command((0.0, 0.0), ("stale",))


@pytest.mark.parametrize("mode", MODES)
def test_an_observation_from_the_future_stops(mini: RobotProfile, mode: GateMode) -> None:
    observation = observe(mini, captured_ns=NOW_NS + 1)
    assert gate_check(mini, propose(0.3, 0.3), observation, mode) == Command((0.0, 0.0), ("stale",))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", range(6))
def test_a_reading_that_is_not_finite_stops_whichever_it_is(
    mini: RobotProfile, mode: GateMode, bad: float, index: int
) -> None:
    observation = observe(mini)
    observation.arrays["proprio"][index] = bad
    assert gate_check(mini, propose(0.3, 0.3), observation, mode) == Command((0.0, 0.0), ("bad-observation",))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("proprio", np.zeros(5, np.float32)),
        ("proprio", np.zeros((6, 1), np.float32)),
        ("proprio", np.zeros(6, np.float64)),
        ("depth", np.zeros((64, 36), np.uint16)),
        ("depth", np.zeros((36, 64), np.float32)),
        ("rgb", np.zeros((3, 36, 64), np.uint8)),
        ("rgb", np.zeros((36, 64, 4), np.uint8)),
    ],
)
def test_an_array_of_another_shape_or_type_stops(
    mini: RobotProfile, mode: GateMode, name: str, array: np.ndarray[Any, Any]
) -> None:
    observation = observe(mini, **{name: array})
    assert gate_check(mini, propose(0.3, 0.3), observation, mode) == Command((0.0, 0.0), ("bad-observation",))


@pytest.mark.parametrize("missing", ["rgb", "depth", "proprio"])
def test_a_missing_array_stops(mini: RobotProfile, missing: str) -> None:
    observation = observe(mini)
    del observation.arrays[missing]
    assert gate_check(mini, propose(0.3, 0.3), observation) == Command((0.0, 0.0), ("bad-observation",))


def test_an_unknown_distance_stops_forward_motion_but_not_turning(mini: RobotProfile) -> None:
    assert gate_check(mini, propose(0.3, 0.9), observe(mini, 0.0)) == Command((0.0, 0.9), ("distance",))


@pytest.mark.parametrize(
    ("distance_m", "speed_mps"),
    [
        # rover-mini: t = 0.2 s, a = 1.5 m/s^2, safety distance 0.25 m. Solved from v: d = 0.25 + 0.2 v + v^2 / 3.
        (0.34, 0.3),  # 0.06 + 0.03
        (0.49, 0.6),  # 0.12 + 0.12
        (0.2733333333333333, 0.1),  # 0.02 + 0.00333
        (3.25, math.sqrt(9.09) - 0.3),  # room 3: v^2 + 0.6 v = 9
        (0.25, 0.0),
        (0.1, 0.0),
        (0.0, 0.0),
        (-1.0, 0.0),
        (math.nan, 0.0),
    ],
)
def test_allowed_speed_by_hand(mini: RobotProfile, distance_m: float, speed_mps: float) -> None:
    assert SafetyGate(mini).allowed_speed_mps(distance_m) == pytest.approx(speed_mps, abs=1e-12)


@given(distance_m=st.floats(0.25, 20.0))
def test_the_allowed_speed_uses_up_the_room_exactly(distance_m: float) -> None:
    profile = load_profile("rover-mini")
    speed = SafetyGate(profile).allowed_speed_mps(distance_m)
    assert speed * 0.2 + speed**2 / 3.0 == pytest.approx(distance_m - 0.25, abs=1e-9)


def test_the_profile_decides_how_far_it_takes_to_stop(mini: RobotProfile) -> None:
    limits = msgspec.structs.replace(mini.limits, reaction_time_s=0.5, max_deceleration_mps2=0.5, safety_distance_m=0.4)
    profile = msgspec.structs.replace(mini, limits=limits)
    # v = 0.4: 0.5 * 0.4 + 0.16 / 1.0 = 0.36
    assert SafetyGate(profile).allowed_speed_mps(0.76) == pytest.approx(0.4, abs=1e-12)


def test_forward_speed_is_bounded_by_the_free_distance(mini: RobotProfile) -> None:
    command = gate_check(mini, propose(0.6, 0.5), observe(mini, 0.34))
    assert command.values == (pytest.approx(0.3, abs=1e-6), 0.5)
    assert command.reasons == ("distance",)


def test_a_proposal_within_the_allowed_speed_is_left_alone(mini: RobotProfile) -> None:
    assert gate_check(mini, propose(0.29, 0.0), observe(mini, 0.34)) == Command((0.29, 0.0), ())


def test_backing_away_from_an_obstacle_is_allowed(mini: RobotProfile) -> None:
    assert gate_check(mini, propose(-0.1, 0.0), observe(mini, 0.16)) == Command((-0.1, 0.0), ())


@pytest.mark.parametrize("mode", MODES)
def test_reverse_is_bounded(mini: RobotProfile, mode: GateMode) -> None:
    assert gate_check(mini, propose(-5.0, 0.0), observe(mini), mode) == Command((-0.1, 0.0), ("limits",))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("proposed", "allowed"),
    [((9.0, 0.0), (0.6, 0.0)), ((0.0, 9.0), (0.0, 1.2)), ((0.0, -9.0), (0.0, -1.2)), ((1e308, -1e308), (0.6, -1.2))],
)
def test_every_value_stays_within_its_action_range(
    mini: RobotProfile, mode: GateMode, proposed: tuple[float, float], allowed: tuple[float, float]
) -> None:
    assert gate_check(mini, propose(*proposed), observe(mini), mode) == Command(allowed, ("limits",))


def test_both_rules_are_named_when_both_act(mini: RobotProfile) -> None:
    command = gate_check(mini, propose(9.0, 0.0), observe(mini, 0.34))
    assert command.values[0] == pytest.approx(0.3, abs=1e-6)
    assert command.reasons == ("limits", "distance")


def test_slowing_down_and_turning_round_are_never_delayed(mini: RobotProfile) -> None:
    gate = SafetyGate(mini)
    assert gate.check(propose(0.6, 1.2), observe(mini), NOW_NS).values == (0.6, 1.2)
    assert gate.check(propose(0.0, 0.0), observe(mini), NOW_NS) == Command((0.0, 0.0), ())
    assert gate.check(propose(0.6, 1.2), observe(mini), NOW_NS).values == (0.6, 1.2)
    assert gate.check(propose(-0.1, -1.2), observe(mini), NOW_NS) == Command((-0.1, -1.2), ())


def test_contact_stops_a_real_robot_and_lets_a_simulated_one_bump(mini: RobotProfile) -> None:
    touching = observe(mini, contact=True)
    assert gate_check(mini, propose(-0.1, 0.5), touching) == Command((0.0, 0.0), ("contact",))
    assert gate_check(mini, propose(-0.1, 0.5), touching, "limits") == Command((-0.1, 0.5), ())


@pytest.mark.parametrize("distance_m", [0.0, 0.16, 0.3])
def test_limits_mode_leaves_out_the_distance_and_nothing_else(mini: RobotProfile, distance_m: float) -> None:
    assert gate_check(mini, propose(0.6, 0.0), observe(mini, distance_m), "limits") == Command((0.6, 0.0), ())
    assert gate_check(mini, propose(0.7, 0.0), observe(mini, distance_m), "limits") == Command((0.6, 0.0), ("limits",))


def test_a_robot_without_a_camera_is_gated_by_its_action_ranges() -> None:
    profile = RobotProfile(
        name="legs",
        proprio=(Quantity(name="joints", unit="rad", size=3),),
        action=(RangedQuantity(name="hip", unit="rad", low=-0.5, high=0.5),),
    )
    observation = Observation({"proprio": np.zeros(3, np.float32)}, NOW_NS)
    gate = SafetyGate(profile)
    assert gate.check(propose(0.4), observation, NOW_NS) == Command((0.4,), ())
    assert gate.check(propose(0.7), observation, NOW_NS) == Command((0.5,), ("limits",))
    assert gate.check(propose(math.nan), observation, NOW_NS) == Command((0.0,), ("not-finite",))


ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, width=64)
ANY_ACTION = st.none() | st.builds(Action, st.lists(ANY_FLOAT, max_size=3).map(tuple), st.just("policy"))
ANY_PROPRIO = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=5, max_size=7)


@given(
    mode=st.sampled_from(MODES),
    action=ANY_ACTION,
    proprio=st.none() | ANY_PROPRIO,
    age_ns=st.integers(-(10**10), 10**10) | st.integers(0, TIMEOUT_NS),
    contact=st.booleans(),
)
@example("full", Action((0.6, 1.2), "policy"), [0.0] * 5 + [0.3], 0, False)
@example("full", Action((math.nan, 0.0), "policy"), [0.0] * 6, 0, False)
@example("limits", Action((math.inf, -math.inf), "policy"), [0.0] * 6, 0, True)
def test_whatever_comes_in_the_command_is_finite_and_within_the_action_range(
    mode: GateMode, action: Action | None, proprio: list[float] | None, age_ns: int, contact: bool
) -> None:
    profile = load_profile("rover-mini")
    observation = None
    if proprio is not None:
        captured_ns = NOW_NS - age_ns
        observation = observe(profile, captured_ns=captured_ns, contact=contact, proprio=np.array(proprio, np.float32))
    command = gate_check(profile, action, observation, mode)
    assert len(command.values) == 2
    for value, quantity in zip(command.values, profile.action, strict=True):
        assert math.isfinite(value)
        assert quantity.low <= value <= quantity.high
    if not command.reasons:
        assert action is not None
        assert command.values == action.values


@given(
    linear=st.floats(-1e6, 1e6),
    angular=st.floats(-1e6, 1e6),
    distance_m=st.floats(0, 10, width=32),
    mode=st.sampled_from(MODES),
)
def test_the_gate_only_ever_brings_a_proposal_closer_to_standing_still(
    linear: float, angular: float, distance_m: float, mode: GateMode
) -> None:
    profile = load_profile("rover-mini")
    command = gate_check(profile, propose(linear, angular), observe(profile, distance_m), mode)
    for before, after in zip((linear, angular), command.values, strict=True):
        assert abs(after) <= abs(before)
        assert after * before >= 0


def test_standing_still_is_never_turned_into_motion(mini: RobotProfile) -> None:
    linear = msgspec.structs.replace(mini.action[0], low=0.1)
    try:
        profile = msgspec.structs.replace(mini, action=(linear, mini.action[1]))
    except ConfigError:
        return  # as good: there is no such robot
    assert gate_check(profile, propose(0.0, 0.0), observe(profile)).values == (0.0, 0.0)
