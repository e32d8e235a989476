"""`policyloop run`: the robot's program, in real time."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]


def test_a_policy_drives_for_the_time_that_was_asked_for(cloned: Path, policyloop: Call) -> None:
    arguments = ("run", "--profile", "rover-mini", "--policy", cloned / "store", "--seconds", 0.5, "--json")
    code, out, err = policyloop(*arguments)
    assert code == 0, err
    report = json.loads(out)
    assert report["ticks"] == 5
    assert 0 < report["work_p50_ms"] <= report["work_max_ms"]


def test_people_get_a_sentence(cloned: Path, policyloop: Call) -> None:
    checkpoint = cloned / "checkpoints" / "000000"
    code, out, err = policyloop("run", "--profile", "rover-mini", "--policy", checkpoint, "--seconds", 0.3)
    assert code == 0, err
    assert out.startswith("3 ticks at 10 Hz")
    assert "0 policy swaps, 0 errors" in out


def test_a_policy_of_another_profile_exits_with_7(cloned: Path, policyloop: Call) -> None:
    code, _, err = policyloop("run", "--profile", "rover", "--policy", cloned / "store", "--seconds", 0.1)
    assert code == 7
    assert "this robot is 'rover'" in err


def test_a_missing_policy_exits_with_1(policyloop: Call, tmp_path: Path) -> None:
    code, _, err = policyloop("run", "--policy", tmp_path / "nowhere")
    assert code == 1
    assert "no policy at" in err


def test_an_unknown_backend_exits_with_3(cloned: Path, policyloop: Call) -> None:
    arguments = ("run", "--profile", "rover-mini", "--policy", cloned / "store", "--backend", "abacus")
    code, _, err = policyloop(*arguments)
    assert code == 3
    assert "no backend 'abacus'" in err


def test_a_damaged_policy_exits_with_5(cloned: Path, policyloop: Call, tmp_path: Path) -> None:
    bundle = shutil.copytree(cloned / "checkpoints" / "000000" / "bundle", tmp_path / "bundle")
    (bundle / "policy.onnx").write_bytes(b"")
    code, _, err = policyloop("run", "--profile", "rover-mini", "--policy", bundle)
    assert code == 5
    assert "policy.onnx" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_ends_in_order_when_it_is_asked_to(
    number: int,
    cloned: Path,
    spawn: Callable[..., subprocess.Popen[str]],
    until: Callable[..., None],
    handles_sigterm: Callable[[int], bool],
) -> None:
    child = spawn("run", "--profile", "rover-mini", "--policy", cloned / "store")
    until(lambda: handles_sigterm(child.pid))
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "ticks at 10 Hz" in out
