"""Does it walk through a controller in C++: simulator, controller and policy in three processes, in real time.

cmake -S cpp -B build && cmake --build build
python bench/lite3_bridge.py BUNDLE build/lite3_controller [--runs 20] [--seconds 10] [--io shm|unix|tcp] [--kill]

Each run: the robot lies, stands up, is handed to the policy, and is pushed by 0.4 m/s every three seconds. --kill ends
the policy's program by SIGKILL in the middle and says how long it took until the controller damped.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from policyloop.core.clock import MonotonicClock
from policyloop.core.profile import load_profile
from policyloop.sim.lite3_hardware import HardwareReport, SimulatedHardware, walks_off

STARTS_S = 4.0
"""Of the policy's program."""
STANDS_UP_S = 3.2
"""From the start until the policy is in command."""


def free_port() -> int:
    """Return a TCP port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_once(
    policy: Path, controller: Path, seed: int, seconds: float, io: str, *, kill: bool
) -> tuple[HardwareReport, float]:
    """Return how the robot fared, and after how many ms the controller damped when the policy was killed."""
    profile = load_profile("lite3")
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shm) as temporary:
        folder = Path(temporary)
        ways = {
            "shm": (f"bridge:{folder / 'program'}", ["--program", str(folder / "program")]),
            "unix": (f"unix:{folder / 'program'}", ["--unix", str(folder / "program")]),
        }
        if io == "tcp":
            port = free_port()
            ways["tcp"] = (f"tcp:{port}", ["--tcp", str(port)])
        ours, theirs = ways[io]
        total_s = STANDS_UP_S + seconds
        robot = SimulatedHardware(
            profile,
            folder / "hardware",
            np.random.default_rng([32, seed]),
            walks_off((0.5, 0.0, 0.0)),
            MonotonicClock(),
            push_mps=0.4,
        )
        command = [sys.executable, "-m", "policyloop", "run", "--profile", "lite3", "--policy", str(policy)]
        program = subprocess.Popen(
            [*command, "--io", ours, "--arm", "--control", str(folder / "control")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while io != "tcp" and not (folder / "program").exists():
            time.sleep(0.05)
        time.sleep(STARTS_S if io == "tcp" else 0)
        drives = subprocess.Popen(
            [str(controller), "--hardware", str(folder / "hardware"), *theirs], stdout=subprocess.DEVNULL
        )
        killed: list[int] = []

        def murder() -> None:
            time.sleep(STANDS_UP_S + seconds / 2)
            program.send_signal(signal.SIGKILL)
            killed.append(time.monotonic_ns())

        killer = threading.Thread(target=murder if kill else lambda: None)
        killer.start()
        began_ns = time.monotonic_ns()
        try:
            report = robot.run(threading.Event(), total_s)
        finally:
            killer.join()
            for process in (drives, program):
                process.terminate()
                process.wait(20)
            robot.close()
    damped_ms = float("nan")
    if killed and report.modes[-1][0] == "damping":
        damped_ms = (began_ns - killed[0]) * 1e-6 + report.modes[-1][1] * 1e3
    return report, damped_ms


def main() -> None:
    """Walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("controller", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--io", choices=["shm", "unix", "tcp"], default="shm")
    parser.add_argument("--kill", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    falls, dropped, speeds, damped = 0, 0, [], []
    for seed in range(arguments.runs):
        report, damped_ms = run_once(
            arguments.policy, arguments.controller, seed, arguments.seconds, arguments.io, kill=arguments.kill
        )
        modes = [mode for mode, _ in report.modes]
        stayed = modes[-1] == "policy"
        falls += report.fell
        dropped += not stayed
        speeds.append(report.forward_mps)
        damped.append(damped_ms)
        print(
            f"run {seed}: {' > '.join(modes)}, {report.forward_mps:.3f} m/s{', FELL' if report.fell else ''}"
            + (f", damped {damped_ms:.0f} ms after the kill" if arguments.kill else ""),
            flush=True,
        )
    print(f"{arguments.runs} runs over {arguments.io}: mean {np.nanmean(speeds):.3f} m/s")
    if arguments.kill:
        print(f"damped after median {np.nanmedian(damped):.0f} ms, worst {np.nanmax(damped):.0f} ms")
    else:
        print(f"{falls} falls, {dropped} that did not end in the policy's hands")


if __name__ == "__main__":
    main()
