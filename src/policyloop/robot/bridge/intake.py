"""What a controller tells becomes an observation: its numbers go to their places in the proprioception vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policyloop.core.step import Observation
from policyloop.errors import ConfigError
from policyloop.robot.bridge.header import MOST_FLOATS

__all__ = ["Intake"]


class Intake:
    """Makes observations of states.

    Args:
        states: Where in the proprioception vector each number of a state belongs; what is not named stays 0.
        proprio_size: Length of that vector.

    Raises:
        ConfigError: The places are outside the vector, named twice, or not 1 to 1024.
    """

    def __init__(self, states: NDArray[np.intp], proprio_size: int) -> None:
        places = np.asarray(states, np.intp)
        if places.ndim != 1 or not 1 <= len(places) <= MOST_FLOATS or len(set(places.tolist())) != len(places):
            raise ConfigError(f"states {places.tolist()}", f"name 1 to {MOST_FLOATS} different places")
        if places.min() < 0 or places.max() >= proprio_size:
            raise ConfigError(f"states {places.tolist()} are not all within {proprio_size} numbers")
        self._places, self._size = places, proprio_size

    @property
    def states(self) -> int:
        """How many numbers a state has."""
        return len(self._places)

    def observation(self, values: NDArray[np.float32], captured_ns: int, *, followed: bool = True) -> Observation:
        """Return the observation that a state means; `followed` is whether the controller obeys commands."""
        proprio = np.zeros(self._size, np.float32)
        proprio[self._places] = values
        return Observation({"proprio": proprio}, captured_ns, followed=followed)
