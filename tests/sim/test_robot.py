from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest

from policyloop.core.clock import MonotonicClock, VirtualClock
from policyloop.core.profile import RobotProfile, Simulation
from policyloop.core.step import Action, Command, TimedCommand
from policyloop.sim.robot import Bursts, SimulatedRobot

PERIOD_NS = 100_000_000
SEQUENCE = itertools.count(1)


def simulated(profile: RobotProfile, seeds: tuple[int, ...] = (3,), *, shuffle: bool = True) -> SimulatedRobot:
    return SimulatedRobot(profile, seeds, np.random.default_rng(0), VirtualClock(), shuffle=shuffle)


def send(robot: SimulatedRobot, linear: float, angular: float = 0.0, valid_ns: int = 2 * PERIOD_NS) -> None:
    """Send the next command."""
    robot.write(TimedCommand(Command((linear, angular)), next(SEQUENCE), robot._late._clock.now_ns() + valid_ns))


def test_looking_without_a_command_lets_neither_time_nor_the_rover_move(mini: RobotProfile) -> None:
    clock = VirtualClock()
    robot = SimulatedRobot(mini, (3,), np.random.default_rng(0), clock)
    pose = robot.rover.pose
    assert [robot.read().captured_ns for _ in range(3)] == [0, 0, 0]
    assert robot.rover.pose == pose


def test_a_command_is_driven_for_exactly_one_tick(mini: RobotProfile) -> None:
    clock = VirtualClock()
    robot = SimulatedRobot(mini, (3,), np.random.default_rng(0), clock)
    for tick in range(1, 9):
        send(robot, 0.6, 0.0)
        assert robot.read().captured_ns == tick * PERIOD_NS
    pose = robot.rover.pose
    assert robot.read().captured_ns == 8 * PERIOD_NS
    assert robot.rover.pose == pose


def test_a_command_that_is_no_longer_valid_is_not_driven(mini: RobotProfile) -> None:
    clock = VirtualClock()
    robot = SimulatedRobot(mini, (3,), np.random.default_rng(0), clock)
    for _ in range(5):
        send(robot, 0.6)
        robot.read()
    send(robot, 0.6)
    clock.advance_ns(2 * PERIOD_NS)
    still, moving = simulated(mini), simulated(mini)
    for _ in range(5):
        send(still, 0.6)
        send(moving, 0.6)
        still.read(), moving.read()
    send(still, 0.0)
    np.testing.assert_array_equal(robot.read().arrays["proprio"], still.read().arrays["proprio"])


def test_of_two_commands_in_a_tick_the_last_counts(mini: RobotProfile) -> None:
    once, twice = simulated(mini), simulated(mini)
    for _ in range(5):
        send(once, 0.6, 0.0)
        send(twice, 0.0, 1.2)
        send(twice, 0.6, 0.0)
        np.testing.assert_array_equal(once.read().arrays["proprio"], twice.read().arrays["proprio"])


def test_in_real_time_observations_carry_the_real_time(mini: RobotProfile) -> None:
    robot = SimulatedRobot(mini, (3,), np.random.default_rng(0), MonotonicClock())
    before_ns = time.monotonic_ns()
    send(robot, 0.1, 0.0)
    assert before_ns <= robot.read().captured_ns <= time.monotonic_ns()


def test_an_observation_fits_the_profile_and_tells_of_contact(mini: RobotProfile) -> None:
    robot = simulated(mini)
    contacts = []
    for _ in range(300):
        send(robot, 0.6, 0.0)
        observation = robot.read()
        contacts.append(observation.contact)
        if observation.contact:
            break
    for name, spec in mini.observation_specs.items():
        spec.validate(observation.arrays[name])
    assert contacts == [False] * (len(contacts) - 1) + [True]


def test_a_new_episode_is_somewhere_else_and_forgets_the_last_command(mini: RobotProfile) -> None:
    robot = simulated(mini)
    send(robot, 0.6, 0.0)
    before = robot.rover.pose
    robot.begin_episode()
    begun = robot.rover.pose
    assert math.dist(before[:2], begun[:2]) > 0.05
    robot.read()
    assert robot.rover.pose == begun


def test_arenas_come_in_turn_when_they_are_not_shuffled(mini: RobotProfile) -> None:
    robot = simulated(mini, (8, 5, 9), shuffle=False)
    visited = []
    for _ in range(5):
        assert robot.rover.arena is not None
        visited.append(robot.rover.arena.seed)
        robot.begin_episode()
    assert visited == [8, 5, 9, 8, 5]


def test_shuffled_arenas_all_have_their_turn_sometime(mini: RobotProfile) -> None:
    robot = simulated(mini, (8, 5, 9))
    visited = set()
    for _ in range(30):
        assert robot.rover.arena is not None
        visited.add(robot.rover.arena.seed)
        robot.begin_episode()
    assert visited == {8, 5, 9}


def test_the_world_of_each_episode_is_asked_for(mini: RobotProfile) -> None:
    worlds = iter(Simulation(obstacles=obstacles) for obstacles in (0, 3, 7))
    robot = SimulatedRobot(mini, (3,), np.random.default_rng(0), VirtualClock(), world=lambda: next(worlds))
    counts = []
    for _ in range(3):
        assert robot.rover.arena is not None
        counts.append(len(robot.rover.arena.solids) - 4)
        if len(counts) < 3:
            robot.begin_episode()
    assert counts == [0, 3, 7]


TEACHER = Action((0.3, 0.2), "scripted")


def test_bursts_hold_one_command_for_5_to_15_ticks_with_the_teacher_in_between(mini: RobotProfile) -> None:
    bursts = Bursts(mini, np.random.default_rng(0))
    driven = [bursts(TEACHER) for _ in range(3000)]
    runs, start = [], 0
    for tick in range(1, len(driven) + 1):
        if tick == len(driven) or driven[tick] != driven[start]:
            runs.append((tick - start, driven[start]))
            start = tick
    held = [(length, values) for length, values in runs[:-1] if length > 1]
    assert len(held) > 30
    assert all(5 <= length <= 15 for length, _ in held)
    commands = np.array([values for _, values in held])
    assert (commands >= [-0.1, -1.2]).all()
    assert (commands <= [0.6, 1.2]).all()
    assert (np.ptp(commands, axis=0) > [0.4, 1.2]).all()
    between = np.array([values for length, values in runs if length == 1])
    # a tenth of the half range: 0.035 m/s and 0.12 rad/s
    np.testing.assert_allclose(between.mean(axis=0), TEACHER.values, atol=0.02)
    np.testing.assert_allclose(between.std(axis=0), [0.035, 0.12], rtol=0.1)


def test_bursts_of_equal_seeds_are_equal(mini: RobotProfile) -> None:
    runs = []
    for seed in (1, 1, 2):
        bursts = Bursts(mini, np.random.default_rng(seed))
        runs.append([bursts(TEACHER) for _ in range(100)])
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("seed", range(3))
def test_the_first_burst_does_not_come_at_once(mini: RobotProfile, seed: int) -> None:
    bursts = Bursts(mini, np.random.default_rng(seed))
    first = [bursts(TEACHER) for _ in range(4)]
    np.testing.assert_allclose(first, [TEACHER.values] * 4, atol=0.7)
    assert len(set(first)) == 4
