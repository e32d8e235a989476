"""The computer: Python, text, clock, cores, memory, limits."""

from __future__ import annotations

import ctypes
import locale
import os
import platform
import resource
import shutil
import sys
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

from policyloop.core.profile import load_profile
from policyloop.doctor.finding import Check, Finding, State
from policyloop.doctor.scope import Scope
from policyloop.robot.scheduling import big_cores
from policyloop.runtime.onnx_backend import load_onnxruntime

__all__ = ["checks"]

_CPUS = Path("/sys/devices/system/cpu")
_USB = Path("/sys/bus/usb/devices")
_INTEL, _REALSENSE = "8086", "RealSense"
_USB3_MBPS = 5000
_CLOCK_UNSYNCHRONISED = 5
"""TIME_ERROR of Linux's timex.h."""
_SELF_SCALING = ("intel_pstate", "amd-pstate-epp")
"""Drivers whose "powersave" is not slow."""
_ROOMY_BYTES, _SHARED_BYTES, _FILES = 1 << 30, 1 << 20, 1024
_SWAPPED = 0.1


def checks(scope: Scope) -> list[Check]:
    """Return the questions about this computer."""
    return [
        Check("Python", python),
        Check("profile", partial(described, scope.profile)),
        Check("networks on the CPU", onnxruntime),
        Check("text", text),
        Check("screen", screen),
        Check("clock", clock),
        Check("cores", cores),
        Check("core frequency", frequency),
        Check("threads", threads),
        Check("memory", memory),
        Check("limits", limits),
        Check("real time", real_time),
        Check("shared memory", shared_memory),
        Check("camera", camera),
    ]


def python() -> Finding:
    """Tell which Python this is."""
    return Finding(what="Python", state="fine", found=f"{platform.python_version()}, {platform.machine()}")


def described(name: str) -> Finding:
    """Tell which robot this is about; ConfigError if its profile is wrong."""
    profile = load_profile(name)
    return Finding(what="profile", state="fine", found=f"{profile.name} ({profile.digest[:12]})")


def onnxruntime(possible: Path = _CPUS / "possible") -> Finding:
    """Load onnxruntime: on some boards it crashes, and two of its builds in one environment overwrite each other."""
    what = "networks on the CPU"
    builds = sorted(
        f"{one.name} {one.version}" for one in distributions() if str(one.name).lower().startswith("onnxruntime")
    )
    if len(builds) > 1:
        return Finding(
            what=what,
            state="wrong",
            found=f"several builds in one environment: {', '.join(builds)}",
            remedy="pip uninstall all of them, then pip install onnxruntime",
            exit_code=3,
        )
    if platform.machine() == "aarch64" and not os.access(possible, os.R_OK):
        return Finding(
            what=what,
            state="doubtful",
            found=f"{possible} cannot be read: onnxruntime does not know this board's cores",
            remedy="let the container or the service see /sys",
        )
    return Finding(what=what, state="fine", found=f"onnxruntime {load_onnxruntime().__version__}")


def text() -> Finding:
    """Tell whether text is UTF-8, and whether the language that the environment asks for is installed."""
    what, remedy = "text", "export LC_ALL=C.UTF-8"
    try:
        locale.setlocale(locale.LC_ALL, "")
    except locale.Error:
        asked = os.environ.get("LC_ALL") or os.environ.get("LANG", "")
        return Finding(what=what, state="doubtful", found=f"locale {asked} is not installed", remedy=remedy)
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        return Finding(
            what=what, state="wrong", found=f"file names are {encoding}, not UTF-8", remedy=remedy, exit_code=3
        )
    return Finding(what=what, state="fine", found="UTF-8")


def screen() -> Finding:
    """Tell that nobody needs one."""
    found = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "none"
    return Finding(what="screen", state="fine", found=f"{found}; nothing here opens a window")


def clock() -> Finding:
    """Ask the kernel whether something disciplines its clock. Control never uses it; recordings are dated by it."""
    what = "clock"
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024))
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        return Finding(what=what, state="absent", found="the kernel does not say whether it is synchronised")
    if state == _CLOCK_UNSYNCHRONISED:
        return Finding(
            what=what,
            state="doubtful",
            found="not synchronised: recordings of several machines will not agree on the time",
            remedy="sudo timedatectl set-ntp true, or install chrony",
        )
    return Finding(what=what, state="fine", found="synchronised; control uses the monotonic one")


def cores(cpus: Path = _CPUS) -> Finding:
    """Tell how many cores there are, and whether some are bigger."""
    allowed = os.sched_getaffinity(0)
    big = big_cores(allowed, cpus)
    found = f"{len(allowed)}"
    if not big:
        return Finding(what="cores", state="fine", found=f"{found}, all alike")
    return Finding(what="cores", state="fine", found=f"{found}, big ones {sorted(big)}: run --big-cores keeps to them")


def frequency(cpus: Path = _CPUS, machine: str = platform.machine()) -> Finding:
    """Tell whether the cores may clock down between two ticks."""
    what = "core frequency"
    governors = {_text(path) for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    if not governors:
        return Finding(what=what, state="fine", found="nothing here scales it")
    drivers = {_text(path) for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_driver")}
    slow = governors - {"performance"} if machine == "aarch64" else governors & {"powersave"}
    if slow and not drivers & set(_SELF_SCALING):
        return Finding(
            what=what,
            state="doubtful",
            found=f"governor {', '.join(sorted(slow))}: the first milliseconds of every tick run slowly",
            remedy="sudo cpupower frequency-set --governor performance",
        )
    return Finding(what=what, state="fine", found=f"governor {', '.join(sorted(governors))}")


def threads(machine: str = platform.machine()) -> Finding:
    """Tell whether numeric libraries of a robot will take all cores from the control loop."""
    what, chosen = "threads", os.environ.get("OMP_NUM_THREADS", "")
    if chosen or machine != "aarch64":
        return Finding(what=what, state="fine", found=f"OMP_NUM_THREADS={chosen or 'not set'}")
    return Finding(
        what=what,
        state="doubtful",
        found="OMP_NUM_THREADS is not set: numpy starts a thread on every core",
        remedy="export OMP_NUM_THREADS=1 on the robot; systemd/policyloop-run.service does",
    )


def memory(meminfo: Path = Path("/proc/meminfo")) -> Finding:
    """Tell how much is left, and whether programs lie on the swap: a page that must be fetched costs a tick."""
    what = "memory"
    sizes = {}
    for line in _text(meminfo).splitlines():
        name, _, size = line.partition(":")
        sizes[name] = int(size.split()[0]) << 10
    free, swap = sizes.get("MemAvailable", 0), sizes.get("SwapTotal", 0)
    swapped = swap - sizes.get("SwapFree", 0)
    found = (
        f"{free / 2**30:.1f} of {sizes.get('MemTotal', 0) / 2**30:.1f} GB available, {swapped / 2**30:.1f} GB on swap"
    )
    if free < _ROOMY_BYTES:
        return Finding(what=what, state="doubtful", found=found, remedy="end something: the kernel will, otherwise")
    if swapped > _SWAPPED * swap:
        remedy = "sudo swapoff --all on a robot; systemd/policyloop-run.service keeps its program off the swap"
        return Finding(what=what, state="doubtful", found=found, remedy=remedy)
    return Finding(what=what, state="fine", found=found)


def limits() -> Finding:
    """Tell how many files a program may open: a journal keeps one per segment open, a gateway one per robot."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    low = files != resource.RLIM_INFINITY and files < _FILES
    return Finding(
        what="limits",
        state="doubtful" if low else "fine",
        found=f"{files} open files",
        remedy=f"ulimit -n {_FILES}, or LimitNOFILE= in the unit" if low else "",
    )


def real_time() -> Finding:
    """Tell whether `run --real-time` will be allowed."""
    highest = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    if highest or os.geteuid() == 0:
        return Finding(what="real time", state="fine", found=f"priority up to {highest or 99}")
    remedy = "only for run --real-time: LimitRTPRIO=, as in systemd/policyloop-run.service"
    return Finding(what="real time", state="absent", found="this user has no real-time priority", remedy=remedy)


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # noqa: S108  # looked at, not written
    """Tell whether a bridge to a controller in C++ can live there."""
    what, remedy = "shared memory", "docker run --shm-size 64m; without it: --io unix:PATH"
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        found = f"this user cannot write to {folder}: no --io bridge"
        return Finding(what=what, state="absent", found=found, remedy=remedy)
    free = shutil.disk_usage(folder).free
    state: State = "fine" if free >= _SHARED_BYTES else "doubtful"
    return Finding(
        what=what,
        state=state,
        found=f"{free / 2**20:.1f} MB free in {folder}",
        remedy="" if state == "fine" else remedy,
    )


def camera(devices: Path = _USB) -> Finding:
    """Tell whether a RealSense hangs on a slow port, or is sent to sleep by the kernel."""
    what = "camera"
    for device in sorted(devices.glob("*/idVendor")):
        place = device.parent
        if _text(device) != _INTEL or _REALSENSE not in _text(place / "product"):
            continue
        name, speed = _text(place / "product"), int(float(_text(place / "speed") or "0"))
        if speed < _USB3_MBPS:
            remedy = "use a USB 3 port and a cable of its own: depth and colour at 30 Hz do not fit through USB 2"
            return Finding(what=what, state="doubtful", found=f"{name} at {speed} Mbit/s", remedy=remedy)
        if _text(place / "power" / "control") == "auto":
            remedy = f"echo on | sudo tee {place}/power/control"
            return Finding(what=what, state="doubtful", found=f"{name}: the kernel may suspend it", remedy=remedy)
        return Finding(what=what, state="fine", found=f"{name} at {speed} Mbit/s")
    return Finding(what=what, state="absent", found="no RealSense on USB")


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
