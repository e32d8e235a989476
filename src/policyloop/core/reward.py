"""Reward as a table of named, weighted, pure terms, so that it can be recomputed from the journal.

The reward of a step is earned by what its command caused, so every term reads the *next*
observation. Row S5 of the original documents is the table
`forward 2, spin -0.5, close -5, near -1, time -0.01`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec

from policyloop.errors import ConfigError

__all__ = ["REWARD_TERMS", "Outcome", "reward_terms", "total_reward", "validate_weights"]


class Outcome(msgspec.Struct, frozen=True):
    """What a command led to.

    Attributes:
        linear_mps: Measured forward velocity.
        angular_radps: Measured yaw rate.
        distance_m: Free distance ahead in the robot's corridor; 0 when unknown,
            which every term treats as an obstacle.
        collided: The episode ended by collision.
        overridden: Share of the proposed action that the gate took away, 0..1.
    """

    linear_mps: float
    angular_radps: float
    distance_m: float
    collided: bool = False
    overridden: float = 0.0


def _closeness(outcome: Outcome) -> float:
    """Rise linearly from 0 at 0.6 m to 1 at contact: a slope where `close` is a cliff."""
    return min(max((0.6 - outcome.distance_m) / 0.6, 0.0), 1.0)


REWARD_TERMS: Mapping[str, Callable[[Outcome], float]] = {
    "forward": lambda o: o.linear_mps,
    "spin": lambda o: abs(o.angular_radps),
    "close": lambda o: float(o.distance_m < 0.3),
    "near": lambda o: float(0.3 <= o.distance_m < 0.5),
    "closeness": _closeness,
    "collision": lambda o: float(o.collided),
    "idle": lambda o: float(abs(o.linear_mps) < 0.1 and abs(o.angular_radps) < 0.3),
    "override": lambda o: o.overridden,
    "time": lambda o: 1.0,
}
"""Every term by name. A profile weights them; a term without a weight costs nothing."""


def reward_terms(weights: Mapping[str, float], outcome: Outcome) -> dict[str, float]:
    """Return each weighted term of `outcome` by name."""
    return {name: weight * REWARD_TERMS[name](outcome) for name, weight in weights.items()}


def total_reward(weights: Mapping[str, float], outcome: Outcome) -> float:
    """Return the sum of the weighted terms."""
    return sum(weight * REWARD_TERMS[name](outcome) for name, weight in weights.items())


def validate_weights(weights: Mapping[str, float], where: str) -> None:
    """Raise ConfigError if `weights` names a term that does not exist."""
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise ConfigError(f"{where}: {name} must be a finite number")
        if name not in REWARD_TERMS:
            raise ConfigError(f"{where}: unknown reward term '{name}'", f"use one of {', '.join(sorted(REWARD_TERMS))}")
