"""A policy that wants to know how old its observation is, is told by the actor: only the program knows the time."""

from __future__ import annotations

import msgspec

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation

__all__ = ["Age"]


class Age:
    """Fills in the proprio quantity `delay`: s from the capture of the oldest reading until the policy is asked.

    What comes after, inference and the way to the motors, nobody can have measured yet.

    Args:
        profile: The robot's; without that quantity observations pass unchanged.
    """

    def __init__(self, profile: RobotProfile) -> None:
        self._at = profile.proprio_slice("delay")

    def told(self, observation: Observation, now_ns: int) -> Observation:
        """Return the observation with its age at the monotonic time `now_ns` in it."""
        if self._at is None:
            return observation
        proprio = observation.arrays["proprio"].copy()
        proprio[self._at] = (now_ns - observation.captured_ns) * 1e-9
        return msgspec.structs.replace(observation, arrays={**observation.arrays, "proprio": proprio})
