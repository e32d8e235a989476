"""The way to the NPU: the converter on a trainer; driver, device, runtime and RKNNLite on a board."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from policyloop.convert.toolkit import TOOLKIT_VERSION, Toolkit, toolkit_directory
from policyloop.doctor.finding import Check, Finding, State
from policyloop.doctor.scope import Scope
from policyloop.doctor.training import installed
from policyloop.errors import install_extra
from policyloop.runtime.rknn_backend import NPU_DEVICES, board_npu

__all__ = ["LIBRARIES", "checks", "runtime_version"]

LIBRARIES = (Path("/usr/lib/librknnrt.so"), Path("/usr/lib/aarch64-linux-gnu/librknnrt.so"))
_DRIVER = Path("/sys/module/rknpu/version")
_FREQUENCY = Path("/sys/class/devfreq")
_OLDEST_DRIVER = (0, 8, 8)
"""librknnrt asks for it in its own log."""
_TOOLKIT_BYTES = 3 << 30


def checks(scope: Scope) -> list[Check]:
    """Return the questions about conversion and the NPU."""
    return [
        Check("conversion for the NPU", converter),
        Check("NPU", device),
        Check("NPU driver", driver),
        Check("NPU runtime", runtime),
        Check("NPU frequency", frequency),
    ]


def converter() -> Finding:
    """Tell whether networks can be converted here."""
    what, toolkit = "conversion for the NPU", Toolkit()
    missing = [name for name in ("onnx", "onnxslim") if find_spec(name) is None]
    if missing:
        found = f"without {', '.join(missing)}"
        return Finding(what=what, state="absent", found=found, remedy=install_extra("convert"))
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
    state: State = "absent" if "not installed" in problem else "wrong"
    return Finding(what=what, state=state, found=problem, remedy=remedy, exit_code=3 if state == "wrong" else 0)


def device(devices: tuple[Path, ...] = NPU_DEVICES) -> Finding:
    """Tell whether the kernel shows an NPU that this user may open."""
    what = "NPU"
    found = next((path for path in devices if path.exists()), None)
    if found is None:
        if board := board_npu():
            remedy = "boot the board vendor's kernel: the mainline one has another driver"
            return Finding(
                what=what, state="wrong", found=f"an {board} without rknpu's device", remedy=remedy, exit_code=3
            )
        return Finding(what=what, state="absent", found="none: policies run on the CPU")
    if not os.access(found, os.R_OK | os.W_OK):
        remedy = 'sudo usermod --append --groups render,video "$USER", then log in again'
        return Finding(what=what, state="wrong", found=f"this user may not open {found}", remedy=remedy, exit_code=3)
    return Finding(what=what, state="fine", found=f"{board_npu() or 'unknown chip'}, {found}")


def driver(path: Path = _DRIVER) -> Finding:
    """Tell the version of the kernel's driver."""
    what = "NPU driver"
    try:
        version = path.read_text().strip().removeprefix("v")
    except OSError:
        return Finding(what=what, state="absent", found="the kernel does not say")
    if _numbers(version) < _OLDEST_DRIVER:
        found = f"{version}; the runtime wants {'.'.join(map(str, _OLDEST_DRIVER))} or newer"
        return Finding(what=what, state="wrong", found=found, remedy="upgrade the board's kernel", exit_code=7)
    return Finding(what=what, state="fine", found=version)


def runtime(
    devices: tuple[Path, ...] = NPU_DEVICES, libraries: tuple[Path, ...] = LIBRARIES, lite: str | None = None
) -> Finding:
    """Compare toolkit, librknnrt and RKNNLite: a runtime older than the converter refuses its networks."""
    what = "NPU runtime"
    if not any(path.exists() for path in devices):
        return Finding(what=what, state="absent", found="no NPU, none needed")
    found = [path for path in libraries if path.exists()]
    if not found:
        remedy = f"copy librknnrt.so {TOOLKIT_VERSION} from the vendor's SDK to {libraries[0]}"
        return Finding(what=what, state="wrong", found="no librknnrt.so", remedy=remedy, exit_code=3)
    lite = installed("rknn-toolkit-lite2") if lite is None else lite
    if not lite:
        remedy = f"pip install rknn-toolkit-lite2=={TOOLKIT_VERSION}"
        return Finding(what=what, state="wrong", found=f"{found[0]}, without RKNNLite", remedy=remedy, exit_code=3)
    versions = {str(path): runtime_version(path) for path in found}
    about = ", ".join([*(f"{path} {version or '?'}" for path, version in versions.items()), f"RKNNLite {lite}"])
    if len(set(versions.values())) > 1:
        remedy = "delete the one that is not wanted: which of them is loaded depends on the linker"
        return Finding(what=what, state="wrong", found=about, remedy=remedy, exit_code=7)
    same = {TOOLKIT_VERSION, lite, *(version for version in versions.values() if version)}
    if len(same) > 1:
        remedy = f"make all of them {TOOLKIT_VERSION}, the version that converts"
        return Finding(what=what, state="wrong", found=about, remedy=remedy, exit_code=7)
    return Finding(what=what, state="fine", found=about)


def runtime_version(library: Path) -> str:
    """Return the version that a librknnrt.so has written into itself; empty if it cannot be found."""
    try:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = re.search(rb"librknnrt version: (\d+\.\d+\.\d+)", data)
            return found[1].decode() if found else ""
    except (OSError, ValueError):
        return ""


def frequency(folder: Path = _FREQUENCY) -> Finding:
    """Tell whether the NPU may clock down between two ticks."""
    what = "NPU frequency"
    for path in sorted(folder.glob("*npu*/governor")):
        governor = path.read_text().strip()
        if governor != "performance":
            remedy = f"echo performance | sudo tee {path}"
            return Finding(what=what, state="doubtful", found=f"governor {governor}: ticks take longer", remedy=remedy)
        return Finding(what=what, state="fine", found=f"governor {governor}")
    return Finding(what=what, state="absent", found="no NPU that is scaled")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
