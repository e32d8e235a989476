"""`policyloop export`: a checkpoint's policy as a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.runtime.onnx_backend import read_metadata

Call = Callable[..., tuple[int, str, str]]


def test_export_writes_the_file_and_says_how_well_it_agrees(
    cloned: Path, policyloop: Call, tmp_path: Path, mini: RobotProfile
) -> None:
    output = tmp_path / "policy.onnx"
    code, out, err = policyloop("export", cloned / "checkpoints" / "000000", "--output", output)
    assert code == 0, err
    assert "policy 1, profile rover-mini; torch and onnxruntime differ by at most" in out
    onnx.checker.check_model(onnx.load(output), full_check=True)
    metadata = read_metadata(output.read_bytes())
    assert metadata["profile_digest"] == mini.digest
    assert metadata["version"] == "1"


def test_the_file_is_the_checkpoints_own_policy(cloned: Path, policyloop: Call, tmp_path: Path) -> None:
    output, checkpoint = tmp_path / "policy.onnx", cloned / "checkpoints" / "000000"
    policyloop("export", checkpoint, "--output", output)
    assert output.read_bytes() == (checkpoint / "bundle" / "policy.onnx").read_bytes()


def test_the_file_alone_can_be_driven_with(cloned: Path, policyloop: Call, tmp_path: Path) -> None:
    output = tmp_path / "policy.onnx"
    policyloop("export", cloned / "checkpoints" / "000000", "--output", output)
    reports = []
    for policy in (output, cloned / "store"):
        code, out, err = policyloop("evaluate", policy, "--episodes", 1, "--json")
        assert code == 0, err
        reports.append(json.loads(out))
    assert reports[0]["returns"] == reports[1]["returns"]


def test_a_missing_checkpoint_exits_with_1(policyloop: Call, tmp_path: Path) -> None:
    code, _, err = policyloop("export", tmp_path / "000001", "--output", tmp_path / "policy.onnx")
    assert code == 1
    assert "no checkpoint at" in err
    assert "checkpoints/000010" in err


def test_a_damaged_checkpoint_exits_with_5(cloned: Path, policyloop: Call, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(cloned / "checkpoints" / "000000", tmp_path / "000000")
    tensors = checkpoint / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    code, _, err = policyloop("export", checkpoint, "--output", tmp_path / "policy.onnx")
    assert code == 5
    assert "damaged" in err
    assert not (tmp_path / "policy.onnx").exists()


@pytest.mark.parametrize("output", ["missing/policy.onnx", "."])
def test_an_output_that_cannot_be_written_exits_with_1(
    output: str, cloned: Path, policyloop: Call, tmp_path: Path
) -> None:
    code, _, err = policyloop("export", cloned / "checkpoints" / "000000", "--output", tmp_path / output)
    assert code == 1
    assert "cannot write" in err
    assert "Traceback" not in err
