"""Commands leave as velocities, and a person's come in."""

from __future__ import annotations

import math
from typing import Any

import pytest

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Command, TimedCommand
from policyloop.errors import ConfigError
from policyloop.robot.ros.teleop import Teleop
from policyloop.robot.ros.twist_sink import TwistSink

M = Any


def test_commands_leave_as_velocities_and_closing_stands_still(mini: RobotProfile) -> None:
    sent: list[tuple[float, float]] = []
    sink = TwistSink(mini, lambda *twist: sent.append(twist))
    sink.write(TimedCommand(Command((0.1, -0.2)), 1, 0))
    sink.write(TimedCommand(mini.stop("stale"), 2, 0))
    sink.close()
    sink.write(TimedCommand(Command((0.1, -0.2)), 3, 0))
    assert sent == [(0.1, -0.2), (0.0, 0.0), (0.0, 0.0)]


def test_legs_do_not_drive_by_twist() -> None:
    with pytest.raises(ConfigError, match="a Twist says linear and angular"):
        TwistSink(load_profile("lite3"), lambda *twist: None)


def test_a_person_drives_until_nothing_has_come_for_half_a_second(mini: RobotProfile, messages: M) -> None:
    clock = VirtualClock(10**9)
    teleop = Teleop(mini, "/cmd_vel_teleop", clock)
    assert teleop() is None
    assert teleop.diagnosis().message == "nobody drives by hand"
    teleop.put(messages.twist(0.1, 0.2), clock.now_ns())
    clock.advance_ns(400_000_000)
    action = teleop()
    assert action is not None
    assert (action.values, action.source, action.behaviour) == ((0.1, 0.2), "human", None)
    teleop.put(messages.stamped(0.05, 0.0), clock.now_ns())
    clock.advance_ns(490_000_000)
    assert teleop() is not None
    clock.advance_ns(20_000_000)
    assert teleop() is None


def test_a_command_that_makes_no_sense_is_refused_and_counted(mini: RobotProfile, jazzy: M) -> None:
    clock = VirtualClock(10**9)
    teleop = Teleop(mini, "/cmd_vel_teleop", clock)
    teleop.put(jazzy.twist(math.nan, 0.0), clock.now_ns())
    teleop.put(jazzy.float32(1.0), clock.now_ns())
    assert teleop() is None
    assert teleop.diagnosis().values["refused"] == "2"
