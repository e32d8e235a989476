"""`policyloop keys`, and commands that use them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.link.journal import Journal

Call = Callable[..., tuple[int, str, str]]
Spawn = Callable[..., "subprocess.Popen[str]"]


def made(policyloop: Call, directory: Path, name: str) -> str:
    """Make keys; returns the public one."""
    code, out, err = policyloop("keys", "new", name, "--keys", directory)
    assert (code, err) == (0, "")
    return out.strip()


def test_keys_are_made_shown_allowed_and_revoked(policyloop: Call, tmp_path: Path) -> None:
    robot, trainer = made(policyloop, tmp_path / "r", "rover-7"), made(policyloop, tmp_path / "t", "trainer")
    assert len(robot) == len(trainer) == 40
    assert policyloop("keys", "allow", "rover-7", robot, "--keys", tmp_path / "t")[0] == 0
    code, out, _ = policyloop("keys", "show", "--keys", tmp_path / "t", "--json")
    assert code == 0
    assert json.loads(out) == {"name": "trainer", "public": trainer, "allowed": {"rover-7": robot}}
    out = policyloop("keys", "show", "--keys", tmp_path / "t")[1]
    assert out.splitlines() == [f"trainer  {trainer}", f"  allows rover-7  {robot}"]
    assert policyloop("keys", "revoke", "rover-7", "--keys", tmp_path / "t")[0] == 0
    assert "rover-7" not in policyloop("keys", "show", "--keys", tmp_path / "t")[1]


def test_no_command_prints_a_secret(policyloop: Call, tmp_path: Path) -> None:
    made(policyloop, tmp_path, "r0")
    secret = json.loads((tmp_path / "identity.json").read_bytes())["secret"]
    for command in (["show"], ["show", "--json"], ["new", "r0"], ["revoke", "x"]):
        assert secret not in "".join(policyloop("keys", *command, "--keys", tmp_path)[1:])


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["show"], 3, "policyloop keys new"),
        (["new", "Bad Name"], 2, "lower case"),
        (["allow", "r0", "short"], 2, "no public key"),
        (["revoke", "r0"], 2, "not allowed"),
    ],
)
def test_what_cannot_be_is_said_with_a_remedy(
    policyloop: Call, tmp_path: Path, command: list[str], code: int, words: str
) -> None:
    result = policyloop("keys", *command, "--keys", tmp_path)
    assert result[0] == code
    assert words in result[2]


def test_a_key_that_others_can_read_exits_with_6(policyloop: Call, tmp_path: Path) -> None:
    made(policyloop, tmp_path, "r0")
    (tmp_path / "identity.json").chmod(0o644)
    code, _, err = policyloop("keys", "show", "--keys", tmp_path)
    assert code == 6
    assert "chmod 600" in err


def test_listening_to_the_network_without_keys_exits_with_6(policyloop: Call, tmp_path: Path) -> None:
    code, _, err = policyloop("gateway", "--profile", "rover-mini", "--journal", tmp_path / "j", "--host", "0.0.0.0")
    assert code == 6
    assert "unencrypted" in err


def test_leaving_the_machine_without_keys_exits_with_6(policyloop: Call, tmp_path: Path) -> None:
    code, _, err = policyloop(
        "sim", "--profile", "rover-mini", "--connect", "tcp://192.0.2.1:5555", "--spool", tmp_path / "s", "--steps", 1
    )
    assert code == 6
    assert "policyloop keys new" in err


def test_a_simulated_robot_streams_through_an_encrypted_gateway(
    policyloop: Call, spawn: Spawn, until: Callable[..., None], tmp_path: Path, mini: RobotProfile
) -> None:
    robot, trainer = made(policyloop, tmp_path / "r", "rover"), made(policyloop, tmp_path / "t", "trainer")
    policyloop("keys", "allow", "rover", robot, "--keys", tmp_path / "t")
    options = ["--profile", "rover-mini", "--journal", tmp_path / "journal", "--port", "0"]
    gateway = spawn("gateway", *options, "--host", "0.0.0.0", "--keys", tmp_path / "t")
    assert gateway.stderr is not None
    port = gateway.stderr.readline().strip().rpartition(":")[2]
    code, out, _ = policyloop(
        *("sim", "--profile", "rover-mini", "--connect", f"tcp://127.0.0.1:{port}", "--name", "rover"),
        *("--keys", tmp_path / "r", "--gateway-key", trainer, "--steps", "30"),
    )
    assert code == 0
    assert "not acknowledged" not in out
    gateway.terminate()
    gateway.wait(20)
    journal = Journal(tmp_path / "journal")
    assert {record.robot for record in journal.headers()} == {"rover-0"}
    assert journal.next >= 29
    journal.close()
