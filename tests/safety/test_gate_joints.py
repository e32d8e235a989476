"""The gate of a robot with joints: stopping is damping, posture, a moment's hold, and no faster change than joints."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.spec import Quantity
from policyloop.core.step import Action, Command, Observation
from policyloop.safety.arming import ArmState
from policyloop.safety.gate import SafetyGate

MS = 1_000_000
NOW_NS = 5_000 * MS
TICK_NS = 12 * MS
LITE3 = load_profile("lite3")
CENTERS = (0.0, -0.65, 1.3) * 4
DAMPED = LITE3.stop().values
NEAR = tuple(center + 0.1 for center in CENTERS)  # within reach of one tick
UPRIGHT = (0.0, 0.0, -1.0)


def observe(
    now_ns: int = NOW_NS,
    gravity: tuple[float, float, float] = UPRIGHT,
    *,
    contact: bool = False,
    followed: bool = True,
    size: int = 45,
) -> Observation:
    proprio = np.zeros(size, np.float32)
    proprio[3:6] = gravity
    return Observation({"proprio": proprio}, now_ns, contact, followed)


def propose(*values: float) -> Action:
    return Action(values or NEAR, "policy")


def rolled(roll_deg: float, length: float = 1.0) -> tuple[float, float, float]:
    roll = math.radians(roll_deg)
    return 0.0, -length * math.sin(roll), -length * math.cos(roll)


def pitched(pitch_deg: float) -> tuple[float, float, float]:
    pitch = math.radians(pitch_deg)
    return math.sin(pitch), 0.0, -math.cos(pitch)


def walking(profile: RobotProfile = LITE3) -> SafetyGate:
    """Return a gate that let a proposal through at `NOW_NS`."""
    gate = SafetyGate(profile)
    assert gate.check(propose(), observe(), NOW_NS) == Command(NEAR)
    return gate


def test_a_harmless_proposal_passes_unchanged_and_without_a_reason() -> None:
    assert SafetyGate(LITE3).check(propose(), observe(), NOW_NS) == Command(NEAR, (), damped=False)


# -- stopping is damping ----------------------------------------------------------------------

NAN, INF = math.nan, math.inf
STOPS = {
    "no observation": (propose(), None, "armed", "no-observation"),
    "an observation of 51 ms ago": (propose(), observe(NOW_NS - 50 * MS - 1), "armed", "stale"),
    "an observation of the future": (propose(), observe(NOW_NS + 1), "armed", "stale"),
    "44 numbers": (propose(), observe(size=44), "armed", "bad-observation"),
    "46 numbers": (propose(), observe(size=46), "armed", "bad-observation"),
    "no numbers": (propose(), Observation({}, NOW_NS), "armed", "bad-observation"),
    "gravity of zero": (propose(), observe(gravity=(0, 0, 0)), "armed", "bad-observation"),
    "gravity of nan": (propose(), observe(gravity=(0, 0, NAN)), "armed", "bad-observation"),
    "gravity in m/s^2": (propose(), observe(gravity=(0, 0, -9.81)), "armed", "bad-observation"),
    "a roll of 31 degrees": (propose(), observe(gravity=rolled(31)), "armed", "fallen"),
    "a roll of -31 degrees": (propose(), observe(gravity=rolled(-31)), "armed", "fallen"),
    "a pitch of 46 degrees": (propose(), observe(gravity=pitched(46)), "armed", "fallen"),
    "a pitch of -46 degrees": (propose(), observe(gravity=pitched(-46)), "armed", "fallen"),
    "upside down": (propose(), observe(gravity=(0, 0, 1)), "armed", "fallen"),
    "its belly on the floor": (propose(), observe(contact=True), "armed", "contact"),
    "a proposal of nan": (propose(NAN, *NEAR[1:]), observe(), "armed", "not-finite"),
    "a proposal of inf": (propose(*NEAR[:11], -INF), observe(), "armed", "not-finite"),
    "eleven joints": (propose(*NEAR[:11]), observe(), "armed", "not-finite"),
    "thirteen joints": (propose(*NEAR, 0.0), observe(), "armed", "not-finite"),
    "disarmed": (propose(), observe(), "disarmed", "disarmed"),
    "tripped": (propose(), observe(), "tripped", "tripped"),
    "a policy while a person drives": (propose(), observe(), "human", "human"),
}


@pytest.mark.parametrize("before", ["nothing", "walking"])
@pytest.mark.parametrize(("action", "observation", "state", "reason"), STOPS.values(), ids=STOPS)
def test_what_is_wrong_lets_the_joints_damp_at_once(
    action: Action, observation: Observation | None, state: ArmState, reason: str, before: str
) -> None:
    gate = walking() if before == "walking" else SafetyGate(LITE3)
    assert gate.check(action, observation, NOW_NS, state) == Command(DAMPED, (reason,), damped=True)


def test_the_same_observations_just_right_are_no_reason_to_stop() -> None:
    for observation in (
        observe(NOW_NS - 50 * MS),
        observe(gravity=rolled(29)),
        observe(gravity=rolled(-29)),
        observe(gravity=pitched(44)),
        observe(gravity=pitched(-44)),
    ):
        assert SafetyGate(LITE3).check(propose(), observation, NOW_NS) == Command(NEAR)
    by_hand = Action(NEAR, "human")
    assert SafetyGate(LITE3).check(by_hand, observe(), NOW_NS, "human") == Command(NEAR)


@pytest.mark.parametrize(("length", "believed"), [(0.899, False), (0.901, True), (1.099, True), (1.101, False)])
def test_gravity_is_believed_if_it_is_about_as_long_as_a_direction(length: float, believed: bool) -> None:
    command = SafetyGate(LITE3).check(propose(), observe(gravity=rolled(20, length)), NOW_NS)
    assert command.reasons == (() if believed else ("bad-observation",))
    assert SafetyGate(LITE3).unfit(observe(gravity=rolled(20, length)), NOW_NS) == (
        "" if believed else "bad-observation"
    )


def test_a_simulated_robot_may_bump_into_things_but_not_drive_lying() -> None:
    gate = SafetyGate(LITE3, "limits")
    assert gate.check(propose(), observe(contact=True), NOW_NS) == Command(NEAR)
    assert gate.check(propose(), observe(gravity=rolled(31)), NOW_NS).reasons == ("fallen",)


def test_unfit_says_why_nothing_can_be_driven() -> None:
    gate = SafetyGate(LITE3)
    assert gate.unfit(None, NOW_NS) == "no-observation"
    assert gate.unfit(observe(NOW_NS - 51 * MS), NOW_NS) == "stale"
    assert gate.unfit(observe(gravity=(0, 0, 0)), NOW_NS) == "bad-observation"
    assert gate.unfit(observe(gravity=rolled(31)), NOW_NS) == "fallen"
    assert gate.unfit(observe(contact=True), NOW_NS) == ""
    assert gate.unfit(observe(), NOW_NS) == ""


def test_a_robot_without_joints_is_stopped_by_an_inertial_unit_that_fails_but_not_by_its_posture(
    walker: RobotProfile,
) -> None:
    gravity = (Quantity(name="projected_gravity", unit="1", size=3),)
    gate = SafetyGate(msgspec.structs.replace(walker, proprio=gravity))
    action = Action((0.1, 0.1, 0.1), "policy")

    def reading(*values: float) -> Observation:
        return Observation({"proprio": np.array(values, np.float32)}, NOW_NS)

    assert gate.check(action, reading(0, -1, 0), NOW_NS) == Command(action.values)
    assert gate.check(action, reading(0, 0, 0), NOW_NS) == Command((0.0,) * 3, ("bad-observation",), damped=False)


# -- a proposal that is late ------------------------------------------------------------------


def test_joints_hold_for_50_ms_if_there_is_no_proposal_and_then_damp() -> None:
    for late_ns, held in ((1, True), (12 * MS, True), (50 * MS - 1, True), (50 * MS, False), (60 * MS, False)):
        now_ns = NOW_NS + late_ns
        command = walking().check(None, observe(now_ns), now_ns)
        expected = Command(NEAR, ("held",)) if held else Command(DAMPED, ("no-proposal",), damped=True)
        assert command == expected, late_ns


def test_they_hold_for_half_the_time_for_which_commands_are_valid() -> None:
    brief = msgspec.structs.replace(LITE3, rates=msgspec.structs.replace(LITE3.rates, command_valid_s=0.04))
    for late_ns, held in ((20 * MS - 1, True), (20 * MS, False)):
        command = walking(brief).check(None, observe(NOW_NS + late_ns), NOW_NS + late_ns)
        assert (command.reasons == ("held",), command.damped) == (held, not held)


def test_the_time_runs_from_the_last_proposal_and_not_from_the_last_tick() -> None:
    gate = walking()
    reasons = []
    for tick in range(1, 7):
        now_ns = NOW_NS + tick * TICK_NS
        reasons.append(gate.check(None, observe(now_ns), now_ns).reasons[0])
    assert reasons == ["held"] * 4 + ["no-proposal"] * 2
    now_ns = NOW_NS + 7 * TICK_NS
    assert gate.check(propose(), observe(now_ns), now_ns) == Command(NEAR)
    now_ns += 50 * MS - 1
    assert gate.check(None, observe(now_ns), now_ns).reasons == ("held",)


def test_what_is_held_is_what_was_let_through_and_not_what_was_proposed() -> None:
    gate = SafetyGate(LITE3)
    driven = gate.check(propose(*[9.0] * 12), observe(), NOW_NS)
    assert driven.reasons == ("limits", "slew")
    now_ns = NOW_NS + TICK_NS
    assert gate.check(None, observe(now_ns), now_ns) == Command(driven.values, ("held",))


def test_what_was_held_goes_on_without_a_jump() -> None:
    gate = walking()
    gate.check(None, observe(NOW_NS + TICK_NS), NOW_NS + TICK_NS)
    far = propose(0.523, *NEAR[1:])
    now_ns = NOW_NS + 2 * TICK_NS
    command = gate.check(far, observe(now_ns), now_ns)
    assert command.values[0] == pytest.approx(0.1 + 26.2 * 0.012)


NO_HOLD = {
    name: (observation, state)
    for name, (_, observation, state, reason) in STOPS.items()
    if reason not in ("not-finite", "human")
}


@pytest.mark.parametrize(("observation", "state"), NO_HOLD.values(), ids=NO_HOLD)
def test_nothing_is_held_if_anything_else_is_wrong(observation: Observation | None, state: ArmState) -> None:
    command = walking().check(None, observation, NOW_NS, state)
    assert (command.values, command.damped) == (DAMPED, True)


def test_nothing_is_held_before_anything_was_driven() -> None:
    gate = SafetyGate(LITE3)
    assert gate.check(None, observe(0), 0) == Command(DAMPED, ("no-proposal",), damped=True)


def test_nothing_is_held_after_joints_were_let_go() -> None:
    gate = walking()
    now_ns = NOW_NS + TICK_NS
    assert gate.check(propose(*[NAN] * 12), observe(now_ns), now_ns).damped
    now_ns += TICK_NS
    assert gate.check(None, observe(now_ns), now_ns) == Command(DAMPED, ("no-proposal",), damped=True)


def test_nothing_is_held_that_nobody_followed() -> None:
    gate = SafetyGate(LITE3)
    assert gate.check(propose(), observe(followed=False), NOW_NS) == Command(NEAR)
    now_ns = NOW_NS + TICK_NS
    assert gate.check(None, observe(now_ns), now_ns) == Command(DAMPED, ("no-proposal",), damped=True)


def test_nothing_is_held_by_a_robot_that_was_moved_to_another_place() -> None:
    gate = walking()
    gate.reset()
    assert gate.check(None, observe(), NOW_NS) == Command(DAMPED, ("no-proposal",), damped=True)


def test_a_person_who_lets_nothing_be_known_for_a_moment_is_held_too() -> None:
    gate = SafetyGate(LITE3)
    gate.check(Action(NEAR, "human"), observe(), NOW_NS, "human")
    assert gate.check(None, observe(), NOW_NS + 1, "human") == Command(NEAR, ("held",))


def test_a_rover_holds_nothing(mini: RobotProfile) -> None:
    gate = SafetyGate(msgspec.structs.replace(mini, camera=None), "limits")
    observation = Observation({"proprio": np.array([0, 0, 0, 0, 9.81, 5], np.float32)}, NOW_NS)
    assert gate.check(Action((0.05, 0.1), "policy"), observation, NOW_NS) == Command((0.05, 0.1))
    for later_ns in (0, 1, 10 * MS):
        assert gate.check(None, observation, NOW_NS + later_ns) == Command((0.0, 0.0), ("no-proposal",), damped=False)


def test_asking_what_the_rules_say_changes_nothing() -> None:
    gate = walking()
    for action in (propose(*[9.0] * 12), propose(NAN), None):
        gate.rules(action, observe(), NOW_NS + TICK_NS)
        gate.rules(action, None, NOW_NS + TICK_NS)
    now_ns = NOW_NS + 50 * MS - 1
    assert gate.check(None, observe(now_ns), now_ns) == Command(NEAR, ("held",))


# -- within limits, and no faster than joints -------------------------------------------------


def test_targets_end_at_the_ranges_of_their_joints() -> None:
    gate, lowest, highest = SafetyGate(LITE3), [-9.0] * 12, [9.0] * 12
    for _ in range(60):
        low = gate.check(propose(*lowest), observe(), NOW_NS)
    assert (low.values, low.reasons) == ((-0.523, -2.67, 0.524) * 4, ("limits",))
    for _ in range(60):
        high = gate.check(propose(*highest), observe(), NOW_NS)
    assert (high.values, high.reasons) == ((0.523, 0.314, 2.792) * 4, ("limits",))


def test_a_hip_turns_by_0_3144_rad_in_a_tick_and_a_knee_by_0_72() -> None:
    """26.2 rad/s and 60 rad/s for 12 ms, from where a stopped robot is taken to stand."""
    gate = SafetyGate(LITE3)
    wanted = (0.5, -2.0, 2.7, -0.5, 0.3, 0.55, 0.0, -0.65, 1.3, 0.3, -0.9, 2.0)
    ticks = [gate.check(propose(*wanted), observe(), NOW_NS) for _ in range(6)]
    hip, knee = 0.3144, 0.72
    first = (hip, -0.65 - hip, 1.3 + knee, -hip, -0.65 + hip, 0.58, 0.0, -0.65, 1.3, 0.3, -0.9, 2.0)
    assert ticks[0].values == pytest.approx(first)
    second = (0.5, -0.65 - 2 * hip, 2.7, -0.5, -0.65 + 2 * hip, 0.55, *first[6:])
    assert ticks[1].values == pytest.approx(second)
    assert [tick.values[1] for tick in ticks] == pytest.approx([-0.65 - n * hip for n in range(1, 5)] + [-2.0, -2.0])
    assert [tick.reasons for tick in ticks] == [("slew",)] * 4 + [()] * 2


def test_the_way_through_zero_is_no_slower_and_no_faster() -> None:
    gate = SafetyGate(LITE3)
    for value, expected in (
        (0.5, 0.3144),
        (0.5, 0.5),
        (-0.5, 0.1856),
        (-0.5, -0.1288),
        (-0.5, -0.4432),
        (0.5, -0.1288),
    ):
        command = gate.check(propose(value, *CENTERS[1:]), observe(), NOW_NS)
        assert command.values[0] == pytest.approx(expected)
        assert command.values[1:] == CENTERS[1:]


def test_a_proposal_that_is_too_far_and_too_fast_has_both_reasons() -> None:
    command = SafetyGate(LITE3).check(propose(9.0, *CENTERS[1:]), observe(), NOW_NS)
    assert command == Command((pytest.approx(0.3144), *CENTERS[1:]), ("limits", "slew"))  # type: ignore[arg-type]


def test_a_joint_without_a_rate_may_jump_and_the_others_do_not() -> None:
    first = msgspec.structs.replace(LITE3.action[0], max_rate=None)
    gate = SafetyGate(msgspec.structs.replace(LITE3, action=(first, *LITE3.action[1:])))
    for value, second in ((0.5, -0.3356), (-0.5, -0.0212), (0.0, 0.2932), (0.5, 0.3)):
        command = gate.check(propose(value, 0.3, *CENTERS[2:]), observe(), NOW_NS)
        assert command.values[:2] == (value, pytest.approx(second))


@pytest.mark.parametrize(
    ("rate", "ahead", "braked"),
    [(None, 0.10, 0.25), (0.5, 0.05, 0.35), (1.2, 0.10, 0.28), (9.0, 0.10, 0.25)],
    ids=["no rate", "a slow one", "one between", "a fast one"],
)
def test_a_rovers_rate_and_its_accelerations_hold_both(
    rate: float | None, ahead: float, braked: float, mini: RobotProfile
) -> None:
    """rover-mini speeds up by 1 m/s^2 and brakes by 1.5 m/s^2, 0.1 s a tick."""
    linear = msgspec.structs.replace(mini.action[0], max_rate=rate)
    profile = msgspec.structs.replace(mini, camera=None, action=(linear, mini.action[1]))
    gate = SafetyGate(profile, "limits")
    observation = Observation({"proprio": np.array([0, 0, 0, 0, 9.81, 5], np.float32)}, NOW_NS)
    assert gate.check(Action((0.6, 0.0), "policy"), observation, NOW_NS).values[0] == pytest.approx(ahead)
    for _ in range(20):
        gate.check(Action((0.4, 0.0), "policy"), observation, NOW_NS)
    assert gate.check(Action((0.0, 0.0), "policy"), observation, NOW_NS).values[0] == pytest.approx(braked)


@pytest.mark.parametrize("why", ["let go", "not followed", "reset"])
def test_after_a_stop_targets_start_from_the_pose_again(why: str) -> None:
    gate = SafetyGate(LITE3)
    for _ in range(3):
        assert gate.check(propose(0.5, *CENTERS[1:]), observe(), NOW_NS).values[0] > 0.3
    if why == "let go":
        gate.check(None, None, NOW_NS)
    elif why == "not followed":
        assert gate.check(propose(0.5, *CENTERS[1:]), observe(followed=False), NOW_NS).values[0] == 0.5
    else:
        gate.reset()
    command = gate.check(propose(-0.5, *CENTERS[1:]), observe(), NOW_NS)
    assert command.values[0] == pytest.approx(-0.3144)


def test_no_observation_at_all_counts_as_a_stop_and_not_as_one_that_was_not_followed() -> None:
    gate = walking()
    assert gate.check(propose(), None, NOW_NS).damped
    assert gate.check(propose(), observe(), NOW_NS) == Command(NEAR)
