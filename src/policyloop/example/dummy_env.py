"""A stand-in for your simulation of a Lite3: numbers in its profile's order and units, made of noise. Nothing walks.

`reset` and `step` are those of Gymnasium, which this file does without. Episodes end now and then: by a fall, or late.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Observation = dict[str, NDArray[np.float32]]

STANDING_RAD = np.tile([0.0, -0.65, 1.3], 4)
SCALE_RAD = np.tile([0.125, 0.25, 0.25], 4)
TICK_S = 0.012
FALLS_PER_STEP = 0.01
MOST_STEPS = 250


class DummyEnv:
    """Joints that follow their targets, on a body that sways at random."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Stand up; a seed makes everything after it repeatable."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._joint_pos = STANDING_RAD + self._rng.normal(0.0, 0.1, 12)
        self._joint_vel = np.zeros(12)
        self._last_action = np.zeros(12)
        self._lean = np.zeros(2)
        self._wanted = self._rng.uniform(-0.8, 0.8, 3)
        self._steps, self._over = 0, False
        return self._observe(), {}

    def step(self, action: NDArray[np.floating]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Go on for one tick; `action` is what the network gives, before the profile's scale and centre."""
        if self._over:
            raise RuntimeError("the episode is over: reset")
        before = self._joint_pos
        target = STANDING_RAD + SCALE_RAD * action
        self._joint_pos = before + 0.3 * (target - before) + self._rng.normal(0.0, 0.01, 12)
        self._joint_vel = (self._joint_pos - before) / TICK_S
        self._last_action = np.array(action, np.float64)
        self._lean = 0.95 * self._lean + self._rng.normal(0.0, 0.02, 2)
        self._steps += 1
        fell = bool(self._rng.random() < FALLS_PER_STEP)
        late = self._steps >= MOST_STEPS
        self._over = fell or late
        return self._observe(), 0.0, fell, late, {}

    def _observe(self) -> Observation:
        """Return what a robot senses: raw, in SI units; whatever scales it comes later, from the profile."""
        roll, pitch = self._lean
        gravity = np.array([math.sin(pitch), -math.cos(pitch) * math.sin(roll), -math.cos(pitch) * math.cos(roll)])
        turning_radps = self._rng.normal(0.0, 0.5, 3)
        parts = [turning_radps, gravity, self._wanted, self._joint_pos, self._joint_vel, self._last_action]
        return {"proprio": np.concatenate(parts).astype(np.float32)}


def make_env() -> DummyEnv:
    """Return an environment: `--env dummy_env:make_env`."""
    return DummyEnv()


def make_policy() -> Callable[[Observation], NDArray[np.float64]]:
    """Return what drives it, from observation to action: `--policy dummy_env:make_policy`."""
    rng = np.random.default_rng(1)

    def act(observation: Observation) -> NDArray[np.float64]:
        return rng.normal(0.0, 0.3, 12)

    return act
