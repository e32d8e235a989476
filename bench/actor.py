"""Tick jitter of the actor in real time: a simulated rover, a 424x240 policy on the CPU, the whole loop.

python bench/actor.py --hz 10 --seconds 300
"""

from __future__ import annotations

import argparse
import tempfile
import threading
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
from policyloop.runtime.reload import PolicySlot
from policyloop.safety.gate import SafetyGate
from policyloop.sim.robot import SimulatedRobot


def main() -> None:
    """Drive and print the tick report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="rover")
    parser.add_argument("--network", default="spatial")
    parser.add_argument("--hz", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=300.0)
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    profile = msgspec.structs.replace(profile, rates=msgspec.structs.replace(profile.rates, control_hz=arguments.hz))
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
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
        actor.run(threading.Event(), ticks=round(arguments.seconds * arguments.hz))
        slot.close()
    for name, value in msgspec.structs.asdict(actor.report()).items():
        print(f"{name:16} {value:.2f}" if isinstance(value, float) else f"{name:16} {value}")


if __name__ == "__main__":
    main()
