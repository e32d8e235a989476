from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from policyloop.core.clock import MonotonicClock, VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation, Step, TimedCommand
from policyloop.robot.actor import Actor
from policyloop.robot.recorder import Recorder
from policyloop.safety.gate import SafetyGate
from policyloop.sim.late_rover import LateRover
from policyloop.sim.randomization import Randomization
from policyloop.sim.robot import SimulatedRobot
from policyloop.sim.rover import arena

MS = 1_000_000
LINEAR = 0
WEAVE = [(0.1 * (tick % 6), 0.4 * (tick % 3) - 0.4) for tick in range(12)]
Fixed = Callable[..., Randomization]


class Drive:
    """A rover on virtual time."""

    def __init__(self, profile: RobotProfile, randomization: Randomization | None = None, seed: int = 0) -> None:
        self.clock = VirtualClock()
        self.late = LateRover(profile, self.clock, randomization)
        self.late.begin(arena(3, profile.simulation), np.random.default_rng(seed))
        self._sent = 0

    def tick(self, linear: float, angular: float = 0.0) -> Observation:
        self._sent += 1
        self.late.write(TimedCommand(Command((linear, angular)), self._sent, self.clock.now_ns() + 200 * MS))
        return self.late.read()

    @property
    def now_ms(self) -> float:
        return self.clock.now_ns() / MS


def assert_equal(one: Observation, other: Observation) -> None:
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])


def test_nominal_ranges_change_not_a_bit(mini: RobotProfile, fixed: Fixed) -> None:
    plain, drawn = Drive(mini), Drive(mini, fixed())
    for motion in WEAVE:
        one, other = plain.tick(*motion), drawn.tick(*motion)
        assert_equal(one, other)
        assert one.captured_ns == other.captured_ns == plain.clock.now_ns() == drawn.clock.now_ns()


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_begins_at_the_same_place_in_any_world(mini: RobotProfile, seed: int) -> None:
    nominal, other = (
        SimulatedRobot(mini, range(9), np.random.default_rng(seed), VirtualClock(), randomization=randomization)
        for randomization in (None, Randomization())
    )
    assert nominal.rover.arena is other.rover.arena
    np.testing.assert_allclose(nominal.rover.pose, other.rover.pose, atol=2e-3)  # heavier bodies settle differently


@pytest.mark.parametrize("latency_ms", [30, 70, 100, 130, 200, 250])
def test_every_observation_is_as_old_as_the_latency_from_the_first_on(
    empty: RobotProfile, fixed: Fixed, latency_ms: int
) -> None:
    drive = Drive(empty, fixed(observation_latency_ms=latency_ms))
    first = drive.late.read()
    assert (first.captured_ns, drive.now_ms) == (0, latency_ms)
    for tick in range(1, 7):
        captured_ms = drive.tick(0.6).captured_ns / MS
        assert drive.now_ms == latency_ms + 100 * tick
        assert captured_ms == 100 * tick


def test_a_late_observation_shows_what_was_there_when_it_was_captured(quiet: RobotProfile, fixed: Fixed) -> None:
    prompt, late = Drive(quiet), Drive(quiet, fixed(observation_latency_ms=200))
    shown = [prompt.late.read(), *(prompt.tick(*motion) for motion in WEAVE)]
    told = [late.late.read(), *(late.tick(*motion) for motion in WEAVE)]
    assert_equal(told[0], shown[0])
    assert_equal(told[1], shown[0])
    for tick in range(2, len(told)):
        assert_equal(told[tick], shown[tick - 2])
        if tick > 2:
            assert (told[tick].arrays["depth"] != told[tick - 1].arrays["depth"]).any()


def test_a_look_in_the_middle_of_a_tick_sees_the_speed_of_that_moment(empty: RobotProfile, fixed: Fixed) -> None:
    # 1 m/s^2: the setpoint of a tick is 0.07 after its first 70 ms, which is when a picture 30 ms old is taken
    late = Drive(empty, fixed(observation_latency_ms=30))
    late.late.read()
    assert late.tick(0.6).arrays["proprio"][LINEAR] == pytest.approx(0.07, abs=0.02)
    assert late.tick(0.6).arrays["proprio"][LINEAR] == pytest.approx(0.17, abs=0.02)


def test_looking_again_is_no_newer_and_moves_nothing(mini: RobotProfile, fixed: Fixed) -> None:
    drive = Drive(mini, fixed(observation_latency_ms=130))
    once = drive.tick(0.5)
    pose, now_ms = drive.late.rover.pose, drive.now_ms
    assert drive.late.read() is once
    assert (drive.late.rover.pose, drive.now_ms) == (pose, now_ms)


def test_a_command_before_the_first_look_does_not_make_pictures_newer(empty: RobotProfile, fixed: Fixed) -> None:
    drive = Drive(empty, fixed(observation_latency_ms=230))
    for _ in range(4):
        captured_ns = drive.tick(0.3).captured_ns
        assert drive.clock.now_ns() - captured_ns == 230 * MS


def test_a_command_that_takes_a_tick_is_driven_one_tick_later(quiet: RobotProfile, fixed: Fixed) -> None:
    prompt, late = Drive(quiet), Drive(quiet, fixed(command_latency_ms=100))
    prompt.tick(0.0)
    expected = [prompt.late.read(), *(prompt.tick(*motion) for motion in WEAVE)]
    for tick, motion in enumerate(WEAVE):
        assert_equal(late.tick(*motion), expected[tick])


def test_half_a_tick_late_reaches_half_the_speed_in_the_first_tick(empty: RobotProfile, fixed: Fixed) -> None:
    for latency_ms, expected_mps in ((0, 0.1), (50, 0.05), (80, 0.02)):
        drive = Drive(empty, fixed(command_latency_ms=latency_ms))
        assert drive.tick(0.6).arrays["proprio"][LINEAR] == pytest.approx(expected_mps, abs=0.02)


def test_a_link_slower_than_a_command_is_valid_leaves_the_rover_where_it_is(empty: RobotProfile, fixed: Fixed) -> None:
    drive = Drive(empty, fixed(command_latency_ms=210))
    pose = drive.late.rover.pose
    for _ in range(10):
        drive.tick(0.6)
    np.testing.assert_allclose(drive.late.rover.pose, pose, atol=1e-3)


def test_commands_end_with_the_last_one(empty: RobotProfile, fixed: Fixed) -> None:
    drive = Drive(empty, fixed(command_latency_ms=50, command_jitter_ms=40, observation_latency_ms=60))
    for _ in range(10):
        drive.tick(0.6)
    for _ in range(8):
        speed = drive.tick(0.0).arrays["proprio"][LINEAR]
    assert speed == pytest.approx(0, abs=0.01)


def test_a_new_episode_knows_nothing_of_the_last_ones_commands_and_pictures(quiet: RobotProfile, fixed: Fixed) -> None:
    drive = Drive(quiet, fixed(command_latency_ms=50, observation_latency_ms=130))
    for _ in range(5):
        drive.tick(0.6)
    drive.late.begin(arena(4, quiet.simulation), np.random.default_rng(1))
    pose, begun_ns = drive.late.rover.pose, drive.clock.now_ns() - 130 * MS
    seen = drive.late.read()
    assert seen.captured_ns == begun_ns
    assert seen.arrays["proprio"][LINEAR] == pytest.approx(0, abs=0.01)
    assert drive.late.rover.pose == pose


def test_in_real_time_stamps_lie_in_the_past(mini: RobotProfile, fixed: Fixed) -> None:
    clock = MonotonicClock()
    late = LateRover(mini, clock, fixed(observation_latency_ms=130))
    before_ns = clock.now_ns()
    late.begin(arena(3, mini.simulation), np.random.default_rng(0))
    assert before_ns - 130 * MS <= late.read().captured_ns <= clock.now_ns() - 130 * MS


class Straight:
    """Proposes to drive straight on, and remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Observation] = []

    def propose(self, observation: Observation) -> Action:
        self.shown.append(observation)
        return Action((0.3, 0.0), "scripted")

    def executed(self, command: Command) -> None:
        pass

    def reset(self) -> None:
        pass


def recorded(profile: RobotProfile, randomization: Randomization, ticks: int = 8) -> tuple[list[Step], Straight]:
    """Drive straight through the robot's own program."""
    clock, driver, steps = VirtualClock(), Straight(), list[Step]()
    robot = SimulatedRobot(profile, [3], np.random.default_rng(0), clock, randomization=randomization)
    recorder = Recorder(profile, "r0", "b0", steps.append)
    actor = Actor(profile, robot, robot, driver, SafetyGate(profile, "limits"), recorder, clock)
    for _ in range(ticks):
        actor.tick()
    assert actor.errors == 0
    return steps, driver


def test_a_step_tells_the_true_age_of_what_it_was_made_from(empty: RobotProfile, fixed: Fixed) -> None:
    steps, _ = recorded(empty, fixed(observation_latency_ms=70, command_latency_ms=40))
    assert [step.record.stamps.acted_ns - step.record.stamps.captured_ns for step in steps] == [70 * MS] * 7
    assert {step.record.command.reasons for step in steps[3:]} == {()}
    assert {step.record.action.values for step in steps} == {(0.3, 0.0)}


def test_the_gate_stops_a_rover_whose_pictures_are_too_old(empty: RobotProfile, fixed: Fixed) -> None:
    steps, _ = recorded(empty, fixed(observation_latency_ms=210))
    assert {step.record.command for step in steps} == {Command((0.0, 0.0), ("stale",))}
    assert {step.record.action.values for step in steps} == {(0.3, 0.0)}
    steps, _ = recorded(empty, fixed(observation_latency_ms=190))
    assert steps[-1].record.command.values == (pytest.approx(0.3), 0.0)


def test_a_policy_may_ask_for_its_last_action_and_the_age_of_its_observation(aware: RobotProfile, fixed: Fixed) -> None:
    steps, driver = recorded(aware, fixed(observation_latency_ms=70), ticks=4)
    told = np.array([observation.arrays["proprio"] for observation in driver.shown])
    # -0.1..0.6 m/s: 0.3 lies (0.3 - 0.25) / 0.35 from the middle
    np.testing.assert_allclose(told[:, :2], [[0, 0]] + [[1 / 7, 0]] * 3, atol=1e-6)
    np.testing.assert_allclose(told[:, -1], 0.07, atol=1e-6)
    np.testing.assert_array_equal(steps[1].observation["proprio"], told[1])


def test_without_delay_the_age_is_nought_and_the_rest_is_sensed_as_ever(
    aware: RobotProfile, empty: RobotProfile
) -> None:
    told, plain = Drive(aware).tick(0.5, 0.3), Drive(empty).tick(0.5, 0.3)
    np.testing.assert_array_equal(told.arrays["proprio"][2:-1], plain.arrays["proprio"])
    np.testing.assert_array_equal(told.arrays["proprio"][[0, 1, -1]], 0)


def test_the_control_rate_may_be_another(empty: RobotProfile, fixed: Fixed) -> None:
    rates = msgspec.structs.replace(empty.rates, control_hz=30.0)
    drive = Drive(msgspec.structs.replace(empty, rates=rates), fixed(observation_latency_ms=46))
    for _ in range(5):
        captured_ns = drive.tick(0.5).captured_ns
        # three physics steps of 11.1 ms to a tick: 46 ms are nearest to four of them
        assert drive.now_ms - captured_ns / MS == pytest.approx(44.4, abs=0.1)
