"""How old an observation is when the policy is asked: told to whoever asks for it."""

from __future__ import annotations

import msgspec
import numpy as np

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.spec import Quantity
from policyloop.core.step import Action, Command, Observation, Step, TimedCommand
from policyloop.robot.actor import Actor
from policyloop.robot.age import Age
from policyloop.robot.recorder import Recorder
from policyloop.safety.gate import SafetyGate

DELAY = Quantity(name="delay", unit="s")


def test_it_is_the_time_since_capture_in_seconds_and_nothing_else_changes(mini: RobotProfile) -> None:
    profile = msgspec.structs.replace(mini, proprio=(mini.proprio[0], DELAY, *mini.proprio[1:]))
    before = Observation({"proprio": np.arange(7, dtype=np.float32), "scan": np.ones(2)}, 40_000_000, contact=True)
    after = Age(profile).told(before, 125_000_000)
    np.testing.assert_allclose(after.arrays["proprio"], [0, 0.085, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(before.arrays["proprio"], np.arange(7))
    assert after.arrays["proprio"].dtype == np.float32
    assert after.arrays["scan"] is before.arrays["scan"]
    assert (after.captured_ns, after.contact) == (40_000_000, True)


def test_a_robot_whose_policy_does_not_ask_is_told_nothing(mini: RobotProfile) -> None:
    seen = Observation({"proprio": np.ones(6, np.float32)}, 7)
    assert Age(mini).told(seen, 100) is seen


class _Robot:
    """A robot without a camera whose readings are 30 ms old when they arrive, and 10 ms more each time."""

    def __init__(self) -> None:
        self.clock = VirtualClock(1_000_000_000)
        self.reads = 0
        self.asked: list[float] = []

    def read(self) -> Observation:
        self.reads += 1
        captured_ns = self.clock.now_ns() - 20_000_000 - 10_000_000 * self.reads
        return Observation({"proprio": np.zeros(3, np.float32)}, captured_ns)

    def begin_episode(self) -> bool:
        return False

    def write(self, order: TimedCommand) -> None:
        pass

    def propose(self, observation: Observation) -> Action:
        self.asked.append(round(float(observation.arrays["proprio"][2]), 6))
        return Action((0.1, 0.0), "scripted")

    def executed(self, command: Command) -> None:
        pass

    def reset(self) -> None:
        pass


def test_the_actor_tells_the_driver_and_records_what_it_told(mini: RobotProfile) -> None:
    profile = msgspec.structs.replace(mini, camera=None, proprio=(*mini.proprio[:2], DELAY))
    robot, steps = _Robot(), list[Step]()
    recorder = Recorder(profile, "r0", "b0", steps.append)
    actor = Actor(profile, robot, robot, robot, SafetyGate(profile), recorder, robot.clock)
    for _ in range(3):
        actor.tick()
        robot.clock.advance_ns(100_000_000)
    assert robot.asked == [0.03, 0.04, 0.05]
    assert [round(float(step.observation["proprio"][2]), 6) for step in steps] == [0.03, 0.04]
