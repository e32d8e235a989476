"""Which simulated robot a profile describes."""

from __future__ import annotations

import numpy as np

from policyloop.core.clock import Clock
from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError
from policyloop.sim.lite3 import joint_order
from policyloop.sim.lite3_robot import SimulatedLite3
from policyloop.sim.robot import SimulatedRobot

__all__ = ["simulated_machine", "why_not_simulated"]

_ARENAS = range(48)


def why_not_simulated(profile: RobotProfile) -> str:
    """Return why there is no simulated robot of a profile, or an empty string."""
    if profile.joints is None:
        return "" if profile.camera is not None else f"there is no simulator for profile '{profile.name}'"
    try:
        joint_order(profile)
    except ConfigError as error:
        return error.message
    return ""


def simulated_machine(profile: RobotProfile, rng: np.random.Generator, clock: Clock) -> SimulatedRobot | SimulatedLite3:
    """Return a Lite3 for a profile with joints, else a rover; ConfigError if it is neither."""
    if profile.joints is not None:
        return SimulatedLite3(profile, rng, clock)
    return SimulatedRobot(profile, _ARENAS, rng, clock)
