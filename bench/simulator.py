"""Steps per second and core of the simulated rover: physics, RGB-D, noise, both ray casters."""

from __future__ import annotations

import time

import msgspec
import numpy as np
from machine import machine

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.sim.camera import CasterName
from policyloop.sim.rover import Rover, arena

SIZES = ((64, 36), (106, 60), (212, 120), (424, 240))
ROUNDS = 5


def with_camera(width: int, height: int) -> RobotProfile:
    """Return the rover with another picture size."""
    profile = load_profile("rover")
    assert profile.camera is not None
    return msgspec.structs.replace(profile, camera=msgspec.structs.replace(profile.camera, width=width, height=height))


def steps_per_second(profile: RobotProfile, caster: CasterName, steps: int) -> float:
    """Return steps per CPU-second of this process."""
    rover = Rover(profile, caster=caster)
    rng = np.random.default_rng(0)
    rover.reset(arena(3, profile.simulation), rng)
    started = time.process_time()
    for index in range(steps):
        if index % 50 == 0:
            rover.reset(arena(3, profile.simulation), rng)
        rover.drive(0.3, 0.5)
        rover.observe()
    return steps / (time.process_time() - started)


def main() -> None:
    """Print the table: the median of interleaved rounds."""
    print(machine())
    print("picture    embree    mujoco   (steps per second and core)")
    for width, height in SIZES:
        profile = with_camera(width, height)
        steps = max(20, 120_000 // width)
        casters: tuple[CasterName, ...] = ("embree", "mujoco")
        rounds = [[steps_per_second(profile, caster, steps) for caster in casters] for _ in range(ROUNDS)]
        embree, mujoco = np.median(rounds, axis=0)
        print(f"{width:3}x{height:<3} {embree:9.0f} {mujoco:9.0f}")


if __name__ == "__main__":
    main()
