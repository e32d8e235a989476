"""Does it walk: a policy in the simulated Lite3, through the robot's own program and gate, on virtual time.

python bench/lite3.py BUNDLE [--runs 20] [--seconds 10] [--latency 0.024] [--push 0.4] [--command 0.5 0 0]

Ten commands, so many runs of each, from random starts, with pushes of 0.4 m/s every three seconds. Means from 2 s on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from policyloop.core.profile import load_profile
from policyloop.evaluate import BorrowedPolicy
from policyloop.runtime.policy import Policy
from policyloop.sim.lite3_model import LEGS
from policyloop.walking import WALKS, WalkConditions, walk


def main() -> None:
    """Walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--profile", default="lite3")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--latency", type=float, default=0.0, help="s from command to motor, besides a tick's")
    parser.add_argument("--push", type=float, default=0.4, help="m/s")
    parser.add_argument("--command", type=float, nargs=3, default=None, help="only this one")
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    driver = BorrowedPolicy("policy", Policy.load(arguments.policy, profile))
    conditions = WalkConditions(seconds=arguments.seconds, latency_s=arguments.latency, push_mps=arguments.push)
    commands = WALKS if arguments.command is None else (tuple(arguments.command),)
    print("| command | vx | vy | wz | falls | max roll, pitch deg | z m | feet up " + " ".join(LEGS) + " |")
    print("|---|---|---|---|---|---|---|---|")
    total = 0
    for wanted in commands:
        walks = [walk(profile, driver, wanted, seed, conditions) for seed in range(arguments.runs)]
        falls = sum(done.fell for done in walks)
        total += falls
        means = [(done.forward_mps, done.left_mps, done.yaw_radps, done.height_m) for done in walks]
        vx, vy, wz, z = np.nanmean(means, axis=0)
        roll, pitch = np.nanmax([(done.roll_deg, done.pitch_deg) for done in walks], axis=0)
        up = " ".join(f"{share:.2f}" for share in np.nanmean([done.feet_up for done in walks], axis=0))
        asked = " ".join(f"{value:g}" for value in wanted)
        print(f"| {asked} | {vx:.3f} | {vy:.3f} | {wz:.3f} | {falls} | {roll:.1f}, {pitch:.1f} | {z:.3f} | {up} |")
    print(f"\n{total} falls in {len(commands) * arguments.runs} runs of {arguments.seconds:g} s")


if __name__ == "__main__":
    main()
