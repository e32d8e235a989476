"""What is released: one version, a wheel that is complete, and an installation of it without torch that drives."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import struct
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import policyloop
from policyloop.bundle.store import Store
from policyloop.convert.importer import import_policy
from policyloop.core.profile import RobotProfile

ROOT = Path(__file__).parents[2]
NOT_FOR_ROBOTS = ("torch", "onnx", "safetensors", "mujoco", "rosbags")


def test_there_is_one_version() -> None:
    base = re.match(r"\d+\.\d+\.\d+", policyloop.__version__)
    assert base is not None
    package = ROOT / "ros" / "policyloop_ros"
    assert f"<version>{base[0]}</version>" in (package / "package.xml").read_text()
    assert f'version="{base[0]}"' in (package / "setup.py").read_text()
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with sdist and wheel, the wheel made from the sdist."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("NOT TESTED: pip install build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return out


@pytest.mark.long
def test_the_wheel_holds_everything_that_the_package_reads(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = ROOT / "src" / "policyloop"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {f"policyloop/{path.relative_to(package)}" for path in files} <= set(names)
    beside = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    assert beside == {
        *(f"include/{path.name}" for path in (ROOT / "cpp").glob("*.hpp")),
        *(f"share/policyloop/systemd/{path.name}" for path in (ROOT / "systemd").iterdir()),
    }
    assert not [name for name in names if name.startswith(("tests", "bench", "docs"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "policyloop/py.typed" in names


@pytest.mark.long
def test_the_sdist_holds_what_is_needed_to_test_it(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        folders = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    assert {"src", "tests", "docs", "cpp", "ros", "systemd", "bench", "scripts", "pyproject.toml", "LICENSE"} <= folders


@pytest.fixture(scope="module")
def robot(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` folder of a clean environment with nothing but the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("robot")
    venv.create(folder, with_pip=True)
    (wheel,) = built.glob("*.whl")
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    constrained = ["--constraint", str(ROOT / "constraints.txt"), str(wheel)]
    result = subprocess.run([*command, *constrained], capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / "bin"


def run(robot: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(robot / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.run(command, capture_output=True, text=True, cwd=robot, env=environment, timeout=120, check=False)


@pytest.mark.long
def test_a_robot_gets_the_command_line_and_none_of_the_trainers_packages(robot: Path) -> None:
    assert run(robot, "policyloop", "--version").stdout == f"{policyloop.__version__}\n"
    said = run(robot, "policyloop", "--help")
    assert (said.returncode, said.stderr) == (0, "")
    code = f"import importlib.util as u; print([n for n in {NOT_FOR_ROBOTS!r} if u.find_spec(n)])"
    assert run(robot, "python", "-c", code).stdout == "[]\n"
    headers = sorted(path.name for path in (robot.parent / "include").glob("*.hpp"))
    assert headers == sorted(path.name for path in (ROOT / "cpp").glob("*.hpp"))
    doctor = run(robot, "policyloop", "doctor", "--limit", 100)
    assert "pip install '.[train]'" in doctor.stdout


@pytest.mark.long
def test_a_robot_without_a_simulator_drives_an_onnx_policy_for_its_controller(
    robot: Path, make_onnx: Callable[..., bytes], walker: RobotProfile, walker_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "policy.onnx").write_bytes(make_onnx())
    bundle = Store(tmp_path / "store").add(import_policy(tmp_path / "policy.onnx", walker))
    where = tmp_path / "sock"
    words = ["run", "--profile", walker_file, "--policy", bundle, "--io", f"unix:{where}", "--seconds", 6, "--arm"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with (tmp_path / "said").open("w") as said:
        program = subprocess.Popen(
            [str(robot / "policyloop"), *map(str, words)], stdout=said, stderr=said, env=environment
        )
        try:
            driven = _ask_until_driven(where, len(walker.sensed_indices), len(walker.action))
        finally:
            code = program.wait(60)
    assert code == 0, (tmp_path / "said").read_text()
    assert driven, (tmp_path / "said").read_text()


def _ask_until_driven(where: Path, sensed: int, joints: int, patience_s: float = 60.0) -> bool:
    """Say again and again how the robot stands; return whether it was told what to do."""
    deadline_s = time.monotonic() + patience_s
    while not where.exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    state = [0.1] * sensed
    with socket.socket(socket.AF_UNIX) as controller:
        controller.settimeout(5.0)
        controller.connect(str(where))
        while time.monotonic() < deadline_s:
            try:
                controller.sendall(struct.pack(f"<I{sensed}f", sensed, *state))
                (count,) = struct.unpack("<I", controller.recv(4, socket.MSG_WAITALL))
            except (OSError, struct.error):
                return False  # the program has ended
            if count == joints:
                controller.recv(4 * joints, socket.MSG_WAITALL)
                return True
            time.sleep(0.012)
    return False
