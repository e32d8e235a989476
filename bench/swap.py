"""Swaps while driving in real time: a simulated rover at 50 Hz that goes to and fro between two good versions.

python bench/swap.py --swaps 1000
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from pathlib import Path

import msgspec
import numpy as np
import torch
from machine import machine

from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.clock import MonotonicClock
from policyloop.core.profile import load_profile
from policyloop.core.step import Step
from policyloop.learn.networks import make_network
from policyloop.robot.actor import Actor
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.recorder import Recorder
from policyloop.runtime.guarded import GuardedSlot
from policyloop.safety.gate import SafetyGate
from policyloop.sim.robot import SimulatedRobot


def resident_mb() -> float:
    """Return how much memory this process holds, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Drive, swap and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="rover-mini")
    parser.add_argument("--hz", type=float, default=50.0)
    parser.add_argument("--swaps", type=int, default=1000)
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    profile = msgspec.structs.replace(profile, rates=msgspec.structs.replace(profile.rates, control_hz=arguments.hz))
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        versions = []
        for version in (1, 2):
            torch.manual_seed(version)
            bundle = export_bundle(
                make_network("spatial", profile),
                profile,
                profile.nominal_normalizer,
                network_name="spatial",
                version=version,
                noise_hold_ticks=1,
                observations=probe_features(profile, 4),
                training={},
            )
            versions.append(store.add(bundle))
            store.activate(versions[-1])
            store.mark(versions[-1], "good")
        slot = GuardedSlot(store, profile)
        digests: dict[int, set[str]] = {1: set(), 2: set()}

        def look(step: Step) -> None:
            behaviour = step.record.action.behaviour
            if behaviour is not None:
                digests[behaviour.policy_version].add(behaviour.policy_digest)

        clock, rng, stop = MonotonicClock(), np.random.default_rng(0), threading.Event()
        robot = SimulatedRobot(profile, range(48), rng, clock)
        recorder = Recorder(profile, "bench", "", look)
        waited_ticks: list[int] = [0]
        memory_mb: list[float] = []

        def between_ticks() -> None:
            candidate = slot._candidate
            waited_ticks[-1] += candidate is not None and candidate.ready
            if slot.follow():
                waited_ticks.append(0)
                memory_mb.append(resident_mb())
                if slot.swaps >= arguments.swaps:
                    stop.set()
                threading.Thread(target=store.activate, args=(versions[slot.swaps % 2],)).start()

        actor = Actor(
            profile,
            robot,
            robot,
            PolicyDriver(slot, len(profile.action)),
            SafetyGate(profile),
            recorder,
            clock,
            between_ticks=between_ticks,
        )
        store.activate(versions[0])
        actor.run(stop, ticks=arguments.swaps * 500)
        slot.close()
    print(f"swaps            {slot.swaps}")
    print(f"errors           {actor.errors}")
    print(f"digests per version {sorted(map(len, digests.values()))}")
    print(f"ticks from ready to swapped, at most {max(waited_ticks)}")
    tenths = [f"{memory_mb[len(memory_mb) * tenth // 10 - 1]:.1f}" for tenth in range(1, 11)]
    print(f"memory after each tenth, MB: {' '.join(tenths)}")
    for name, value in msgspec.structs.asdict(actor.report()).items():
        print(f"{name:16} {value:.2f}" if isinstance(value, float) else f"{name:16} {value}")


if __name__ == "__main__":
    main()
