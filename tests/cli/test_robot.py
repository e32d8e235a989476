"""`policyloop run` and `policyloop robot`: two processes, one socket, and nothing that moves by itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]
NAME = ("--name", "bench")


@pytest.fixture
def running(
    cloned: Path, spawn: Callable[..., subprocess.Popen[str]], policyloop: Call, until: Callable[..., None]
) -> Iterator[subprocess.Popen[str]]:
    """A robot's program that answers, and whose input has been healthy for a second."""
    robot = spawn("-v", "run", "--profile", "rover-mini", "--policy", cloned / "checkpoints" / "000000", *NAME)
    until(lambda: policyloop("robot", "arm", *NAME)[0] == 0)
    assert policyloop("robot", "disarm", *NAME)[0] == 0
    yield robot
    robot.send_signal(signal.SIGINT)
    assert robot.wait(30) == 0


def status(policyloop: Call) -> dict[str, object]:
    code, out, err = policyloop("robot", "status", *NAME, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_robot_is_armed_stopped_and_armed_again_by_hand_and_by_nobody_else(
    running: subprocess.Popen[str], policyloop: Call, until: Callable[..., None]
) -> None:
    assert status(policyloop)["state"] == "disarmed"
    code, out, _ = policyloop("robot", "arm", *NAME)
    assert (code, out) == (0, "armed; policy 1\n")
    code, out, _ = policyloop("robot", "stop", *NAME)
    assert (code, out) == (0, "tripped: emergency stop; the emergency stop is pressed; policy 1\n")
    code, _, err = policyloop("robot", "arm", *NAME)
    assert (code, "the emergency stop is pressed" in err) == (6, True)
    code, out, _ = policyloop("robot", "release", *NAME)
    assert out == "tripped: emergency stop; policy 1\n"
    until(lambda: policyloop("robot", "arm", *NAME)[0] == 0)
    assert status(policyloop) == {
        "state": "armed",
        "reason": "",
        "stop_held": False,
        "policy_version": 1,
        "refused": "",
    }


def test_a_program_that_is_frozen_for_a_moment_trips_and_stays_tripped(
    running: subprocess.Popen[str], policyloop: Call, until: Callable[..., None]
) -> None:
    assert policyloop("robot", "arm", *NAME)[0] == 0
    running.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOWAIT)
    code, _, err = policyloop("robot", "status", *NAME)
    assert (code, "no robot answers" in err) == (4, True)
    running.send_signal(signal.SIGCONT)
    until(lambda: status(policyloop)["state"] == "tripped")
    assert "hangs" in str(status(policyloop)["reason"])


def test_rubbish_on_the_socket_changes_nothing(running: subprocess.Popen[str], policyloop: Call) -> None:
    path = Path(os.environ["XDG_RUNTIME_DIR"]) / "bench.sock"
    assert path.stat().st_mode & 0o077 == 0
    for rubbish in (b"", b"\n", b"arm\n", b'{"verb": "fly"}\n', b'{"verb": "arm", "x": 1}\n', b"x" * 5000):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            try:
                connection.sendall(rubbish)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(100) == b""
            except ConnectionError:
                continue
    assert status(policyloop)["state"] == "disarmed"


def test_two_robots_of_one_name_do_not_share_a_socket(
    running: subprocess.Popen[str], policyloop: Call, cloned: Path
) -> None:
    arguments = ["run", "--profile", "rover-mini", "--policy", cloned / "checkpoints" / "000000", "--seconds", 0.2]
    code, _, err = policyloop(*arguments, *NAME)
    assert (code, "another robot's program answers" in err) == (2, True)
    assert policyloop(*arguments, "--name", "Bench 2")[0] == 0


def test_a_program_that_was_killed_leaves_no_way_blocked_and_starts_disarmed(
    cloned: Path, spawn: Callable[..., subprocess.Popen[str]], policyloop: Call, until: Callable[..., None]
) -> None:
    for _ in range(2):
        robot = spawn("run", "--profile", "rover-mini", "--policy", cloned / "checkpoints" / "000000", *NAME)
        until(lambda: policyloop("robot", "status", *NAME)[0] == 0)
        assert status(policyloop)["state"] == "disarmed"
        until(lambda: policyloop("robot", "arm", *NAME)[0] == 0)
        robot.kill()
        robot.wait()


def test_where_no_robot_runs_nobody_answers(policyloop: Call) -> None:
    code, _, err = policyloop("robot", "stop", *NAME)
    assert (code, "policyloop run" in err) == (4, True)


@pytest.mark.parametrize(("options", "moved"), [(["--arm"], True), ([], False)])
def test_a_robot_moves_only_when_it_was_armed(cloned: Path, policyloop: Call, options: list[str], moved: bool) -> None:
    policy = cloned / "checkpoints" / "000000"
    arguments = ["run", "--profile", "rover-mini", "--policy", policy, "--seconds", 2.5, *NAME, *options]
    code, out, err = policyloop(*arguments)
    assert code == 0, err
    assert out.strip().endswith("armed" if moved else "disarmed") and out.strip().endswith("disarmed") != moved
