"""A robot of the user's own behind `policyloop run --io module:factory`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from policyloop.cli.machine import check_io, open_machine
from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError, UsageError

_ROBOT = """class Robot:
    def __init__(self, profile):
        self.profile = profile
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own_robot", "broken_robot"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "own_robot.py").write_text(_ROBOT)
    (tmp_path / "broken_robot.py").write_text("raise OSError('no such serial port')\n")


def test_the_factory_gets_the_profile_and_sets_no_pace(lite3: RobotProfile) -> None:
    check_io("own_robot:Robot")
    robot, pace = open_machine("own_robot:Robot", lite3, "dog", np.random.default_rng(0), VirtualClock())
    assert (robot.profile, pace) == (lite3, None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("io", ["own_robot:Ghost", "broken_robot:Robot", "no_such_module:Robot"])
def test_a_robot_that_is_not_there_is_a_configuration_error_before_anything_is_opened(io: str) -> None:
    with pytest.raises(ConfigError, match=f"--io.*{io.partition(':')[0]}"):
        check_io(io)


@pytest.mark.parametrize("io", ["own_robot", "own_robot:", ":Robot", "own robot:Robot", "tcp:http", "unix:", "udp:5"])
def test_what_is_neither_robot_nor_bridge_is_a_usage_error(io: str) -> None:
    with pytest.raises(UsageError, match=f"--io {io}"):
        check_io(io)


@pytest.mark.parametrize("io", ["sim", "bridge", "bridge:robot", "unix:socket", "tcp:5123", "zmq:ipc"])
def test_the_other_forms_stay_what_they_are(io: str) -> None:
    check_io(io)
