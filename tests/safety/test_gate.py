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
from policyloop.errors import ConfigError, SafetyRefusal
from policyloop.safety.arming import ArmState
from policyloop.safety.clearance import Clearance
from policyloop.safety.gate import GateMode, SafetyGate

NOW_NS = 5_000_000_000
TICK_NS = 100_000_000
TIMEOUT_NS = 200_000_000  # rover-mini: sensor_timeout_s = 0.2
DISTANCE = 5  # position of min_forward_dist in the proprioception vector
MODES: tuple[GateMode, ...] = ("full", "limits")


def observe(
    profile: RobotProfile, distance_m: float = 5.0, *, captured_ns: int = NOW_NS, contact: bool = False, **replaced: Any
) -> Observation:
    arrays: Arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in profile.observation_specs.items()}
    arrays["proprio"][profile.proprio_index("min_forward_dist")] = distance_m
    if "depth" in arrays:
        arrays["depth"][:] = 5000
    arrays.update(replaced)
    return Observation(arrays, captured_ns, contact)


def propose(*values: float) -> Action:
    return Action(values, "policy")


def gate_check(
    profile: RobotProfile, action: Action | None, observation: Observation | None, mode: GateMode = "full"
) -> Command:
    return driving(sighted(profile, mode), action).check(action, observation, NOW_NS)


def sighted(profile: RobotProfile, mode: GateMode = "full") -> SafetyGate:
    """Return the gate of a robot that has turned once about, and so has seen the floor around it."""
    gate = SafetyGate(profile, mode)
    for tick in range(14):
        now_ns = NOW_NS + (tick - 14) * TICK_NS
        seen = observe(profile, captured_ns=now_ns, depth=np.full((36, 64), 6000 + tick, np.uint16))
        seen.arrays["proprio"][1] = math.pi / 6 * 10 if 0 < tick < 13 else 0.0
        gate.check(None, seen, now_ns)
    return gate


def driving(gate: SafetyGate, action: Action | None) -> SafetyGate:
    """Let the gate have let this action through a moment ago, so that nothing changes faster than motors can."""
    if action is not None and len(action.values) == 2 and all(map(math.isfinite, action.values)):
        ranges = [(quantity.low, quantity.high) for quantity in gate._profile.action]
        gate._last = tuple(min(max(v, low), high) for v, (low, high) in zip(action.values, ranges, strict=True))
    return gate


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


def drive(gate: SafetyGate, mini: RobotProfile, *values: float, ticks: int = 1, distance_m: float = 5.0) -> Command:
    """Propose the same so many times; returns the last command."""
    for _ in range(ticks):
        command = gate.check(propose(*values), observe(mini, distance_m), NOW_NS)
    return command


def test_a_command_changes_no_faster_than_motors_can_follow(mini: RobotProfile) -> None:
    gate = sighted(mini)  # ticks of 0.1 s; 1.0 m/s2 away from zero, 1.5 m/s2 back, 4.0 rad/s2
    assert drive(gate, mini, 0.6, 1.2) == Command((0.1, 0.4), ("slew",))
    assert drive(gate, mini, 0.6, 1.2).values == pytest.approx((0.2, 0.8))
    assert drive(gate, mini, 0.6, 1.2, ticks=4).values == pytest.approx((0.6, 1.2))
    assert drive(gate, mini, 0.6, 1.2).reasons == ()
    assert drive(gate, mini, 0.0, 0.0) == Command((pytest.approx(0.45), pytest.approx(0.8)), ("slew",))
    assert drive(gate, mini, 0.0, 0.0, ticks=3) == Command((0.0, 0.0), ())


def test_a_turn_to_the_other_side_goes_through_zero_at_the_rate_of_the_motors(mini: RobotProfile) -> None:
    gate = sighted(mini)
    drive(gate, mini, 0.0, 1.2, ticks=3)
    turning = [drive(gate, mini, -0.1, -1.2).values for _ in range(7)]
    assert [angular for _, angular in turning] == pytest.approx([0.8, 0.4, 0.0, -0.4, -0.8, -1.2, -1.2])
    assert [linear for linear, _ in turning] == pytest.approx([-0.1] * 7)


def test_crossing_zero_leaves_only_the_rest_of_the_tick_for_the_way_out(mini: RobotProfile) -> None:
    gate = sighted(mini)
    gate._last = (-0.075, 0.0)  # half of a tick's way back at 1.5 m/s2; the other half at 1.0 m/s2 leads to 0.05
    assert drive(gate, mini, 0.6, 0.0).values[0] == pytest.approx(0.05)
    gate._last = (0.03, 0.0)  # a fifth, and four fifths
    assert drive(gate, mini, -0.1, 0.0).values[0] == pytest.approx(-0.08)


def test_what_must_stop_stops_at_once(mini: RobotProfile) -> None:
    gate = sighted(mini)
    drive(gate, mini, 0.6, 1.2, ticks=6)
    assert drive(gate, mini, 0.6, 0.0, distance_m=0.2).values[0] == 0.0
    drive(gate, mini, 0.6, 1.2, ticks=6)
    assert gate.check(None, observe(mini), NOW_NS).values == (0.0, 0.0)
    assert drive(gate, mini, 0.6, 1.2) == Command((0.1, 0.4), ("slew",))  # from a stop it begins anew
    gate.reset()
    assert drive(gate, mini, 0.6, 0.0).values == (0.1, 0.0)


@pytest.mark.parametrize("state", ["disarmed", "tripped"])
def test_nobody_moves_a_robot_that_is_not_armed(mini: RobotProfile, state: ArmState) -> None:
    for action in (propose(0.4, 0.4), Action((0.4, 0.4), "human"), None):
        command = driving(sighted(mini), action).check(action, observe(mini), NOW_NS, state)
        assert command == Command((0.0, 0.0), (state,))


@pytest.mark.parametrize("state", ["disarmed", "tripped"])
def test_who_may_not_move_is_told_that_and_not_what_else_is_wrong(mini: RobotProfile, state: ArmState) -> None:
    stale = observe(mini, captured_ns=NOW_NS - TIMEOUT_NS - 1)
    assert sighted(mini).check(None, stale, NOW_NS, state).reasons == (state,)
    assert sighted(mini).check(propose(0.1, 0.0), stale, NOW_NS, "armed").reasons == ("stale",)
    assert sighted(mini).check(None, stale, NOW_NS, "armed").reasons == ("stale",)


def test_exactly_the_allowed_speed_is_not_reduced(mini: RobotProfile) -> None:
    allowed_mps = Clearance(mini).allowed_speed_mps(float(np.float32(0.4)))
    assert gate_check(mini, propose(allowed_mps, 0.0), observe(mini, 0.4)) == Command((allowed_mps, 0.0), ())


def limited(profile: RobotProfile, **limits: float) -> RobotProfile:
    return msgspec.structs.replace(profile, limits=msgspec.structs.replace(profile.limits, **limits))


def test_limits_that_were_tightened_hold_from_the_next_check_on(mini: RobotProfile) -> None:
    gate = sighted(mini)
    before = gate.check(None, observe(mini, 0.6), NOW_NS)
    assert before.values == (0.0, 0.0)
    gate.tighten(limited(mini, safety_distance_m=0.5))
    driving(gate, propose(0.6, 0.0))
    allowed_mps = Clearance(limited(mini, safety_distance_m=0.5)).allowed_speed_mps(float(np.float32(0.6)))
    command = gate.check(propose(0.6, 0.0), observe(mini, 0.6), NOW_NS)
    assert command == Command((pytest.approx(allowed_mps), 0.0), ("distance",))


@pytest.mark.parametrize(
    ("name", "wider"),
    [("max_forward_mps", 0.61), ("max_reverse_mps", 0.11), ("max_angular_radps", 1.21), ("safety_distance_m", 0.249)],
)
def test_no_limit_of_a_running_gate_is_ever_widened(mini: RobotProfile, name: str, wider: float) -> None:
    gate = SafetyGate(mini)
    with pytest.raises(SafetyRefusal, match=f"cannot be widened: {name}"):
        gate.tighten(limited(mini, **{name: wider}))
    gate.tighten(mini)  # as it is, it may stay


@pytest.mark.parametrize(("low", "high"), [(-0.11, 0.6), (-0.1, 0.61)])
def test_no_range_of_a_running_gate_is_ever_widened(mini: RobotProfile, low: float, high: float) -> None:
    linear = msgspec.structs.replace(mini.action[0], low=low, high=high)
    roomy = limited(mini, max_forward_mps=0.7, max_reverse_mps=0.2)
    wider = msgspec.structs.replace(roomy, action=(linear, mini.action[1]))
    with pytest.raises(SafetyRefusal, match="cannot be widened: linear"):
        SafetyGate(roomy).tighten(wider)


def test_a_gate_without_distances_is_tightened_too(mini: RobotProfile) -> None:
    gate = SafetyGate(mini, "limits")
    gate.tighten(limited(mini, safety_distance_m=0.3))
    assert gate.check(propose(0.05, 0.0), observe(mini, 0.1), NOW_NS).reasons == ()


def test_while_a_person_drives_nobody_else_does(mini: RobotProfile) -> None:
    by_hand = Action((0.4, 0.0), "human")
    gate = driving(sighted(mini), by_hand)
    assert gate.check(by_hand, observe(mini), NOW_NS, "human") == Command((0.4, 0.0), ())
    assert gate.check(propose(0.4, 0.0), observe(mini), NOW_NS, "human") == Command((0.0, 0.0), ("human",))
    close = driving(gate, by_hand).check(by_hand, observe(mini, 0.3), NOW_NS, "human")
    assert (close.values[0] < 0.4, close.reasons) == (True, ("distance",))


def test_a_hole_in_the_depth_picture_is_not_far_but_unknown(mini: RobotProfile) -> None:
    def fastest(holes: int) -> float:
        depth = np.full((36, 64), 5000, np.uint16)
        depth[:, 32 - holes // 2 : 32 + (holes + 1) // 2] = 0
        gate = driving(sighted(mini), propose(0.6, 0.0))
        return gate.check(propose(0.6, 0.0), observe(mini, depth=depth), NOW_NS).values[0]

    assert fastest(0) == fastest(1) == fastest(4) == 0.6
    # 16 columns are 0.346 wide per metre: something 0.1 m wide could stand at 0.29 m.
    assert 0 < fastest(16) == pytest.approx(Clearance(mini).allowed_speed_mps(0.1 / (16 / mini.camera.focal_px)), 1e-3)  # type: ignore[union-attr]
    assert fastest(30) == 0.0


def look(gate: SafetyGate, mini: RobotProfile, tick: int, picture: int, speed_mps: float = 0.3) -> Command:
    """Show picture number so and so at this tick of 100 ms, while the robot rolls."""
    now_ns = NOW_NS + tick * 100_000_000
    depth = np.full((36, 64), 5000 + picture, np.uint16)
    seen = observe(mini, depth=depth, captured_ns=now_ns)
    seen.arrays["proprio"][0] = speed_mps
    return driving(gate, propose(0.3, 0.0)).check(propose(0.3, 0.0), seen, now_ns)


def test_a_camera_that_repeats_its_last_picture_stops_a_moving_robot_until_it_shows_another(
    mini: RobotProfile,
) -> None:
    gate = sighted(mini)
    assert [look(gate, mini, tick, tick).reasons for tick in range(4)] == [()] * 4
    assert [look(gate, mini, tick, 3).reasons for tick in range(4, 8)] == [(), (), ("frozen",), ("frozen",)]
    # It stands now, and the picture is still the same one.
    assert [look(gate, mini, tick, 3, speed_mps=0.0).reasons for tick in range(8, 12)] == [("frozen",)] * 4
    assert look(gate, mini, 12, 12).reasons == ()


def test_a_camera_that_uses_one_buffer_for_all_its_pictures_is_not_frozen(mini: RobotProfile) -> None:
    gate, buffer = sighted(mini), np.full((36, 64), 5000, np.uint16)
    for tick in range(8):
        buffer += 1
        now_ns = NOW_NS + tick * 100_000_000
        seen = observe(mini, depth=buffer, captured_ns=now_ns)
        seen.arrays["proprio"][0] = 0.3
        assert gate.check(propose(0.0, 0.0), seen, now_ns).reasons == ()


def test_a_robot_that_stands_may_see_the_same_picture_for_ever(mini: RobotProfile) -> None:
    gate = sighted(mini)
    assert {look(gate, mini, tick, 0, speed_mps=0.0).reasons for tick in range(50)} == {()}


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


def test_a_gate_without_a_memory_begins_anew_after_a_reset(mini: RobotProfile) -> None:
    gate = sighted(mini, "limits")
    assert drive(gate, mini, 0.6, 1.2, ticks=2).values == pytest.approx((0.2, 0.8))
    gate.reset()
    assert drive(gate, mini, 0.6, 1.2).values == (0.1, 0.4)


def test_a_distance_as_old_as_it_may_be_leaves_less_room(mini: RobotProfile) -> None:
    # 0.2 s old, and in force for another tick: 0.3 m/s take 0.09 + 0.03 m, and 0.25 m must remain.
    observation = observe(mini, 0.37, captured_ns=NOW_NS - TIMEOUT_NS)
    assert gate_check(mini, propose(0.6, 0.0), observation).values[0] == pytest.approx(0.3, abs=1e-6)


def test_who_proposes_counts_by_name_wherever_that_was_read(mini: RobotProfile) -> None:
    person: Any = "".join(["hu", "man"])  # equal, and not the same object
    gate = driving(sighted(mini), propose(0.4, 0.0))
    assert gate.check(Action((0.4, 0.0), person), observe(mini), NOW_NS, person) == Command((0.4, 0.0), ())
    assert gate.check(propose(0.4, 0.0), observe(mini), NOW_NS, person).reasons == ("human",)


def test_a_mode_counts_by_its_name_wherever_that_was_read(mini: RobotProfile) -> None:
    full: Any = "".join(["fu", "ll"])
    limits: Any = "".join(["lim", "its"])
    touching, near = observe(mini, contact=True), observe(mini, 0.2)
    frozen = sighted(mini, full)
    assert [look(frozen, mini, tick, 0).reasons for tick in range(5)][2:] == [(), ("frozen",), ("frozen",)]
    assert gate_check(mini, propose(0.4, 0.0), touching, full).reasons == ("contact",)
    assert gate_check(mini, propose(0.4, 0.0), near, limits).reasons == ()


# -- what is around, by way of the gate ------------------------------------------------------------------


MIDDLE = slice(30, 34)
STAND = (0.0, 0.0)


class Rover:
    """A gate, shown one picture per tick; what it sees by hand: tests/safety/test_clearance.py."""

    def __init__(self, profile: RobotProfile, mode: GateMode = "full") -> None:
        self.profile, self.gate, self.now_ns = profile, sighted(profile, mode), NOW_NS

    def see(self, *objects: tuple[slice, float], linear: float = 0.0, angular: float = 0.0, **more: Any) -> Observation:
        """Return the next tick's observation: objects as (columns, metres), velocities as measured."""
        self.now_ns += TICK_NS
        seen = observe(self.profile, captured_ns=self.now_ns, **more)
        for columns, distance_m in objects:
            seen.arrays["depth"][:, columns] = round(1000 * distance_m)
        seen.arrays["proprio"][:2] = linear, angular
        return seen

    def drive(
        self,
        values: tuple[float, float],
        *objects: tuple[slice, float],
        moved_m: float = 0.0,
        turned_rad: float = 0.0,
    ) -> Command:
        """Check a proposal at a tick before which the robot has moved or turned so far."""
        observation = self.see(*objects, linear=moved_m * 10, angular=turned_rad * 10)
        return driving(self.gate, Action(values, "policy")).check(Action(values, "policy"), observation, self.now_ns)


@pytest.fixture
def rover(mini: RobotProfile) -> Rover:
    return Rover(mini)


def obstacle_behind(rover: Rover, gap_m: float) -> Rover:
    """Let the rover see something 0.61 m ahead of its axle, turn round, and back up until `gap_m` is left."""
    rover.drive(STAND, (MIDDLE, 0.45))
    rover.drive(STAND, turned_rad=math.pi)
    rover.drive(STAND, moved_m=-(0.61 - 0.18 - gap_m))
    return rover


def test_what_is_in_the_way_slows_a_command_and_is_named(rover: Rover) -> None:
    command = rover.drive((0.6, 0.0), (MIDDLE, 0.30))
    assert command == Command((pytest.approx(0.45), 0.0), ("surroundings",))
    obstacle_behind(rover, 0.04)
    assert rover.drive((-0.1, 0.0)) == Command(STAND, ("surroundings",))
    assert rover.drive((0.6, 0.0)) == Command((0.6, 0.0), ())


def test_limits_mode_lets_a_simulated_robot_back_into_things(mini: RobotProfile) -> None:
    rover = obstacle_behind(Rover(mini, "limits"), 0.04)
    assert rover.drive((-0.1, 1.2)) == Command((-0.1, 1.2), ())


def test_a_robot_that_was_moved_forgets_what_was_around(rover: Rover) -> None:
    obstacle_behind(rover, 0.04)
    rover.gate.reset()
    assert rover.drive((-0.1, 0.0)) == Command((-0.1, 0.0), ())


def test_an_observation_that_is_refused_leaves_no_trace_in_the_memory(rover: Rover) -> None:
    obstacle_behind(rover, 0.04)
    rover.drive(STAND)
    broken = rover.see(linear=math.nan)
    assert rover.gate.check(Action((-0.1, 0.0), "policy"), broken, rover.now_ns).reasons == ("bad-observation",)
    assert rover.drive((-0.1, 0.0)).values == STAND


@pytest.mark.parametrize("why", ["no proposal", "not finite", "contact"])
def test_the_memory_follows_a_robot_that_rolls_on_while_nothing_may_be_driven(rover: Rover, why: str) -> None:
    rover.drive(STAND, (MIDDLE, 0.45))
    rover.drive(STAND, turned_rad=math.pi)
    action = {"no proposal": None, "not finite": Action((math.nan, 0.0), "policy")}.get(why, Action(STAND, "policy"))
    rolling = rover.see(linear=-0.39 * 10, contact=why == "contact")
    assert rover.gate.check(action, rolling, rover.now_ns).values == STAND
    assert rover.drive((-0.1, 0.0)).values == STAND


@given(
    values=st.lists(st.tuples(st.floats(-1, 1), st.floats(-2, 2)), min_size=1, max_size=6),
    velocities=st.tuples(st.floats(-2, 2), st.floats(-3, 3)),
    near_mm=st.integers(100, 1500),
    column=st.integers(0, 63),
    mode=st.sampled_from(MODES),
)
def test_whatever_is_around_a_command_is_finite_within_range_and_no_more_than_was_asked(
    values: list[tuple[float, float]],
    velocities: tuple[float, float],
    near_mm: int,
    column: int,
    mode: GateMode,
) -> None:
    profile = load_profile("rover-mini")
    rover = Rover(profile, mode)
    for proposed in values:
        command = rover.drive(
            proposed,
            (slice(column, column + 3), near_mm / 1000),
            moved_m=velocities[0] / 10,
            turned_rad=velocities[1] / 10,
        )
        for before, after, quantity in zip(proposed, command.values, profile.action, strict=True):
            assert math.isfinite(after)
            assert quantity.low <= after <= quantity.high
            assert abs(after) <= abs(before)
            assert after * before >= 0
