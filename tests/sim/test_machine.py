"""Which robot is simulated for a profile."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError
from policyloop.sim.lite3_robot import SimulatedLite3
from policyloop.sim.machine import simulated_machine, why_not_simulated
from policyloop.sim.robot import SimulatedRobot


def made(profile: RobotProfile) -> SimulatedRobot | SimulatedLite3:
    return simulated_machine(profile, np.random.default_rng(0), VirtualClock())


def test_a_profile_with_joints_is_a_lite3_and_one_with_a_camera_a_rover(
    lite3: RobotProfile, mini: RobotProfile
) -> None:
    for profile, kind in ((lite3, SimulatedLite3), (mini, SimulatedRobot)):
        assert why_not_simulated(profile) == ""
        robot = made(profile)
        assert isinstance(robot, kind)
        for name, spec in profile.observation_specs.items():
            spec.validate(robot.read().arrays[name])
        robot.close()


def test_another_legged_robot_has_no_simulator(lite3: RobotProfile) -> None:
    entry = msgspec.structs.replace(lite3.action[0], name="FL_Wheel")
    other = msgspec.structs.replace(lite3, name="wheely", action=(entry, *lite3.action[1:]))
    assert why_not_simulated(other) == "profile 'wheely' does not describe a Lite3: FL_Wheel"
    with pytest.raises(ConfigError, match="'wheely' does not describe a Lite3: FL_Wheel") as caught:
        made(other)
    assert "FL_HipX" in caught.value.remedy


def test_neither_has_one_that_has_neither_camera_nor_joints(walker: RobotProfile) -> None:
    assert why_not_simulated(walker) == "there is no simulator for profile 'walker'"
    with pytest.raises(ConfigError):
        made(walker)
