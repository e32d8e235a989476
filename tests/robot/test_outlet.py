"""The place from which commands leave, for robots that stop in their own way; see test_motors.py for the rest."""

from __future__ import annotations

import msgspec

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command, TimedCommand
from policyloop.robot.outlet import Outlet

MS = 1_000_000
TARGETS = Command((0.1, -0.6, 1.2) * 4, ("slew",))


class Sink:
    def __init__(self) -> None:
        self.orders: list[TimedCommand] = []

    def write(self, order: TimedCommand) -> None:
        self.orders.append(order)


def test_joints_get_commands_for_as_long_as_the_profile_says(lite3: RobotProfile) -> None:
    sink, clock = Sink(), VirtualClock(1000 * MS)
    outlet = Outlet(lite3, sink, clock)
    assert outlet.send(TARGETS, outlet.begin()) == TARGETS
    clock.advance_ns(12 * MS)
    outlet.halt("late")
    assert sink.orders == [TimedCommand(TARGETS, 1, 1100 * MS), TimedCommand(lite3.stop("late"), 2, 1112 * MS)]
    assert sink.orders[1].command.damped


def test_a_tick_that_was_halted_lets_the_joints_damp(lite3: RobotProfile) -> None:
    sink = Sink()
    outlet = Outlet(lite3, sink, VirtualClock())
    begun = outlet.begin()
    outlet.halt("late")
    assert outlet.send(TARGETS, begun) == lite3.stop("halted")
    assert outlet.send(TARGETS, outlet.begin()) == TARGETS
    assert [order.command.damped for order in sink.orders] == [True, True, False]


def test_a_rovers_commands_may_be_valid_for_another_time_too(mini: RobotProfile) -> None:
    rates = msgspec.structs.replace(mini.rates, command_valid_s=0.3)
    sink = Sink()
    outlet = Outlet(msgspec.structs.replace(mini, rates=rates), sink, VirtualClock())
    outlet.halt("shutdown")
    assert sink.orders == [TimedCommand(Command((0.0, 0.0), ("shutdown",)), 1, 300 * MS)]
