"""What the documentation prints runs as printed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from policyloop.convert.toolkit import Toolkit

DOCUMENT = Path(__file__).parents[2] / "docs" / "lite3.md"


def blocks(text: str) -> list[list[str]]:
    """Return the commands of each block of shell commands."""
    return [block.strip().splitlines() for block in re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]


@pytest.fixture
def shell(tmp_path: Path, toolkit: Toolkit) -> Callable[[list[str], Path], subprocess.CompletedProcess[str]]:
    """Return `shell(commands, folder)`: a shell that finds this policyloop and no network."""
    command = tmp_path / "bin" / "policyloop"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m policyloop "$@"\n')
    command.chmod(0o755)
    nowhere = {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https", "all")}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SOURCE_DATE")},
        **nowhere,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "POLICYLOOP_TOOLKIT": str(toolkit.directory),
        "OMP_NUM_THREADS": "1",
    }

    def run(commands: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def test_the_example_says_the_same_five_commands_as_the_documentation() -> None:
    readme = (resources.files("policyloop.example") / "README.md").read_text()
    five = blocks(DOCUMENT.read_text())[0]
    assert blocks(readme) == [five]
    assert len(five) == 5


def test_the_walkthrough_and_the_archive_run_as_printed(
    shell: Callable[[list[str], Path], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    found = blocks(DOCUMENT.read_text())
    walkthrough = found[0]
    archive = next(block for block in found if "bundle pack" in "".join(block))
    ended = shell(walkthrough, tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder = tmp_path / "walkthrough"
    assert len(list((folder / "samples").iterdir())) == 100
    with np.load(folder / "samples" / "calibration_0099.npz") as stored:
        assert (stored.files, stored["proprio"].shape) == (["proprio"], (45,))
    ended = shell(archive, folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    version = folder / "models" / "current"
    names = {"policy.onnx", "policy.rknn", "golden.npz", "manifest.json", "manifest.sig", "model_version.json"}
    assert {path.name for path in version.iterdir()} == {*names, "MODEL_CARD.md"}
    about = json.loads((version / "model_version.json").read_bytes())
    for key, name in (("onnx_hash", "policy.onnx"), ("rknn_hash", "policy.rknn")):
        assert about[key] == hashlib.sha256((version / name).read_bytes()).hexdigest()
    assert {"model", "version", "quant_dataset", "export_time", "target"} < set(about)
    with np.load(folder / "obs_stats.npz") as statistics:
        assert about["obs_stats"]["mean"] == statistics["mean"].tolist()
        assert about["obs_stats"]["std"] == statistics["std"].tolist()
