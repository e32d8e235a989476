"""What one step of RGB-D costs between a message and the wire to the trainer: decode, synchronise, encode.

python bench/ros.py [--steps 300] [../shared/data/d435i/aligned.npz ...]
"""

from __future__ import annotations

import argparse
import array
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from depth import views
from machine import machine

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import load_profile
from policyloop.core.step import Action, Command, Stamps, Step
from policyloop.robot.recorder import Recorder
from policyloop.robot.ros.topics import TopicSettings, TopicSource
from policyloop.sim.env import RoverEnv
from policyloop.wire.codec import encode_step

PROFILE = load_profile("rover")
Pictures = list[tuple[np.ndarray, np.ndarray]]
PERIOD_NS = 100_000_000


def vector(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> SimpleNamespace:
    """Return what has x, y and z."""
    return SimpleNamespace(x=x, y=y, z=z)


def header(stamp_ns: int) -> SimpleNamespace:
    """Return a header."""
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(stamp=stamp, frame_id="camera")


def image(pixels: np.ndarray, encoding: str, stamp_ns: int) -> SimpleNamespace:
    """Return an Image whose data is an array, as rclpy has it."""
    height, width = pixels.shape[:2]
    return SimpleNamespace(
        header=header(stamp_ns),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // height,
        data=array.array("B", pixels.tobytes()),
    )


def scenes(files: list[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return colour and depth in mm: as the simulated rover sees them, or with depth from files, as bench/depth.py."""
    env = RoverEnv(PROFILE)
    seen = [env.reset(seed=seed)[0] for seed in range(8)]
    env.close()
    depths = [view for file in files for view in views(np.load(file)["depth_mm"])] or [frame["depth"] for frame in seen]
    return [(seen[n % 8]["rgb"], depth) for n, depth in enumerate(depths)]


def step_of(pictures: Pictures, colour: str, depth: str, steps: int) -> dict[str, list[float]]:
    """Time the parts of each step, ms of this thread's CPU."""
    clock = VirtualClock(10**9)
    settings = TopicSettings(rgb="/rgb", depth="/depth", odom="/odom", imu="/imu")
    source = TopicSource(PROFILE, settings, clock)
    encoded: list[Step] = []
    recorder = Recorder(PROFILE, "rover", "boot", encoded.append)
    command, turn = Command((0.1, 0.0)), SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
    spent: dict[str, list[float]] = {"decode and synchronise": [], "observe": [], "encode": []}

    def timed(what: str, work: Callable[..., Any], *arguments: Any) -> Any:
        started_ns = time.thread_time_ns()
        result = work(*arguments)
        spent[what].append((time.thread_time_ns() - started_ns) / 1e6)
        return result

    def put(messages: dict[str, Any], now_ns: int) -> None:
        for topic, message in messages.items():
            source.put(topic, message, now_ns)

    for n in range(steps + 2):
        clock.advance_ns(PERIOD_NS)
        now_ns = clock.now_ns()
        rgb, mm = pictures[n % len(pictures)]
        twist = SimpleNamespace(linear=vector(0.1), angular=vector())
        messages = {
            "/odom": SimpleNamespace(header=header(now_ns), twist=SimpleNamespace(twist=twist)),
            "/imu": SimpleNamespace(
                header=header(now_ns),
                orientation=turn,
                orientation_covariance=np.zeros(9),
                linear_acceleration=vector(z=9.81),
                linear_acceleration_covariance=np.zeros(9),
            ),
            "/rgb": image(rgb, colour, now_ns),
            "/depth": image(mm if depth == "16UC1" else (mm / 1000).astype(np.float32), depth, now_ns),
        }
        timed("decode and synchronise", put, messages, now_ns)
        seen = timed("observe", source.read)
        recorder.observe(seen)
        recorder.act(seen, Action(command.values, "human"), command, Stamps(now_ns, now_ns, now_ns))
        if encoded:
            timed("encode", encode_step, encoded.pop(), PROFILE)
    return spent


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("pictures", nargs="*", type=Path, help="depth of a camera; default: simulated")
    arguments = parser.parse_args()
    steps, pictures = arguments.steps, scenes(arguments.pictures)
    print(f"{machine()}; 424x240, JPEG 85, CPU time of one thread, {steps} steps; goal: 3 ms together")
    for colour, depth in (("rgb8", "16UC1"), ("bgr8", "16UC1"), ("rgb8", "32FC1")):
        spent = step_of(pictures, colour, depth, steps)
        medians = {what: float(np.median(values)) for what, values in spent.items()}
        parts = ", ".join(f"{what} {value:.2f}" for what, value in medians.items())
        print(f"{colour} {depth}: {sum(medians.values()):.2f} ms: {parts}")


if __name__ == "__main__":
    main()
