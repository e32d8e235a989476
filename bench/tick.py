"""What a tick of the Lite3's program costs beside the network itself: normalise, infer, limit, publish, record.

python bench/tick.py BUNDLE [--ticks 20000] [--io none|shm]

The whole tick of `policyloop run` without its sleep; the network's own call is timed inside and taken away.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policyloop.core.clock import MonotonicClock
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Arrays, Observation, TimedCommand
from policyloop.robot.actor import Actor
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.recorder import Recorder
from policyloop.runtime.backend import Backend
from policyloop.runtime.guarded import open_slot
from policyloop.runtime.health import SwapSettings
from policyloop.runtime.locate import find_policy
from policyloop.safety.arming import ArmingLimits, ArmingSwitch
from policyloop.safety.gate import SafetyGate


class Still:
    """A robot that stands and takes every command."""

    def __init__(self, profile: RobotProfile, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._rows = np.tile(np.array(profile.nominal_normalizer.mean, np.float32), (256, 1))
        self._rows += rng.normal(0, 0.01, self._rows.shape).astype(np.float32)
        gravity = profile.proprio_slice("projected_gravity")
        assert gravity is not None
        self._rows[:, gravity] = (0, 0, -1)
        self._next = 0

    def read(self) -> Observation:
        """Sense."""
        self._next += 1
        return Observation({"proprio": self._rows[self._next % 256]}, time.monotonic_ns())

    def begin_episode(self) -> bool:
        """Stand on."""
        return False

    def write(self, order: TimedCommand) -> None:
        """Take it."""


class Timed:
    """A backend that times itself."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name = backend.name
        self.spent_ns: list[int] = []

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        """Infer."""
        begun = time.perf_counter_ns()
        answer = self._backend.infer(inputs)
        self.spent_ns.append(time.perf_counter_ns() - begun)
        return answer

    def close(self) -> None:
        """Close."""
        self._backend.close()


def main() -> None:
    """Tick."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--profile", default="lite3")
    parser.add_argument("--ticks", type=int, default=20_000)
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    slot = open_slot(find_policy(arguments.policy), profile, "auto", None, SwapSettings())
    timed = Timed(slot.policy._backend)
    slot.policy._backend = timed
    robot = Still(profile)
    arming = ArmingSwitch(ArmingLimits.of(profile), arm_once=True)
    actor = Actor(
        profile,
        robot,
        robot,
        PolicyDriver(slot, len(profile.action)),
        SafetyGate(profile),
        Recorder(profile, "bench", ""),
        MonotonicClock(),
        arming=arming,
    )
    gc.collect()
    gc.freeze()
    whole = []
    for _ in range(arguments.ticks):
        begun = time.perf_counter_ns()
        actor.tick()
        whole.append(time.perf_counter_ns() - begun)
    assert arming.now.state == "armed" and actor.errors == 0, (arming.now, actor.errors)
    count = min(len(timed.spent_ns), len(whole)) - 200
    tick, network = (np.array(values[-count:]) / 1e3 for values in (whole, timed.spent_ns))
    for name, values in (("tick", tick), ("network", network), ("all but the network", tick - network)):
        p50, p99, worst = np.percentile(values, [50, 99, 100])
        print(f"{name}: median {p50:.0f} us, p99 {p99:.0f} us, worst {worst:.0f} us")
    slot.close()


if __name__ == "__main__":
    main()
