"""What this machine has, what it lacks, and what to do about it. Changes nothing, needs no rights."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

from policyloop.convert.toolkit import TOOLKIT_VERSION, Toolkit, toolkit_directory
from policyloop.runtime.rknn_backend import NPU_DEVICES

__all__ = ["Finding", "examine"]

_LIBRARIES = (Path("/usr/lib/librknnrt.so"), Path("/usr/lib/aarch64-linux-gnu/librknnrt.so"))
_TOOLKIT_BYTES = 3 << 30


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `absent` is fine unless somebody wants that part; `wrong` is not."""

    what: str
    state: Literal["fine", "absent", "wrong"]
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything and return what was found."""
    checks: tuple[Callable[[], Finding], ...] = (_python, _onnxruntime, _training, _simulator, _converter, _npu)
    return [check() for check in checks]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _python() -> Finding:
    return Finding(what="Python", state="fine", found=f"{platform.python_version()}, {platform.machine()}")


def _onnxruntime() -> Finding:
    return Finding(what="networks on the CPU", state="fine", found=f"onnxruntime {_installed('onnxruntime')}")


def _training() -> Finding:
    what, remedy = "training", "pip install 'policyloop[train]'"
    missing = [name for name in ("torch", "onnx", "safetensors") if find_spec(name) is None]
    if missing:
        return Finding(what=what, state="absent", found=f"without {', '.join(missing)}", remedy=remedy)
    return Finding(what=what, state="fine", found=f"torch {_installed('torch')}")


def _simulator() -> Finding:
    what = "simulation"
    if find_spec("mujoco") is None:
        return Finding(what=what, state="absent", found="without mujoco", remedy="pip install 'policyloop[sim]'")
    camera = "embreex" if find_spec("embreex") else "mj_multiRay, 2 to 4 times slower than embreex"
    return Finding(what=what, state="fine", found=f"mujoco, camera by {camera}")


def _converter() -> Finding:
    what, toolkit = "conversion for the NPU", Toolkit()
    missing = [name for name in ("onnx", "onnxslim") if find_spec(name) is None]
    if missing:
        return Finding(
            what=what,
            state="absent",
            found=f"without {', '.join(missing)}",
            remedy="pip install 'policyloop[convert]'",
        )
    problem = toolkit.missing()
    if not problem:
        return Finding(what=what, state="fine", found=f"rknn-toolkit2 {TOOLKIT_VERSION} in {toolkit.directory}")
    remedy = "policyloop toolkit install"
    if sys.version_info[:2] > (3, 12):
        remedy += " --python python3.12"
    place = next(parent for parent in toolkit_directory().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < _TOOLKIT_BYTES:
        remedy += f"; it needs 3 GB, {place} has {free / 2**30:.1f}"
    state: Literal["absent", "wrong"] = "absent" if "not installed" in problem else "wrong"
    return Finding(what=what, state=state, found=problem, remedy=remedy)


def _npu() -> Finding:
    what = "NPU"
    device = next((str(path) for path in NPU_DEVICES if path.exists()), "")
    if not device:
        return Finding(what=what, state="absent", found="none: policies run on the CPU")
    library = next((str(path) for path in _LIBRARIES if path.exists()), "")
    if not library:
        return Finding(
            what=what, state="wrong", found=f"{device}, but no librknnrt.so", remedy="install the board's runtime"
        )
    if find_spec("rknnlite") is None:
        return Finding(
            what=what, state="wrong", found=f"{device}, without RKNNLite", remedy="pip install rknn-toolkit-lite2"
        )
    return Finding(what=what, state="fine", found=f"{device}, {library}, RKNNLite {_installed('rknn-toolkit-lite2')}")
