"""Tick jitter of the actor in real time: a simulated rover, a policy on the CPU, the whole loop.

python bench/actor.py --hz 10 --seconds 300                                   (424x240)
python bench/actor.py --profile rover-mini --hz 50 --seconds 600 [--busy 2]   (64x36; --busy: beside so many busy loops)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from machine import machine

from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.clock import MonotonicClock
from policyloop.core.profile import load_profile
from policyloop.learn.networks import make_network
from policyloop.robot.actor import Actor
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.recorder import Recorder
from policyloop.robot.scheduling import freeze_garbage
from policyloop.runtime.reload import PolicySlot
from policyloop.safety.gate import SafetyGate
from policyloop.sim.robot import SimulatedRobot


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many cores busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> None:
    """Drive and print the tick report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="rover")
    parser.add_argument("--network", default="spatial")
    parser.add_argument("--hz", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--busy", type=int, default=0, help="processes that keep the cores busy meanwhile")
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    profile = msgspec.structs.replace(profile, rates=msgspec.structs.replace(profile.rates, control_hz=arguments.hz))
    print(machine())
    with tempfile.TemporaryDirectory() as folder, busy(arguments.busy):
        bundle = export_bundle(
            make_network(arguments.network, profile),
            profile,
            profile.nominal_normalizer,
            network_name=arguments.network,
            version=1,
            noise_hold_ticks=1,
            observations=probe_features(profile, 1),
            training={},
        )
        slot = PolicySlot(Store(Path(folder)).add(bundle), profile)
        clock, rng = MonotonicClock(), np.random.default_rng(0)
        robot = SimulatedRobot(profile, range(48), rng, clock)
        driver = PolicyDriver(slot, len(profile.action))
        recorder = Recorder(profile, "bench", "")
        actor = Actor(profile, robot, robot, driver, SafetyGate(profile), recorder, clock, between_ticks=slot.follow)
        freeze_garbage()
        actor.run(threading.Event(), ticks=round(arguments.seconds * arguments.hz))
        slot.close()
    for name, value in msgspec.structs.asdict(actor.report()).items():
        print(f"{name:16} {value:.2f}" if isinstance(value, float) else f"{name:16} {value}")


if __name__ == "__main__":
    main()
