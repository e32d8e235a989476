"""Which simulated robot a profile describes."""

from __future__ import annotations

import numpy as np

from policyloop.core.clock import Clock
from policyloop.core.profile import RobotProfile
from policyloop.sim.lite3_robot import SimulatedLite3
from policyloop.sim.robot import SimulatedRobot

__all__ = ["simulated_machine"]

_ARENAS = range(48)


def simulated_machine(profile: RobotProfile, rng: np.random.Generator, clock: Clock) -> SimulatedRobot | SimulatedLite3:
    """Return a Lite3 for a profile with joints, else a rover; ConfigError if it is neither."""
    if profile.joints is not None:
        return SimulatedLite3(profile, rng, clock)
    return SimulatedRobot(profile, _ARENAS, rng, clock)
