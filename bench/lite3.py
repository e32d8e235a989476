"""Does it walk: a policy in the simulated Lite3, through the robot's own program and gate, on virtual time.

python bench/lite3.py BUNDLE [--runs 20] [--seconds 10] [--latency 0.024] [--push 0.4] [--command 0.5 0 0]

Ten commands, so many runs of each, from random starts, with pushes of 0.4 m/s every three seconds. Means from 2 s on.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Action, Command, Observation
from policyloop.robot.actor import Actor
from policyloop.robot.recorder import Recorder
from policyloop.runtime.policy import Policy
from policyloop.safety.gate import SafetyGate
from policyloop.sim.lite3 import Lite3
from policyloop.sim.lite3_model import LEGS
from policyloop.sim.lite3_robot import SimulatedLite3, Wanted

COMMANDS: tuple[Wanted, ...] = (
    (0.0, 0.0, 0.0),
    (0.5, 0.0, 0.0),
    (0.8, 0.0, 0.0),
    (-0.5, 0.0, 0.0),
    (0.0, 0.4, 0.0),
    (0.0, -0.4, 0.0),
    (0.0, 0.0, 0.6),
    (0.0, 0.0, -0.6),
    (0.5, 0.0, 0.5),
    (0.4, 0.2, -0.4),
)
SETTLED_S = 2.0


class Alone:
    """A policy that drives without a slot."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def propose(self, observation: Observation) -> Action:
        """Ask it."""
        return self._policy.act(observation)

    def executed(self, command: Command) -> None:
        """Nobody wants to know."""

    def reset(self) -> None:
        """There is nothing to forget."""


def walk(
    profile: RobotProfile,
    policy: Policy,
    wanted: Wanted,
    seed: int,
    *,
    seconds: float,
    latency_s: float,
    push_mps: float,
) -> tuple[bool, np.ndarray, np.ndarray, np.ndarray]:
    """Return whether it fell; means of vx, vy, wz, height; largest roll, pitch in degrees; how long each foot is up."""
    clock = VirtualClock()
    body = Lite3(profile, latency_s=latency_s)
    robot = SimulatedLite3(profile, np.random.default_rng(seed), clock, body=body, wanted=(wanted,), push_mps=push_mps)
    recorder = Recorder(profile, "bench", "")
    actor = Actor(profile, robot, robot, Alone(policy), SafetyGate(profile), recorder, clock)
    motions, leans, up = [], [], []
    for tick in range(round(seconds * profile.rates.control_hz)):
        actor.tick()
        if recorder.episodes:
            break
        if tick < SETTLED_S * profile.rates.control_hz:
            continue
        motion, gravity = body.motion, body.sense().gravity
        motions.append((motion.forward_mps, motion.left_mps, motion.yaw_radps, motion.height_m))
        leans.append((abs(math.atan2(-gravity[1], -gravity[2])), abs(math.asin(np.clip(gravity[0], -1, 1)))))
        up.append(~np.array(motion.feet_down))
    assert actor.errors == 0
    fell = bool(recorder.episodes)
    if not motions:
        return fell, np.full(4, np.nan), np.full(2, np.nan), np.full(4, np.nan)
    return fell, np.mean(motions, axis=0), np.degrees(np.max(leans, axis=0)), np.mean(up, axis=0)


def main() -> None:
    """Walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--profile", default="lite3")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--latency", type=float, default=0.0, help="seconds from observation to motor, besides a tick's"
    )
    parser.add_argument("--push", type=float, default=0.4, help="m/s")
    parser.add_argument("--command", type=float, nargs=3, default=None, help="only this one")
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    policy = Policy.load(arguments.policy, profile)
    commands = COMMANDS if arguments.command is None else (tuple(arguments.command),)
    print("| command | vx | vy | wz | falls | max roll, pitch deg | z m | feet up " + " ".join(LEGS) + " |")
    print("|---|---|---|---|---|---|---|---|")
    total = 0
    for wanted in commands:
        runs = [
            walk(
                profile,
                policy,
                wanted,
                seed,
                seconds=arguments.seconds,
                latency_s=arguments.latency,
                push_mps=arguments.push,
            )
            for seed in range(arguments.runs)
        ]
        falls = sum(run[0] for run in runs)
        total += falls
        vx, vy, wz, z = np.nanmean([run[1] for run in runs], axis=0)
        roll, pitch = np.nanmax([run[2] for run in runs], axis=0)
        up = " ".join(f"{share:.2f}" for share in np.nanmean([run[3] for run in runs], axis=0))
        asked = " ".join(f"{value:g}" for value in wanted)
        print(f"| {asked} | {vx:.3f} | {vy:.3f} | {wz:.3f} | {falls} | {roll:.1f}, {pitch:.1f} | {z:.3f} | {up} |")
    print(f"\n{total} falls in {len(commands) * arguments.runs} runs of {arguments.seconds:g} s")


if __name__ == "__main__":
    main()
