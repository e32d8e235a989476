"""A real process is frozen, killed or cut off; the motors outside of it stop, and nothing moves again by itself."""

from __future__ import annotations

import pytest

from policyloop.chaos.process import PROCESS_FAULTS, ProcessFault, try_process_fault
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command

FAULTS = {fault.name: fault for fault in PROCESS_FAULTS}


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [("frozen-program", "tripped", "the control loop hangs"), ("killed-program", "disarmed", "")],
)
def test_without_its_program_a_robot_stands_within_half_a_second_until_somebody_arms_it(
    mini: RobotProfile, name: str, state: str, reason: str
) -> None:
    outcome = try_process_fault(mini, FAULTS[name])
    assert outcome.passed, outcome
    assert outcome.stopped_after_s is not None
    assert outcome.stopped_after_s <= 0.2  # the last command was valid for two ticks when it left
    assert (outcome.state, outcome.reason) == (state, reason)
    assert (outcome.moved_by_itself, outcome.armed_again, outcome.contact) == (False, True, False)
    assert "expired" in outcome.said
    assert state in outcome.said


def test_without_its_gateway_a_robot_drives_on_and_no_step_is_lost(mini: RobotProfile) -> None:
    outcome = try_process_fault(mini, FAULTS["dropped-link"])
    assert outcome.passed, outcome
    assert (outcome.stopped_after_s, outcome.state) == (None, "armed")
    assert outcome.travelled_m > 0.3


def test_motors_that_obey_the_last_command_for_ever_would_not_pass(
    mini: RobotProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policyloop.chaos.process.MotorLatch.command", obey_for_ever)
    assert not try_process_fault(mini, FAULTS["killed-program"]).passed


def obey_for_ever(latch: object, now_ns: int) -> Command:
    from policyloop.robot.motors import MotorLatch

    assert isinstance(latch, MotorLatch)
    return latch._stop if latch._order is None else latch._order.command


def test_a_program_that_arms_itself_again_would_not_pass(mini: RobotProfile) -> None:
    def arming(world: object) -> None:
        from policyloop.chaos.process import _restart, _World

        assert isinstance(world, _World)
        _restart(world)
        assert world.live(60.0, lambda: world.ask("arm") is not None)

    outcome = try_process_fault(
        mini,
        ProcessFault(name="eager", what="it arms itself", breaks=FAULTS["killed-program"].breaks, mends=arming),
    )
    assert (outcome.moved_by_itself, outcome.passed) == (True, False)
