"""The simulated Lite3 as a robot: through the actor and the gate, with the vendor's own policy and with scripts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from policyloop.core.clock import MonotonicClock, VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation, TimedCommand
from policyloop.robot.actor import Actor
from policyloop.robot.io import Driver
from policyloop.robot.recorder import Recorder
from policyloop.runtime.policy import Policy
from policyloop.safety.arming import ArmingLimits, ArmingSwitch
from policyloop.safety.gate import SafetyGate
from policyloop.sim.lite3 import Lite3, Sensors
from policyloop.sim.lite3_robot import WANTED, SimulatedLite3, proprio_of

MS = 1_000_000
PERIOD_NS = 12 * MS
TEN_SECONDS, TWO_SECONDS = 833, 167
POSE = np.array([0, -0.65, 1.3] * 4)
HOLDING_NM = np.array([1.80, -0.52, -3.30, -1.86, -0.42, -3.22, 2.40, -0.57, -4.02, -2.42, -0.46, -3.94])
HOLDING = POSE + HOLDING_NM / 30
"""Targets that carry the robot at kp 30."""
ORDER = np.array([7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 4, 6])
AHEAD = ((0.5, 0.0, 0.0),)
ARMED = 3


class Answers:
    """Drives as a function of the observation says."""

    def __init__(self, answer: Callable[[Observation], Action]) -> None:
        self.propose = answer

    def executed(self, command: Command) -> None:
        pass

    def reset(self) -> None:
        pass


def script(target: np.ndarray = HOLDING) -> Answers:
    return Answers(lambda observation: Action(tuple(target.tolist()), "scripted"))


class Walk(NamedTuple):
    """What came of some seconds."""

    robot: SimulatedLite3
    recorder: Recorder
    commands: list[Command]
    speeds_mps: np.ndarray
    leans_deg: np.ndarray
    heights_m: np.ndarray
    switch: ArmingSwitch | None

    @property
    def reasons(self) -> list[str]:
        return [", ".join(command.reasons) for command in self.commands]


def walk(
    profile: RobotProfile,
    driver: Driver,
    ticks: int,
    *,
    seed: int | None = None,
    latency_s: float = 0.0,
    wanted: Sequence[tuple[float, float, float]] = AHEAD,
    push_mps: float = 0.0,
    armed: bool = False,
) -> Walk:
    """Let the robot run in virtual time until its first fall.

    Args:
        profile: The robot's.
        driver: Proposes.
        ticks: At most so many.
        seed: Of starts and pushes; None = it starts exactly in its pose.
        latency_s: Of the motors.
        wanted: By the operator.
        push_mps: Every three seconds.
        armed: By a person, as a real one; otherwise nobody is asked.
    """
    clock = VirtualClock()
    body = Lite3(profile, latency_s=latency_s)
    robot = SimulatedLite3(
        profile, np.random.default_rng(seed or 0), clock, body=body, wanted=wanted, push_mps=push_mps
    )
    if seed is None:
        body.reset(None)
    switch = ArmingSwitch(ArmingLimits(healthy_ticks=ARMED, unhealthy_ticks=80), arm_once=True) if armed else None
    recorder = Recorder(profile, "r0", "b0")
    actor = Actor(profile, robot, robot, driver, SafetyGate(profile), recorder, clock, arming=switch)
    commands, speeds, leans, heights = [], [], [], []
    for _ in range(ticks):
        commands.append(actor.tick())
        if recorder.episodes:
            break
        speeds.append(body.motion.forward_mps)
        heights.append(body.motion.height_m)
        proprio = np.zeros(45, np.float32)
        proprio[3:6] = body.sense().gravity
        leaning = profile.leaning(proprio)
        assert leaning is not None
        leans.append(np.degrees(np.abs(leaning)))
    return Walk(robot, recorder, commands, np.array(speeds), np.array(leans), np.array(heights), switch)


# -- the vendor's policy ----------------------------------------------------------------------


@pytest.mark.parametrize("latency_s", [0.0, 0.024])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_vendors_policy_walks_ten_seconds_through_actor_and_gate(
    seed: int, latency_s: float, lite3: RobotProfile, lite3_policy: Policy
) -> None:
    walked = walk(lite3, Answers(lite3_policy.act), TEN_SECONDS, seed=seed + 10, latency_s=latency_s, push_mps=0.4)
    assert walked.recorder.episodes == []
    assert len(walked.speeds_mps) == TEN_SECONDS
    assert 0.35 < walked.speeds_mps[TWO_SECONDS:].mean() < 0.60
    assert walked.leans_deg[TWO_SECONDS:].max() < (5 if latency_s == 0 else 7)
    assert not any(command.damped for command in walked.commands)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_motors_that_are_60_ms_late_make_it_fall(seed: int, lite3: RobotProfile, lite3_policy: Policy) -> None:
    walked = walk(lite3, Answers(lite3_policy.act), TEN_SECONDS, seed=seed + 10, latency_s=0.060, push_mps=0.4)
    assert [episode.collided for episode in walked.recorder.episodes] == [True]


def test_the_vendors_policy_stands_where_nothing_is_wanted(lite3: RobotProfile, lite3_policy: Policy) -> None:
    walked = walk(lite3, Answers(lite3_policy.act), TEN_SECONDS, seed=10, wanted=((0.0, 0.0, 0.0),))
    assert abs(walked.speeds_mps[TWO_SECONDS:].mean()) < 0.02
    assert walked.heights_m[-1] == pytest.approx(0.339, abs=0.01)


def test_the_policy_must_be_told_what_it_said(lite3: RobotProfile, lite3_policy: Policy) -> None:
    """The published speed comes only of a loop that is closed through `last_action`."""

    def forgetful(observation: Observation) -> Action:
        proprio = observation.arrays["proprio"].copy()
        assert proprio[33:].any() or observation.captured_ns == 0
        proprio[33:] = 0
        return lite3_policy.act(Observation({"proprio": proprio}, observation.captured_ns))

    told = walk(lite3, Answers(lite3_policy.act), 400)
    forgot = walk(lite3, Answers(forgetful), 400)
    assert told.recorder.episodes == []
    assert abs(told.speeds_mps[TWO_SECONDS:].mean() - 0.447) < 0.05
    assert forgot.recorder.episodes or abs(forgot.speeds_mps[TWO_SECONDS:].mean() - 0.447) > 0.05


def test_the_same_policy_walks_the_same_way_whatever_the_order_of_joints(
    lite3: RobotProfile, lite3_policy: Policy
) -> None:
    assert lite3.joints is not None
    joints = msgspec.structs.replace(
        lite3.joints, max_effort_nm=tuple(lite3.joints.max_effort_nm[index] for index in ORDER)
    )
    shuffled = msgspec.structs.replace(lite3, action=tuple(lite3.action[index] for index in ORDER), joints=joints)

    def remapped(observation: Observation) -> Action:
        """Ask the policy in its own order, and answer in the robot's."""
        theirs = observation.arrays["proprio"]
        ours = theirs.copy()
        for start in (9, 21, 33):
            ours[start + ORDER] = theirs[start : start + 12]
        action = lite3_policy.act(Observation({"proprio": ours}, observation.captured_ns))
        assert action.behaviour is not None
        sample = tuple(action.behaviour.sample[index] for index in ORDER)
        values = tuple(action.values[index] for index in ORDER)
        return Action(values, "policy", msgspec.structs.replace(action.behaviour, sample=sample))

    straight = walk(lite3, Answers(lite3_policy.act), 400)
    crossed = walk(shuffled, Answers(remapped), 400)
    assert 0.35 < straight.speeds_mps[TWO_SECONDS:].mean() < 0.60
    np.testing.assert_array_equal(straight.robot.body._data.qpos, crossed.robot.body._data.qpos)
    assert [command.reasons for command in straight.commands] == [command.reasons for command in crossed.commands]


def test_the_policy_without_the_remapping_would_have_fallen(lite3: RobotProfile, lite3_policy: Policy) -> None:
    assert lite3.joints is not None
    efforts = tuple(lite3.joints.max_effort_nm[index] for index in ORDER)
    joints = msgspec.structs.replace(lite3.joints, max_effort_nm=efforts)
    shuffled = msgspec.structs.replace(lite3, action=tuple(lite3.action[index] for index in ORDER), joints=joints)
    assert walk(shuffled, Answers(lite3_policy.act), 400).recorder.episodes != []


@pytest.mark.parametrize("ticks", [1, 4])
def test_a_walking_robot_bears_a_moment_without_proposals(
    ticks: int, lite3: RobotProfile, lite3_policy: Policy
) -> None:
    count = iter(range(TEN_SECONDS))

    def stalling(observation: Observation) -> Action:
        if 250 <= next(count) < 250 + ticks:
            raise TimeoutError("late")
        return lite3_policy.act(observation)

    walked = walk(lite3, Answers(stalling), 600, seed=10, armed=True)
    assert walked.reasons.count("held") == ticks
    assert walked.recorder.episodes == []
    assert walked.switch is not None
    assert walked.switch.now.state == "armed"
    assert walked.leans_deg[250:].max() < 6


# -- the same without the vendor's file -------------------------------------------------------


def test_targets_that_carry_its_weight_hold_it_ten_seconds_through_actor_and_gate(lite3: RobotProfile) -> None:
    stood = walk(lite3, script(), TEN_SECONDS)
    assert stood.recorder.episodes == []
    assert stood.heights_m[-1] == pytest.approx(0.348, abs=1e-3)
    assert stood.leans_deg.max() < 0.45
    assert {command.reasons for command in stood.commands} == {()}


def test_it_recovers_from_pushes_when_it_stands(lite3: RobotProfile) -> None:
    still = walk(lite3, script(), 300)
    pushed = walk(lite3, script(), 300, push_mps=0.4)
    assert pushed.recorder.episodes == []
    np.testing.assert_array_equal(still.speeds_mps[:250], pushed.speeds_mps[:250])
    assert np.abs(pushed.leans_deg[250:]).max() > np.abs(still.leans_deg[250:]).max()


def test_a_script_in_any_order_of_joints_is_the_same_motion(lite3: RobotProfile) -> None:
    assert lite3.joints is not None
    joints = msgspec.structs.replace(
        lite3.joints, max_effort_nm=tuple(lite3.joints.max_effort_nm[index] for index in ORDER)
    )
    shuffled = msgspec.structs.replace(lite3, action=tuple(lite3.action[index] for index in ORDER), joints=joints)

    def swaying(order: np.ndarray) -> Answers:
        def answer(observation: Observation) -> Action:
            target = HOLDING + 0.08 * np.sin(observation.captured_ns * 1e-9 * 9 + np.arange(12))
            return Action(tuple(target[order].tolist()), "scripted")

        return Answers(answer)

    straight, crossed = walk(lite3, swaying(np.arange(12)), 200), walk(shuffled, swaying(ORDER), 200)
    assert straight.recorder.episodes == []
    np.testing.assert_array_equal(straight.robot.body._data.qpos, crossed.robot.body._data.qpos)


def failing(at: int, how: Callable[[Observation], Any]) -> Answers:
    """Hold the robot up, and from the `at`-th proposal on do something else."""
    count = iter(range(10**6))
    up = Action(tuple(HOLDING.tolist()), "scripted")
    return Answers(lambda observation: up if next(count) < at else how(observation))


def late(observation: Observation) -> Action:
    raise TimeoutError("late")


def test_inference_that_ends_is_held_then_damped_then_tripped_and_the_robot_lies_down_softly(
    lite3: RobotProfile,
) -> None:
    walked = walk(lite3, failing(20, late), 200, armed=True)
    assert walked.reasons[ARMED + 19 : ARMED + 26] == ["", *["held"] * 4, "no-proposal", "tripped"]
    assert walked.switch is not None
    assert walked.switch.now.reason == "joints were let go: no-proposal"
    assert walked.heights_m[ARMED + 24] > 0.33  # still up at the end of the hold
    assert walked.robot.body.low
    assert walked.robot.read().contact
    assert walked.leans_deg.max() < 10  # it never tipped over
    assert walked.recorder.episodes == []  # nobody was in command any more when it lay


def test_a_policy_of_nan_is_let_go_at_once(lite3: RobotProfile) -> None:
    walked = walk(lite3, failing(20, lambda observation: Action((math.nan,) * 12, "policy")), 60, armed=True)
    assert walked.reasons[ARMED + 19 : ARMED + 22] == ["", "not-finite", "tripped"]


def test_a_policy_that_throws_itself_down_ends_the_episode(lite3: RobotProfile) -> None:
    down = Action((0.5, -2.6, 2.7, 0.5, -2.6, 2.7, -0.5, 0.3, 0.6, -0.5, 0.3, 0.6), "policy")
    walked = walk(lite3, failing(5, lambda observation: down), 200, armed=True)
    assert walked.recorder.episodes[0].collided
    assert set(walked.reasons) <= {"disarmed", "", "limits", "slew", "fallen", "contact"}


# -- the robot itself -------------------------------------------------------------------------


def make(profile: RobotProfile, **options: Any) -> tuple[SimulatedLite3, VirtualClock]:
    clock = VirtualClock()
    return SimulatedLite3(profile, np.random.default_rng(0), clock, **options), clock


def order(sequence: int, clock: VirtualClock, command: Command, valid_ns: int = 100 * MS) -> TimedCommand:
    return TimedCommand(command, sequence, clock.now_ns() + valid_ns)


UP = Command(tuple(HOLDING.tolist()))


def test_virtual_time_passes_with_commands_and_not_with_looks(lite3: RobotProfile) -> None:
    robot, clock = make(lite3)
    first, again = robot.read(), robot.read()
    assert first.captured_ns == again.captured_ns == 0
    np.testing.assert_array_equal(first.arrays["proprio"], again.arrays["proprio"])
    robot.write(order(1, clock, UP))
    moved = robot.read()
    assert moved.captured_ns == clock.now_ns() == PERIOD_NS
    assert (moved.arrays["proprio"] != first.arrays["proprio"]).any()
    robot.write(order(1, clock, UP))  # an old one
    assert robot.read().captured_ns == PERIOD_NS


def test_it_stands_stiffly_until_somebody_first_drives_it_and_then_damps_when_nobody_does(lite3: RobotProfile) -> None:
    robot, clock = make(lite3)
    for sequence in range(1, 200):
        robot.write(order(sequence, clock, lite3.stop("disarmed")))
        robot.read()
    assert robot.body.motion.height_m == pytest.approx(0.34, abs=0.01)
    robot.write(order(200, clock, UP))
    robot.read()
    for sequence in range(201, 371):
        robot.write(order(sequence, clock, lite3.stop("tripped")))
        observation = robot.read()
    assert robot.body.low
    assert observation.contact


def test_a_command_that_has_ended_is_followed_no_more(lite3: RobotProfile) -> None:
    robot, clock = make(lite3)
    robot.write(order(1, clock, UP))
    for _ in range(5):
        robot.read()
    robot.write(order(2, clock, UP, valid_ns=1 * MS))
    clock.advance_ns(1 * MS)
    robot.read()
    assert set(robot.body._model.actuator_gainprm[:, 0]) == {0.0}


def test_a_command_drives_with_the_profiles_gains_at_the_wanted_targets(lite3: RobotProfile) -> None:
    robot, clock = make(lite3)
    robot.write(order(1, clock, UP))
    robot.read()
    np.testing.assert_array_equal(robot.body._data.ctrl, HOLDING)
    assert set(robot.body._model.actuator_gainprm[:, 0]) == {30.0}


def test_a_new_episode_stands_somewhere_else_and_counts_from_one(lite3: RobotProfile) -> None:
    robot, clock = make(lite3)
    before = robot.body._data.qpos.copy()
    robot.write(order(900, clock, UP))
    robot.read()
    assert robot.begin_episode()
    assert (robot.body._data.qpos != before).any()
    assert robot.read().captured_ns == PERIOD_NS  # no command of before is followed
    robot.write(order(1, clock, lite3.stop("disarmed")))
    assert robot.read().captured_ns == 2 * PERIOD_NS
    assert set(robot.body._model.actuator_gainprm[:, 0]) == {100.0}  # it stands again


def test_the_operator_wants_something_else_every_five_seconds(lite3: RobotProfile) -> None:
    robot, clock = make(lite3)
    wanted = []
    for sequence in range(1, 1800):
        robot.write(order(sequence, clock, lite3.stop()))
        proprio = robot.read().arrays["proprio"]
        assert clock.now_ns() == sequence * PERIOD_NS
        wanted.append(tuple(proprio[6:9].tolist()))
    changes = [0, *(i for i in range(1, len(wanted)) if wanted[i] != wanted[i - 1])]
    assert [wanted[i] for i in changes] == [tuple(np.array(want, np.float32).tolist()) for want in (*WANTED, WANTED[0])]
    assert [(i + 1) * 0.012 for i in changes[1:]] == pytest.approx([5, 10, 15, 20], abs=0.013)


def test_pushes_come_every_three_seconds(lite3: RobotProfile) -> None:
    robot, clock = make(lite3, push_mps=0.7)
    pushes: list[tuple[int, float]] = []
    robot.body.push = lambda speed, direction: pushes.append((robot._ticks, speed))  # type: ignore[method-assign]
    for sequence in range(1, 760):
        robot.write(order(sequence, clock, lite3.stop()))
        robot.read()
    assert pushes == [(250, 0.7), (500, 0.7), (750, 0.7)]
    robot.begin_episode()
    for sequence in range(1, 252):
        robot.write(order(sequence, clock, lite3.stop()))
        proprio = robot.read().arrays["proprio"]
    assert pushes[3:] == [(250, 0.7)]
    assert proprio[6] == np.float32(WANTED[0][0])  # the operator begins anew, too


def test_in_real_time_it_moves_with_every_look(lite3: RobotProfile) -> None:
    robot = SimulatedLite3(lite3, np.random.default_rng(0), MonotonicClock())
    first, second = robot.read(), robot.read()
    assert second.captured_ns > first.captured_ns
    assert robot.body._data.time == pytest.approx(0.024)


def test_contact_is_a_torso_on_the_floor(lite3: RobotProfile) -> None:
    robot, _ = make(lite3)
    assert not robot.read().contact
    robot.body.reset(None, lying=True)
    assert robot.read().contact
    assert robot.read().followed


def test_observations_are_laid_out_by_the_profiles_names(lite3: RobotProfile) -> None:
    sensors = Sensors(np.array([1.0, 2, 3]), np.array([0.0, 0, -1]), np.arange(12) + 10.0, np.arange(12) + 30.0)
    proprio = proprio_of(lite3, sensors, (0.5, 0.25, -0.75))
    assert proprio.dtype == np.float32
    assert proprio.tolist() == [
        *[1, 2, 3, 0, 0, -1, 0.5, 0.25, -0.75],
        *range(10, 22),
        *range(30, 42),
        *[0] * 12,
    ]
    backwards = msgspec.structs.replace(lite3, proprio=lite3.proprio[::-1])
    assert proprio_of(backwards, sensors, (0.5, 0.25, -0.75)).tolist() == [
        *[0] * 12,
        *range(30, 42),
        *range(10, 22),
        *[-0.75, 0.5, 0.25, 0, 0, -1, 1, 2, 3],
    ]


def test_its_observations_are_what_its_profile_promises(lite3: RobotProfile) -> None:
    robot, _ = make(lite3)
    for name, spec in lite3.observation_specs.items():
        spec.validate(robot.read().arrays[name])
