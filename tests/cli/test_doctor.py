"""`policyloop doctor` tells what is here from what is not, in one table, and exits by what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.link.keys import create_identity

Call = Callable[..., tuple[int, str, str]]
PATIENT = ("--limit", 120)
"""Seconds: other tests may be running beside this one."""


def states(out: str) -> dict[str, str]:
    return {finding["what"]: finding["state"] for finding in json.loads(out)}


def test_a_developers_machine_can_train_and_simulate_and_has_no_npu(
    policyloop: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICYLOOP_TOOLKIT", str(tmp_path / "nowhere"))
    _, out, _ = policyloop("doctor", "--json", *PATIENT)
    expected = {"Python": "fine", "training": "fine", "simulation": "fine", "conversion for the NPU": "absent"}
    assert expected.items() <= states(out).items()
    _, out, _ = policyloop("doctor", *PATIENT)
    assert "policyloop toolkit install" in out
    assert out.splitlines()[-1].endswith("wrong")


def test_a_key_that_others_can_read_exits_as_refused_for_safety(policyloop: Call, tmp_path: Path) -> None:
    create_identity(tmp_path / "keys", "rover-7")
    (tmp_path / "keys" / "identity.json").chmod(0o644)
    code, out, _ = policyloop("doctor", "--json", "--keys", tmp_path / "keys", *PATIENT)
    assert states(out)["this machine's key"] == "wrong"
    wrong = [finding for finding in json.loads(out) if finding["state"] == "wrong"]
    assert code == wrong[0]["exit_code"]
    assert "chmod 600" in json.dumps(wrong)


def test_a_damaged_journal_is_named(policyloop: Call, recorded: Path, tmp_path: Path) -> None:
    copy = tmp_path / "journal"
    copy.mkdir()
    for path in recorded.iterdir():
        data = bytearray(path.read_bytes())
        if path.suffix == ".seg":
            data[len(data) // 2] ^= 0xFF
        (copy / path.name).write_bytes(data)
    _, out, _ = policyloop("doctor", "--json", "--journal", copy, *PATIENT)
    assert states(out)["journal"] == "wrong"


def test_nothing_is_changed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "c"),
        "XDG_DATA_HOME": str(home / "d"),
    }
    command = [sys.executable, "-m", "policyloop", "doctor", *map(str, PATIENT), "--journal", "j", "--store", "s"]
    subprocess.run(command, cwd=home, env=environment, capture_output=True, timeout=240, check=False)
    assert list(home.iterdir()) == []
