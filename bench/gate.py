"""What the safety gate costs in a tick: a scripted rover among obstacles, the gate's check alone.

python bench/gate.py --profile rover
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from machine import machine

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import load_profile
from policyloop.core.step import Command, TimedCommand
from policyloop.safety.gate import SafetyGate
from policyloop.sim.driver import ScriptedDriver
from policyloop.sim.robot import SimulatedRobot


def main() -> None:
    """Drive, time every check, print percentiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="rover")
    parser.add_argument("--ticks", type=int, default=600)
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    clock, rng = VirtualClock(), np.random.default_rng(0)
    robot, gate, driver = SimulatedRobot(profile, range(48), rng, clock), SafetyGate(profile), ScriptedDriver(profile)
    print(machine())
    whole_us, rules_us = [], []
    for tick in range(arguments.ticks):
        observation = robot.read()
        if observation.contact:
            robot.begin_episode()
            gate.reset()
            driver.reset()
            continue
        action = driver.propose(observation)
        started_ns = time.perf_counter_ns()
        command: Command = gate.check(action, observation, clock.now_ns())
        whole_us.append((time.perf_counter_ns() - started_ns) / 1e3)
        started_ns = time.perf_counter_ns()
        gate.rules(action, observation, clock.now_ns())
        rules_us.append((time.perf_counter_ns() - started_ns) / 1e3)
        driver.executed(command)
        robot.write(TimedCommand(command, tick + 1, clock.now_ns() + 200_000_000))
    for name, times_us in (("rules", rules_us), ("rules and perception", whole_us)):
        print(f"{name:22} median {np.median(times_us):7.1f} us, p99 {np.percentile(times_us, 99):7.1f} us")


if __name__ == "__main__":
    main()
