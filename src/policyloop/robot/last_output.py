"""A policy that wants to know what it answered last is told by the actor: no robot can sense that."""

from __future__ import annotations

import msgspec
import numpy as np

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Observation

__all__ = ["LastOutput"]


class LastOutput:
    """Fills in the proprio quantity `last_action`; zeros at a start.

    With the linear action map that is the network's last output. With the tanh map it is tanh of it, from -1 to 1:
    where in the action's range the last proposal lay, whoever made it.

    Args:
        profile: The robot's; without that quantity observations pass unchanged.
    """

    def __init__(self, profile: RobotProfile) -> None:
        self._at = profile.proprio_slice("last_action")
        self._profile = profile
        self.clear()

    def told(self, observation: Observation) -> Observation:
        """Return the observation with the last output in it."""
        if self._at is None:
            return observation
        proprio = observation.arrays["proprio"].copy()
        proprio[self._at] = self._values
        return msgspec.structs.replace(observation, arrays={**observation.arrays, "proprio": proprio})

    def clear(self) -> None:
        """The policy is not in command."""
        self._values = np.zeros(len(self._profile.action), np.float32)

    def learn(self, action: Action) -> None:
        """Take in what was proposed in this tick."""
        if self._at is None:
            return
        if action.behaviour is not None and self._profile.action_map == "linear":
            self._values = np.array(action.behaviour.sample, np.float32)
        else:
            values = np.array(action.values, np.float32)
            self._values = (values - self._profile.action_center) / self._profile.action_scale
