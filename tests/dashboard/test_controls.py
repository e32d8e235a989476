from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.dashboard.controls import Controls
from policyloop.errors import ConnectionFailed, SafetyRefusal, UsageError
from policyloop.robot.control import ControlSocket
from policyloop.safety.arming import ArmingLimits, ArmingSwitch


@pytest.fixture
def robot(mini: RobotProfile) -> Iterator[tuple[Path, ArmingSwitch]]:
    """A control socket, and what it moves."""
    with tempfile.TemporaryDirectory() as folder:
        arming = ArmingSwitch(ArmingLimits.of(mini))
        control = ControlSocket(Path(folder) / "r.sock", arming, lambda: 3)
        yield Path(folder) / "r.sock", arming
        control.close()


def test_a_verb_reaches_the_robot_and_its_answer_is_shown(robot: tuple[Path, ArmingSwitch]) -> None:
    path, arming = robot
    controls = Controls({"rover": path})
    assert controls.shown()[0].status is None
    assert controls.ask("rover", "stop").stop_held
    assert arming.now.stop_held
    shown = controls.shown()[0]
    assert shown.status is not None
    assert (shown.name, shown.status.state, shown.status.policy_version, shown.problem) == ("rover", "tripped", 3, "")


def test_a_refusal_is_the_robots_own(robot: tuple[Path, ArmingSwitch]) -> None:
    with pytest.raises(SafetyRefusal, match="has not been healthy"):
        Controls({"rover": robot[0]}).ask("rover", "arm")


def test_a_robot_that_does_not_answer_is_shown_as_such_and_no_other_can_be_named(tmp_path: Path) -> None:
    controls = Controls({"gone": tmp_path / "gone.sock"})
    with pytest.raises(ConnectionFailed):
        controls.ask("gone", "stop")
    controls.look("gone")
    assert "no robot answers" in controls.shown()[0].problem
    with pytest.raises(UsageError, match="no robot '/run/other"):
        controls.ask("/run/other.sock", "stop")
