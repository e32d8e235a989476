"""A scripted driver: the teacher of the clone and the yardstick of every learned policy.

A sampling planner (dynamic window approach, Fox, Burgard and Thrun 1997): it tries a fan of arcs
against the obstacles seen now and remembered from the last seconds of dead reckoning, and takes
the arc that earns the most reward. It sees nothing that a real robot does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policyloop.core.corridor import column_distances
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation
from policyloop.core.surroundings import Surroundings
from policyloop.errors import ConfigError

__all__ = ["RandomDriver", "ScriptedDriver"]

_SPEED_SHARES = (0.0, 1 / 3, 2 / 3, 1.0)
_TURN_SHARES = (0.0, 1 / 12, 1 / 6, 1 / 3, 1 / 2, 3 / 4, 1.0)
_HORIZON_S, _POSES = 2.4, 8
_UNSEEN_M, _UNSEEN_WAY_M = 1.1, 0.5
_FREE_M = 4.0
_LEFT_BONUS = 0.3
"""Turning on the spot prefers the left: a pupil without memory that was shown both sides equally
often would learn their mean, and stand still before every obstacle."""


def _unseen_sides() -> NDArray[np.float64]:
    """Return points left and right of the start, where nobody has looked yet, (n, 2) m."""
    bearings = np.radians(np.arange(45, 136, 10))
    sides = np.concatenate([bearings, -bearings])
    return _UNSEEN_M * np.column_stack([np.cos(sides), np.sin(sides)])


class ScriptedDriver:
    """Drives as far as it can without coming near anything.

    Args:
        profile: A rover's: camera, and the actions `linear` and `angular`.
    """

    def __init__(self, profile: RobotProfile) -> None:
        if profile.camera is None or [q.name for q in profile.action] != ["linear", "angular"]:
            raise ConfigError(f"the scripted driver cannot drive profile '{profile.name}'")
        self._camera = profile.camera
        self._surroundings = Surroundings(profile)
        self._half_corridor_m = profile.body.corridor_half_width_m + 0.05
        self._plan(profile.limits.max_forward_mps, profile.limits.max_angular_radps)
        self.reset()

    def _plan(self, max_mps: float, max_radps: float) -> None:
        turns = sorted({sign * share for share in _TURN_SHARES for sign in (-1, 1)})
        pairs = [
            (speed * max_mps, turn * max_radps)
            for speed in _SPEED_SHARES
            for turn in turns
            if not (speed == 1.0 and abs(turn) == 1.0) and not (speed == 0.0 and abs(turn) < 0.45)
        ]
        self._linear, self._angular = np.array(pairs).T
        self._left_on_the_spot = (self._linear == 0) & (self._angular > 0)
        time_s = np.linspace(_HORIZON_S / _POSES, _HORIZON_S, _POSES)
        heading = self._angular[:, None] * time_s
        rate = np.where(np.abs(self._angular) < 1e-6, 1e-6, self._angular)[:, None]
        x = self._linear[:, None] / rate * np.sin(rate * time_s)
        y = self._linear[:, None] / rate * (1 - np.cos(rate * time_s))
        self._x, self._y = (a.ravel()[:, None].astype(np.float32) for a in (x, y))
        self._cos, self._sin = (a.ravel()[:, None].astype(np.float32) for a in (np.cos(heading), np.sin(heading)))

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        self._surroundings.reset(_unseen_sides(), _UNSEEN_WAY_M)
        self._driven = (0.0, 0.0)

    def executed(self, command: Command) -> None:
        """Learn what was really driven, so that the next choice changes smoothly from there."""
        self._driven = (command.values[0], command.values[1])

    def propose(self, observation: Observation) -> Action:
        """Return the best arc's velocities."""
        columns = column_distances(observation.arrays["depth"], self._camera)
        self._surroundings.observe(columns, observation.arrays["proprio"], observation.captured_ns)
        free, clearance = self._clearances(self._surroundings.points)
        discount = np.linspace(1, 0.6, _POSES)
        # The weights mirror the score: 2 v - |w| / 2, and a price for coming near.
        danger = (
            5.0 * (free < 0.45)
            + 1.5 * np.clip(0.9 - free, 0, 1)
            + 60.0 * (clearance < 0.28)
            + 6.0 * np.clip(0.42 - clearance, 0, 1) / 0.13
        )
        value = (
            2 * self._linear
            - 0.5 * np.abs(self._angular)
            - (danger * discount).mean(axis=1)
            + 0.3 * np.minimum(free[:, -1], 2.5)
            - 0.15 * np.abs(self._linear - self._driven[0])
            - 0.10 * np.abs(self._angular - self._driven[1])
            + _LEFT_BONUS * self._left_on_the_spot
        )
        best = int(value.argmax())
        self._driven = (float(self._linear[best]), float(self._angular[best]))
        return Action(self._driven, "scripted")

    def _clearances(self, obstacles: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return, per arc and pose, the free distance ahead and the distance to the nearest obstacle, m."""
        shape = (len(self._linear), _POSES)
        if len(obstacles) == 0:
            return np.full(shape, _FREE_M, np.float32), np.full(shape, _FREE_M, np.float32)
        dx = obstacles[:, 0] - self._x
        dy = obstacles[:, 1] - self._y
        forward = self._cos * dx + self._sin * dy
        sideways = self._cos * dy - self._sin * dx
        ahead = (forward > 0) & (np.abs(sideways) < self._half_corridor_m)
        free = np.where(ahead, forward - self._camera.mount_forward_m, np.float32(_FREE_M)).min(axis=1)
        clearance = np.sqrt((dx * dx + dy * dy).min(axis=1))
        return np.clip(free, 0, _FREE_M).reshape(shape), clearance.reshape(shape)


class RandomDriver:
    """Holds a random action for half a second at a time: the floor of every comparison."""

    def __init__(self, profile: RobotProfile, rng: np.random.Generator) -> None:
        self._ranges = [(quantity.low, quantity.high) for quantity in profile.action]
        self._hold = max(1, round(profile.rates.control_hz / 2))
        self._rng = rng
        self.reset()

    def reset(self) -> None:
        """Begin a new episode."""
        self._tick = 0

    def executed(self, command: Command) -> None:
        """Take no notice."""

    def propose(self, observation: Observation) -> Action:
        """Return a random action of the profile's range."""
        if self._tick % self._hold == 0:
            self._values = tuple(float(self._rng.uniform(low, high)) for low, high in self._ranges)
        self._tick += 1
        return Action(self._values, "random")
