"""Drivers that need no simulator: a policy that can be swapped while it drives."""

from __future__ import annotations

import numpy as np

from policyloop.core.step import Action, Command, Observation
from policyloop.runtime.policy import Exploration
from policyloop.runtime.reload import Slot

__all__ = ["PolicyDriver"]


class PolicyDriver:
    """Drives with whatever policy is in the slot.

    Args:
        slot: Holds the policy; exchanged between two ticks by `follow`.
        rng: Draws the exploration; None = act without it.
        actions: Length of the action vector.
    """

    def __init__(self, slot: Slot, actions: int, rng: np.random.Generator | None = None) -> None:
        self.slot = slot
        self._exploration = None if rng is None else Exploration(rng, actions)

    def propose(self, observation: Observation) -> Action:
        """Ask the policy."""
        return self.slot.act(observation, self._exploration)

    def executed(self, command: Command) -> None:
        """Tell the slot, which watches what the gate makes of a new policy's proposals."""
        self.slot.executed(command)

    def reset(self) -> None:
        """Draw new noise for a new episode."""
        if self._exploration is not None:
            self._exploration.reset()
