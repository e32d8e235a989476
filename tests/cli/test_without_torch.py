"""A robot installs the base package: everything that it runs must do without torch and its kin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BLOCKED = "import sys\nfor name in ('torch', 'onnx', 'safetensors', 'tensorboard'): sys.modules[name] = None\n"

IMPORT_ALL = """
import importlib, pkgutil
import policyloop
names = ["policyloop." + name for name in ("errors", "config", "evaluate", "drives", "plan", "cli")]
for package in ("core", "wire", "link", "bundle", "runtime", "safety", "robot", "sim", "doctor", "view"):
    folder = importlib.import_module("policyloop." + package)
    found = [module.name for module in pkgutil.iter_modules(folder.__path__, folder.__name__ + ".")]
    assert found, package
    names += found
for name in names:
    importlib.import_module(name)
print(len(names))
"""

COMMAND = """
sys.argv = ["policyloop", *sys.argv[1:]]
from policyloop.cli import main
main()
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_every_part_of_the_robot_imports_without_torch() -> None:
    result = run(IMPORT_ALL)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 35


def test_a_policy_drives_and_is_evaluated_without_torch(cloned: Path) -> None:
    result = run(COMMAND, "evaluate", cloned / "store", "--episodes", 1, "--json")
    assert result.returncode == 0, result.stderr
    assert '"episodes": 1' in result.stdout


def test_a_robot_streams_without_torch(tmp_path: Path) -> None:
    result = run(COMMAND, "sim", "--profile", "rover-mini", "--steps", 5, "--spool", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("5 steps")


def test_a_command_that_needs_torch_says_what_to_install(tmp_path: Path) -> None:
    result = run(COMMAND, "example", "lite3", "--output", tmp_path / "example")
    assert result.returncode == 3
    assert "this command needs torch, which is not installed" in result.stderr
    assert "pip install '.[train]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "example").exists()


def test_the_blocking_itself_works() -> None:
    result = run("import policyloop.learn.networks")
    assert result.returncode != 0
    assert "torch" in result.stderr


def test_a_plan_is_made_without_torch() -> None:
    result = run(COMMAND, "plan")
    assert result.returncode == 0, result.stderr
    assert "from a table: docs/planning.md" in result.stdout
