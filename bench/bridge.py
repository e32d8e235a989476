"""The bridge to a controller in C++: torn reads, latency, and how soon it damps when the robot's program dies.

python bench/bridge.py [--reads 10000000]
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from machine import machine

from policyloop.core.step import Command, TimedCommand
from policyloop.robot.bridge.shared_memory import SharedMemoryBridge

CPP = Path(__file__).parents[1] / "cpp"
MS = 1_000_000
TICK_S = 0.012
LAYERS = [
    np.full((rows, columns), 0.01, np.float32) for columns, rows in ((45, 512), (512, 256), (256, 128), (128, 12))
]


def bridge(path: Path) -> SharedMemoryBridge:
    """Return the program's side for a robot of 33 states and 12 targets."""
    gains = {"kp": (30.0,) * 12, "kd": (1.0,) * 12, "pose": (0.0, -0.65, 1.3) * 4}
    return SharedMemoryBridge(path, states=np.arange(33), proprio_size=45, targets=12, digest="00" * 32, **gains)


@contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Start a program; it is killed in the end."""
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def write_for_ever(path: Path, valid_ms: int) -> None:
    """Be the robot's program until somebody kills it."""
    side, sequence = bridge(path), 0
    print("ready", flush=True)
    while True:
        sequence += 1
        side.write(TimedCommand(Command((0.1,) * 12), sequence, time.monotonic_ns() + valid_ms * MS))
        time.sleep(TICK_S)


def torn(probe: Path, folder: Path, reads: int) -> None:
    """Print how many of many reads in C++ were torn."""
    reports = {"C++": subprocess.run([probe, "race", str(reads)], stdout=subprocess.PIPE, text=True).stdout}
    side = bridge(folder / "torn")
    values, n = [(float(value),) * 12 for value in range(4096)], 0
    with started(probe, "read", folder / "torn", reads) as reader:
        while reader.poll() is None:
            for _ in range(100):
                n += 1
                side.write(TimedCommand(Command(values[n % 4096]), n, n))
        reports["Python"] = reader.stdout.read()
    side.close()
    for writer, text in reports.items():
        report = json.loads(text)
        print(
            f"busy {writer:6} writer: {report['reads']:,} reads of {report['records']:,} different records in "
            f"{report['ns'] / 1e9:.1f} s: {report['torn']} torn, {report['backwards']} older than the one before; "
            f"{report['gave_up']:,} times it was being written in all four tries"
        )


def policy() -> np.ndarray:
    """Do what a tick does before it writes: a network of 45-512-256-128-12."""
    values = np.ones(45, np.float32)
    for layer in LAYERS:
        values = np.tanh(layer @ values)
    return values


def latency(probe: Path, folder: Path, commands: int, tick_s: float) -> None:
    """Print how long a command takes from the call of `write` to the reader in C++, which waits busily."""
    side = bridge(folder / "latency")
    with started(probe, "latency", folder / "latency", 50) as reader:
        reader.stdout.readline()
        for sequence in range(1, commands + 1):
            time.sleep(tick_s)
            values = tuple(policy().tolist())
            side.write(TimedCommand(Command(values), sequence, time.monotonic_ns() + 50 * MS))
        reader.kill()
        ages_us = np.array(reader.stdout.read().split(), float) / 1e3
    side.close()
    print(
        f"write() in Python, every {1e3 * tick_s:g} ms, to the reader in C++: median {np.median(ages_us):.1f} us, "
        f"a tenth below {np.percentile(ages_us, 10):.1f} us, p99 {np.percentile(ages_us, 99):.1f} us, "
        f"worst {ages_us.max():.0f} us of {len(ages_us)}"
    )


def death(probe: Path, folder: Path, number: signal.Signals, valid_ms: int, times: int) -> None:
    """Print how long a controller at 1 kHz goes on after the program is killed or stopped."""
    after_ms = []
    while len(after_ms) < times:
        path = folder / f"death-{len(after_ms)}-{number}-{valid_ms}"
        with started(sys.executable, __file__, "--write", path, "--valid-ms", valid_ms) as writer:
            writer.stdout.readline()
            with started(probe, "watch", path, 1.2, 1000) as reader:
                while not reader.stdout.readline().startswith("drive"):
                    pass
                time.sleep(np.random.default_rng(len(after_ms)).uniform(0.1, 0.2))
                died_ns = time.monotonic_ns()
                writer.send_signal(number)
                told = reader.communicate()[0].splitlines()
        if told and told[-1].startswith("damp") and int(told[-1].split()[1]) > died_ns:
            after_ms.append((int(told[-1].split()[1]) - died_ns) / MS)
    print(
        f"{number.name}, commands valid for {valid_ms} ms: damping after {np.median(after_ms):.1f} ms, "
        f"worst {max(after_ms):.1f} ms of {times}"
    )


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=10_000_000)
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--deaths", type=int, default=10)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--valid-ms", type=int, default=24, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write_for_ever(arguments.write, arguments.valid_ms)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder, build = Path(name), Path(name) / "build"
        subprocess.run(["cmake", "-S", CPP, "-B", build], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["cmake", "--build", build, "--target", "probe"], check=True, stdout=subprocess.DEVNULL)
        probe = build / "probe"
        print(machine())
        torn(probe, folder, arguments.reads)
        for tick_s in (TICK_S, 0.002):
            latency(probe, folder, arguments.commands, tick_s)
        for number in (signal.SIGKILL, signal.SIGSTOP):
            for valid_ms in (24, 90):
                death(probe, folder, number, valid_ms, arguments.deaths)


if __name__ == "__main__":
    main()
