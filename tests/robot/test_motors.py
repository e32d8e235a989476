"""Promise R27: what drives the motors stops by itself, whatever became of the program that sends commands."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
import time

import msgspec
import pytest

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command, TimedCommand
from policyloop.robot.motors import LONGEST_NS, MotorLatch
from policyloop.robot.outlet import Outlet

MS = 1_000_000


def order(sequence: int, valid_until_ms: float, *values: float) -> TimedCommand:
    return TimedCommand(Command(values or (0.5, 0.1)), sequence, round(valid_until_ms * MS))


def test_a_command_is_obeyed_until_the_very_nanosecond_and_then_no_more() -> None:
    motors = MotorLatch(Command((0.0, 0.0)))
    assert motors.command(0).values == (0.0, 0.0)
    assert motors.accept(order(1, 200), 0)
    assert motors.command(200 * MS - 1).values == (0.5, 0.1)
    assert motors.command(200 * MS).values == (0.0, 0.0)


def test_a_newer_command_takes_the_place_of_an_older_one_and_never_the_other_way_round() -> None:
    motors = MotorLatch(Command((0.0, 0.0)))
    assert motors.accept(order(7, 200, 0.1, 0.0), 0)
    for late in (7, 6, 1, 0, -1):
        assert not motors.accept(order(late, 300, 0.6, 0.0), 10 * MS)
    assert motors.command(20 * MS).values == (0.1, 0.0)
    assert motors.accept(order(9, 300, 0.2, 0.0), 10 * MS)
    assert motors.command(20 * MS).values == (0.2, 0.0)


@pytest.mark.parametrize("valid_until_ms", [-1.0, 0.0, 100.0, 100.0 + LONGEST_NS / MS + 1, 1e12])
def test_what_is_over_or_lasts_suspiciously_long_is_not_obeyed(valid_until_ms: float) -> None:
    motors = MotorLatch(Command((0.0, 0.0)))
    assert not motors.accept(order(1, valid_until_ms), 100 * MS)
    assert motors.command(100 * MS).values == (0.0, 0.0)


def test_a_command_for_another_robot_is_not_obeyed() -> None:
    assert not MotorLatch(Command((0.0, 0.0))).accept(order(1, 100, 0.5), 0)


def test_a_program_that_was_started_again_may_count_from_one() -> None:
    motors = MotorLatch(Command((0.0, 0.0)))
    motors.accept(order(900, 200), 0)
    motors.restart()
    assert motors.command(1).values == (0.0, 0.0)
    assert motors.accept(order(1, 200), 0)


def test_joints_without_a_valid_command_damp(lite3: RobotProfile) -> None:
    motors = MotorLatch(lite3.stop())
    assert motors.command(0) == Command((0.0, -0.65, 1.3) * 4, (), damped=True)
    followed = Command((0.1,) * 12, ("slew",))
    assert motors.accept(TimedCommand(followed, 1, 100 * MS), 0)
    assert motors.command(100 * MS - 1) == followed
    assert motors.command(100 * MS) == lite3.stop()
    let_go = lite3.stop("tripped")
    assert motors.accept(TimedCommand(let_go, 2, 200 * MS), 100 * MS)
    assert motors.command(150 * MS) == let_go
    assert not motors.accept(order(3, 300, *[0.0] * 11), 150 * MS)
    motors.restart()
    assert motors.command(150 * MS) == lite3.stop()


class Sink:
    def __init__(self) -> None:
        self.orders: list[TimedCommand] = []

    def write(self, order: TimedCommand) -> None:
        self.orders.append(order)


def test_commands_leave_numbered_and_are_valid_for_two_ticks(mini: RobotProfile) -> None:
    sink, clock = Sink(), VirtualClock(1000 * MS)
    outlet = Outlet(mini, sink, clock)
    for _ in range(2):
        outlet.send(Command((0.1, 0.0)), outlet.begin())
    assert [(order.sequence, order.valid_until_ns) for order in sink.orders] == [(1, 1200 * MS), (2, 1200 * MS)]


def test_a_slow_robots_commands_are_valid_for_half_a_second_at_most(mini: RobotProfile) -> None:
    rates = msgspec.structs.replace(mini.rates, control_hz=1.0, sensor_timeout_s=1.0)
    sink = Sink()
    outlet = Outlet(msgspec.structs.replace(mini, rates=rates), sink, VirtualClock())
    outlet.send(Command((0.1, 0.0)), outlet.begin())
    assert sink.orders[0].valid_until_ns == LONGEST_NS


def test_a_tick_that_was_halted_moves_nothing_any_more(mini: RobotProfile) -> None:
    sink = Sink()
    outlet = Outlet(mini, sink, VirtualClock())
    begun = outlet.begin()
    outlet.halt("late")
    assert outlet.send(Command((0.1, 0.0)), begun) == Command((0.0, 0.0), ("halted",))
    assert outlet.send(Command((0.1, 0.0)), outlet.begin()).values == (0.1, 0.0)
    assert [order.command.reasons for order in sink.orders] == [("late",), ("halted",), ()]
    assert [order.sequence for order in sink.orders] == [1, 2, 3]


SENDER = """
import socket, struct, sys, time
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.connect(("127.0.0.1", int(sys.argv[1])))
sequence = 0
while True:
    sequence += 1
    link.send(struct.pack("<QQ2d", sequence, time.monotonic_ns() + 200_000_000, 0.5, 0.0))
    time.sleep(0.1)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_motors_stand_still_within_half_a_second_of_the_senders_death(number: signal.Signals) -> None:
    motors = MotorLatch(Command((0.0, 0.0)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        link.settimeout(0.01)
        sender = subprocess.Popen([sys.executable, "-c", SENDER, str(link.getsockname()[1])])
        try:
            died_ns, deadline_s = 0, time.monotonic() + 60
            while time.monotonic() < deadline_s:
                try:
                    sequence, until_ns, *values = struct.unpack("<QQ2d", link.recv(64))
                    motors.accept(TimedCommand(Command(tuple(values)), sequence, until_ns), time.monotonic_ns())
                except TimeoutError:
                    pass
                if not died_ns and motors._newest >= 3 and motors.command(time.monotonic_ns()).values != (0.0, 0.0):
                    sender.send_signal(number)
                    died_ns = time.monotonic_ns()
                now_ns = time.monotonic_ns()
                if died_ns and motors.command(now_ns).values == (0.0, 0.0):
                    # It was valid for 200 ms when it was sent: no clock of this test's can make that longer.
                    assert motors._order is not None
                    assert motors._order.valid_until_ns - died_ns <= 200 * MS
                    return
            raise AssertionError("the motors never stopped")
        finally:
            sender.kill()
            sender.wait()
