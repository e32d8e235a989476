"""`policyloop gateway` and `policyloop sim`: steps on their way over a real socket."""

from __future__ import annotations

import gc
import json
import signal
import socket
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]
Spawn = Callable[..., subprocess.Popen[str]]


def listening(child: subprocess.Popen[str]) -> str:
    """Return the address that a gateway says it listens at."""
    assert child.stderr is not None
    line = child.stderr.readline()
    assert line.startswith("listening at "), line
    return line.split()[2].rstrip(",")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulated_robots_stream_into_a_journal_until_the_gateway_is_asked_to_end(
    number: int, spawn: Spawn, policyloop: Call, tmp_path: Path
) -> None:
    gateway = spawn("gateway", "--journal", "journal", "--profile", "rover-mini", "--port", 0)
    address = listening(gateway)
    code, out, err = policyloop(
        "sim", "--profile", "rover-mini", "--robots", 2, "--steps", 30, "--connect", address, "--name", "twin"
    )
    assert code == 0, err
    assert out.startswith("30 steps, 0 episodes")
    assert "not acknowledged" not in out
    gateway.send_signal(number)
    out, err = gateway.communicate(timeout=60)
    assert gateway.returncode == 0, err
    # a step is complete when the next observation is there: the last one of each robot is not
    assert out == "28 stored\n"
    summary = json.loads(policyloop("journal", "info", tmp_path / "journal", "--json")[1])
    assert {name: robot["steps"] for name, robot in summary["robots"].items()} == {"twin-0": 14, "twin-1": 14}
    assert summary["sources"] == {"scripted": 28}


def test_a_robot_of_another_profile_exits_with_7(spawn: Spawn) -> None:
    address = listening(spawn("gateway", "--journal", "journal", "--profile", "rover", "--port", 0))
    robot = spawn("sim", "--profile", "rover-mini", "--connect", address)
    _, err = robot.communicate(timeout=60)
    assert robot.returncode == 7
    assert "the gateway refuses robot 'sim-0'" in err
    assert "same profile" in err
    assert "Traceback" not in err


def test_a_refused_robot_releases_its_socket_and_its_spool(spawn: Spawn, policyloop: Call, tmp_path: Path) -> None:
    address = listening(spawn("gateway", "--journal", "journal", "--profile", "rover", "--port", 0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert policyloop("sim", "--profile", "rover-mini", "--connect", address, "--spool", tmp_path / "s")[0] == 7
        gc.collect()
    assert [str(warning.message) for warning in caught if warning.category is ResourceWarning] == []


def test_a_port_in_use_exits_with_4(policyloop: Call, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        for _ in range(2):  # the second time the journal of the first is there, and nobody holds it
            code, out, err = policyloop("gateway", "--journal", tmp_path / "journal", "--port", port)
            assert (code, out) == (4, "")
            assert f"tcp://127.0.0.1:{port}" in err
            assert "choose another --port" in err


def test_a_v1_port_in_use_exits_with_4(policyloop: Call, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        code, _, err = policyloop("gateway", "--journal", tmp_path / "journal", "--port", 0, "--v1-port", taken)
    assert code == 4
    assert f"tcp://127.0.0.1:{taken}" in err


def test_a_journal_of_another_profile_exits_with_7(recorded: Path, policyloop: Call) -> None:
    code, _, err = policyloop("gateway", "--journal", recorded, "--profile", "rover", "--port", 0)
    assert code == 7
    assert "belongs to profile 'rover-mini'" in err


def test_a_journal_that_is_being_written_exits_with_1(spawn: Spawn, policyloop: Call, tmp_path: Path) -> None:
    listening(spawn("gateway", "--journal", "journal", "--port", 0))
    code, _, err = policyloop("gateway", "--journal", tmp_path / "journal", "--port", 0)
    assert code == 1
    assert "being written by another process" in err
    assert "stop it first" in err


def test_robots_drive_without_a_gateway(policyloop: Call) -> None:
    code, out, err = policyloop("sim", "--profile", "rover-mini", "--driver", "random", "--robots", 2, "--steps", 10)
    assert code == 0, err
    assert out.startswith("10 steps")


def test_robots_drive_in_other_worlds_and_begin_in_sparse_arenas(policyloop: Call, tmp_path: Path) -> None:
    levels = tmp_path / "levels.toml"
    levels.write_text("[[levels]]\nobstacles = 2\ngap_m = 2.0\n")
    arguments = ("sim", "--profile", "rover-mini", "--robots", 2, "--steps", 10, "--randomize", "default")
    for curriculum in ("default", levels):
        code, out, err = policyloop(*arguments, "--curriculum", curriculum)
        assert code == 0, err
        assert out.rstrip().endswith("levels 0 0")
    levels.write_text("levels = []\n")
    code, _, err = policyloop(*arguments, "--curriculum", levels)
    assert code == 3
    assert "at least one level" in err


def test_robots_drive_with_a_policy(cloned: Path, policyloop: Call) -> None:
    arguments = ("sim", "--profile", "rover-mini", "--steps", 10, "--driver")
    for policy in (cloned / "store", cloned / "checkpoints" / "000000"):
        code, out, err = policyloop(*arguments, policy)
        assert code == 0, err
        assert out.startswith("10 steps")


def test_a_missing_driver_exits_with_1(policyloop: Call, tmp_path: Path) -> None:
    code, _, err = policyloop("sim", "--profile", "rover-mini", "--driver", tmp_path / "nobody")
    assert code == 1
    assert "no policy at" in err


def test_steps_that_nobody_takes_are_said_to_be_left(policyloop: Call, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"  # bound, but nobody listens
        arguments = (
            "sim",
            "--profile",
            "rover-mini",
            "--steps",
            5,
            "--connect",
            address,
            "--spool",
            tmp_path / "spool",
        )
        code, out, err = policyloop(*arguments)
    assert code == 0, err
    assert "the trainer has not acknowledged all of them" in out
    assert list((tmp_path / "spool" / "sim-0").glob("*.seg"))
