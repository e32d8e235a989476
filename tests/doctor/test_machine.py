"""Each trap of a computer, made for real where a test may, else in a copy of the kernel's files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from policyloop.doctor import machine
from policyloop.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_machine_that_can_run_these_tests_has_nothing_wrong() -> None:
    for check in machine.checks(machine.Scope()):
        found = check.ask()
        assert not isinstance(found, list)
        assert found.what == check.what
        assert found.state != "wrong", found


def test_two_builds_of_onnxruntime_overwrite_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.20.0\n"
    write(tmp_path / "onnxruntime_gpu-1.20.0.dist-info" / "METADATA", about)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = machine.onnxruntime()
    assert (found.state, found.exit_code) == ("wrong", 3)
    assert "onnxruntime-gpu 1.20.0" in found.found


def test_a_board_whose_cores_cannot_be_counted_is_doubtful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert machine.onnxruntime(tmp_path / "possible").state == "doubtful"


def test_a_locale_that_is_not_installed_is_doubtful() -> None:
    code = "from policyloop.doctor.machine import text; found = text(); print(found.state, found.found)"
    environment = {**os.environ, "LC_ALL": "xx_XX.UTF-8"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "doubtful locale xx_XX.UTF-8 is not installed\n"


@pytest.mark.parametrize(
    ("governor", "driver", "kind", "state"),
    [
        ("performance", "cpufreq-dt", "aarch64", "fine"),
        ("schedutil", "cpufreq-dt", "aarch64", "doubtful"),
        ("schedutil", "acpi-cpufreq", "x86_64", "fine"),
        ("powersave", "acpi-cpufreq", "x86_64", "doubtful"),
        ("powersave", "intel_pstate", "x86_64", "fine"),
    ],
)
def test_a_governor_that_slows_ticks_is_doubtful(
    tmp_path: Path, governor: str, driver: str, kind: str, state: str
) -> None:
    write(tmp_path / "cpu0" / "cpufreq" / "scaling_governor", f"{governor}\n")
    write(tmp_path / "cpu0" / "cpufreq" / "scaling_driver", f"{driver}\n")
    found = machine.frequency(tmp_path, kind)
    assert found.state == state
    assert governor in found.found


def test_threads_on_every_core_of_a_robot_are_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert machine.threads("aarch64").state == "doubtful"
    assert machine.threads("x86_64").state == "fine"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert machine.threads("aarch64").state == "fine"


@pytest.mark.parametrize(
    ("available", "swap_free", "state"),
    [(4_000_000, 1_000_000, "fine"), (500_000, 1_000_000, "doubtful"), (4_000_000, 800_000, "doubtful")],
)
def test_little_memory_and_a_used_swap_are_doubtful(tmp_path: Path, available: int, swap_free: int, state: str) -> None:
    lines = f"MemTotal: 8000000 kB\nMemAvailable: {available} kB\nSwapTotal: 1000000 kB\nSwapFree: {swap_free} kB\n"
    assert machine.memory(write(tmp_path / "meminfo", lines)).state == state


def test_few_open_files_are_doubtful() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        found = machine.limits()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found.state, found.found) == ("doubtful", "512 open files")


def test_without_shared_memory_there_is_no_such_bridge(tmp_path: Path) -> None:
    assert machine.shared_memory(tmp_path / "none").state == "absent"
    assert machine.shared_memory(tmp_path).state == "fine"


@pytest.mark.parametrize(
    ("speed", "control", "state", "said"),
    [("480", "on", "doubtful", "480 Mbit/s"), ("5000", "auto", "doubtful", "suspend"), ("5000", "on", "fine", "5000")],
)
def test_a_camera_on_a_slow_port_or_sent_to_sleep_is_doubtful(
    tmp_path: Path, speed: str, control: str, state: str, said: str
) -> None:
    write(tmp_path / "1-1" / "idVendor", "046d\n")
    device = tmp_path / "2-1"
    for name, text in {
        "idVendor": "8086",
        "product": "Intel(R) RealSense(TM) Depth Camera 435i",
        "speed": speed,
    }.items():
        write(device / name, f"{text}\n")
    write(device / "power" / "control", f"{control}\n")
    found = machine.camera(tmp_path)
    assert found.state == state
    assert said in found.found


def test_big_cores_are_named(tmp_path: Path) -> None:
    for core in os.sched_getaffinity(0):
        write(tmp_path / f"cpu{core}" / "cpu_capacity", "530\n" if core == min(os.sched_getaffinity(0)) else "1024\n")
    alike = len(os.sched_getaffinity(0)) == 1
    assert ("all alike" if alike else "big ones") in machine.cores(tmp_path).found


def test_the_profile_is_named_and_an_unknown_one_is_refused() -> None:
    assert machine.described("rover").found.startswith("rover (")
    with pytest.raises(ConfigError, match="no profile 'submarine'"):
        machine.described("submarine")
