"""What training and simulation need: torch built for the GPU that is there, and an allocator that can be tuned."""

from __future__ import annotations

import ctypes
import os
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from policyloop.doctor.finding import Check, Finding
from policyloop.doctor.scope import Scope
from policyloop.errors import install_extra

__all__ = ["Build", "checks", "installed"]

_NVIDIA, _AMD = Path("/proc/driver/nvidia/version"), Path("/dev/kfd")
_INDEX = {"NVIDIA": "CUDA", "AMD": "ROCm"}
_OLDEST_TORCH = (2, 10)
"""Before it, loading weights could run code (CVE-2026-24747)."""


class Build(NamedTuple):
    """A build of torch: what its version is, and what it computes on: CPU, CUDA 12.8, ROCm 6.3."""

    version: str
    kind: str


def checks(scope: Scope) -> list[Check]:
    """Return the questions about training, simulation and data."""
    return [
        Check("training", training),
        Check("GPU", gpu),
        Check("allocator", allocator),
        Check("simulation", simulation),
        Check("datasets", datasets),
    ]


def installed(package: str) -> str:
    """Return the version of a distribution, or an empty string."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def torch_build(folder: Path | None = None) -> Build | None:
    """Read what torch says of itself, without importing it: that takes seconds, and hangs with some drivers."""
    if folder is None:
        found = find_spec("torch")
        if found is None or found.origin is None:
            return None
        folder = Path(found.origin).parent
    said = (folder / "version.py").read_text()
    number = re.search(r"^__version__ *= *'([^']+)'", said, re.MULTILINE)
    kind = "CPU"
    for name, label in (("cuda", "CUDA"), ("hip", "ROCm")):
        if built := re.search(rf"^{name}\b[^=]*= *'([^']+)'", said, re.MULTILINE):
            kind = f"{label} {built[1]}"
    return Build(number[1] if number else "", kind)


def training(build: Build | None = None) -> Finding:
    """Tell whether this machine can train."""
    what, remedy = "training", install_extra("train")
    missing = [name for name in ("torch", "onnx", "safetensors") if find_spec(name) is None]
    if missing:
        return Finding(what=what, state="absent", found=f"without {', '.join(missing)}", remedy=remedy)
    build = build or torch_build()
    assert build is not None
    numbers = tuple(map(int, re.findall(r"\d+", build.version)[:2]))
    if numbers < _OLDEST_TORCH:
        return Finding(
            what=what,
            state="wrong",
            found=f"torch {build.version} is too old",
            remedy="pip install 'torch>=2.10'",
            exit_code=3,
        )
    return Finding(what=what, state="fine", found=f"torch {build.version}, built for {build.kind}")


def gpu(nvidia: Path = _NVIDIA, amd: Path = _AMD, build: Build | None = None) -> Finding:
    """Compare the GPU that the kernel shows with the build of torch, and then compute something on it."""
    what = "GPU"
    maker = "NVIDIA" if nvidia.exists() else "AMD" if amd.exists() else ""
    build = build or torch_build()
    if not maker:
        needless = (
            f"; torch is built for {build.kind}, the CPU build is smaller" if build and build.kind != "CPU" else ""
        )
        return Finding(what=what, state="absent", found=f"none that the kernel shows: training is on the CPU{needless}")
    if build is None:
        return Finding(what=what, state="absent", found=f"{maker}; torch is not installed")
    wanted = _INDEX[maker]
    if not build.kind.startswith(wanted):
        return Finding(
            what=what,
            state="wrong",
            found=f"{maker}, but torch {build.version} is built for {build.kind}",
            remedy=f"install torch's {wanted} build: pytorch.org/get-started names its package index",
            exit_code=3,
        )
    if maker == "AMD" and not os.access(amd, os.R_OK | os.W_OK):
        return Finding(
            what=what,
            state="wrong",
            found=f"this user may not open {amd}",
            remedy='sudo usermod --append --groups render,video "$USER", then log in again',
            exit_code=3,
        )
    hidden = [name for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES") if os.environ.get(name) in ("", "-1")]
    if hidden:
        return Finding(
            what=what, state="doubtful", found=f"{maker}, hidden by {hidden[0]}", remedy=f"unset {hidden[0]}"
        )
    from policyloop.learn.device import try_gpu

    return Finding(what=what, state="fine", found=f"{try_gpu()}, {build.kind}")


def allocator() -> Finding:
    """Tell whether the learner can keep freed memory: page faults cost a third of a convolution on a CPU."""
    what, preloaded = "allocator", os.environ.get("LD_PRELOAD", "")
    if preloaded:
        found = f"LD_PRELOAD={preloaded}: the learner's settings for glibc may not reach it"
        return Finding(what=what, state="doubtful", found=found, remedy="unset LD_PRELOAD, or measure with it")
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        return Finding(what=what, state="doubtful", found="not glibc's: updates on the CPU are slower")
    return Finding(what=what, state="fine", found="glibc's; the learner tunes it")


def simulation() -> Finding:
    """Tell whether robots can be simulated."""
    what = "simulation"
    if find_spec("mujoco") is None:
        return Finding(what=what, state="absent", found="without mujoco", remedy=install_extra("sim"))
    rays = "embreex" if find_spec("embreex") else "mj_multiRay, 2 to 4 times slower than embreex"
    return Finding(what=what, state="fine", found=f"mujoco, camera by {rays}")


def datasets() -> Finding:
    """Tell whether recordings can be exported and imported."""
    what = "datasets"
    missing = [name for name in ("mcap", "rosbags", "pyarrow") if find_spec(name) is None]
    if missing:
        found = f"without {', '.join(missing)}: no MCAP, ROS 2 bags or LeRobotDataset"
        return Finding(what=what, state="absent", found=found, remedy=install_extra("data"))
    return Finding(what=what, state="fine", found="MCAP, ROS 2 bags, LeRobotDataset")
