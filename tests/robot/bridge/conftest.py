from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from policyloop.robot.bridge.header import Header
from policyloop.robot.bridge.shared_file import SharedFile

CPP = Path(__file__).parents[3] / "cpp"
STATES, TARGETS = 33, 12


def run(*words: object, timeout_s: float = 240) -> str:
    """Run a program that must succeed; returns what it printed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return `built(sanitizer="")`: the folder of the C++ programs; the test is skipped, loudly, without a compiler."""
    missing = [name for name in ("cmake", "c++") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"NOT TESTED, there is no {' and no '.join(missing)}: apt install g++ cmake")
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if root.name.startswith("popen-gw") else root

    def build(sanitizer: str = "") -> Path:
        folder = shared / f"cpp-{sanitizer.replace(',', '-') or 'release'}"
        with (shared / "cpp.lock").open("w") as lock:  # of all test processes
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "ready").exists():
                run("cmake", "-S", CPP, "-B", folder, f"-DPOLICYLOOP_SANITIZE={sanitizer}")
                run("cmake", "--build", folder, "-j2")
                (folder / "ready").touch()
        return folder

    return build


@pytest.fixture(scope="session")
def programs(built: Callable[[str], Path]) -> Path:
    """The folder of the C++ programs."""
    return built("")


@pytest.fixture
def owned(tmp_path: Path) -> Iterator[SharedFile]:
    """A robot's file, as the robot's program makes it, at `tmp_path / "robot"`."""
    gains = {"kp": (30.0,) * TARGETS, "kd": (1.0,) * TARGETS, "pose": (0.0, -0.65, 1.3) * 4}
    header = Header(owner_floats=TARGETS, guest_floats=STATES, digest=bytes(range(32)), **gains)
    file = SharedFile.create(tmp_path / "robot", header)
    yield file
    file.close()


@pytest.fixture
def places() -> np.ndarray:
    """Where 33 states belong in 45 numbers whose last 12 are the last action."""
    return np.arange(STATES)
