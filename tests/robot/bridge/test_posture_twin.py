"""The mode machine in C++ and its Python twin do the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from policyloop.robot.posture import REQUESTS, BodyState, ModeMachine, ModeSettings

SETTINGS = ModeSettings(pose=(0.0, -0.65, 1.3) * 4, kp=(30.0,) * 12, kd=(1.0,) * 12)
CAUSES = ("none", "request", "stop", "sensors", "leaning", "no_command")
TICKS = 5000


def trace(seed: int) -> list[tuple[int, int, bool, np.ndarray]]:
    """Return ticks that mostly lead somewhere: a robot that stands up and walks, with mishaps now and then."""
    rng = np.random.default_rng(seed)
    ticks, now_ns, request = [], 0, 0
    for _ in range(TICKS):
        now_ns += int(rng.integers(1_000_000, 100_000_000))
        if rng.random() < 0.1:
            request = int(rng.choice(5, p=[0.1, 0.1, 0.4, 0.35, 0.05]))
        lean = rng.normal(0, 0.9 if rng.random() < 0.02 else 0.1, 2)
        gravity = [lean[0], lean[1], rng.choice([-1, 1], p=[0.995, 0.005])]
        position = np.array(SETTINGS.pose) + rng.normal(0, 0.3 if rng.random() < 0.1 else 0.05, 12)
        speed = rng.normal(0, 1.0 if rng.random() < 0.3 else 0.05, 15)
        if rng.random() < 0.002:
            speed[rng.integers(15)] = rng.choice([np.nan, np.inf])
        command = rng.normal(0, 1, 12)
        numbers = np.concatenate([speed[:3], gravity, position, speed[3:], command]).astype(np.float32)
        ticks.append((now_ns, request, bool(rng.random() < 0.97), numbers))
    return ticks


def test_both_go_the_same_way_through_random_traces(programs: Path) -> None:
    ticks = [tick for seed in range(1) for tick in trace(seed)]
    text = "\n".join(
        f"{now_ns} {request} {commanded:d} " + " ".join(f"{x:.9g}" for x in numbers.tolist())
        for now_ns, request, commanded, numbers in ticks
    )
    done = subprocess.run([programs / "modes_trace"], input=text, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(ticks)
    machine = ModeMachine(SETTINGS)
    posture, visits, entered = machine.begin("none", 0), dict.fromkeys(["policy", "damping", "idle", "stand_up"], 0), 0
    for (now_ns, request, commanded, numbers), line in zip(ticks, lines, strict=True):
        gyro, gravity, position, velocity, command = np.split(numbers, [3, 6, 18, 30])
        body, before = BodyState(gyro, gravity, position, velocity), posture.mode
        posture = machine.next(posture, REQUESTS[request], body, commanded, now_ns)
        out = machine.setpoint(posture, command, now_ns)
        mode, cause, *values = line.split()
        assert (mode, CAUSES[int(cause)]) == (posture.mode, posture.cause)
        expected = np.concatenate([out.target, out.kp, out.kd])
        np.testing.assert_allclose(np.array(values, np.float32), expected, rtol=0, atol=1e-6)
        visits[posture.mode] += 1
        entered += posture.mode == "policy" != before
    assert min(visits.values()) > 50 and entered > 5, (visits, entered)
