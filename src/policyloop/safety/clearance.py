"""Where a rover may go: the free distance ahead, and what its body would sweep in any direction until it stands.

What was not measured is an obstacle; what was seen in the last metres is remembered (`core.surroundings`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from policyloop.core.corridor import column_distances, hidden_distance
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.core.surroundings import Points, Surroundings

__all__ = ["Clearance"]

_BODY_MARGIN_M = 0.04
_SLOWER = (1.0, 0.75, 0.5, 0.25)
_POSES = 4


class Clearance:
    """Says how fast, and which share of a motion, is free of obstacles.

    Args:
        profile: Of a robot whose actions are `linear` and maybe `angular`. Without the quantity
            `min_forward_dist` nothing limits the speed ahead, without a camera nothing the sweep.
    """

    def __init__(self, profile: RobotProfile) -> None:
        self._profile = profile
        senses = {quantity.name for quantity in profile.proprio}
        self._distance = profile.proprio_index("min_forward_dist") if "min_forward_dist" in senses else None
        turns = any(quantity.name == "angular" for quantity in profile.action)
        self._surroundings = Surroundings(profile) if profile.camera is not None and turns else None
        limits = profile.limits
        fastest_mps = max(limits.max_forward_mps, limits.max_reverse_mps)
        self._within_m = _BODY_MARGIN_M + self._reach_m(fastest_mps, limits.max_angular_radps)
        self._forget()

    def reset(self) -> None:
        """Forget what is around: the robot stands somewhere else."""
        if self._surroundings is not None:
            self._surroundings.reset()
        self._forget()

    def _forget(self) -> None:
        self._hidden_m = math.inf
        self._near: Points = np.zeros((0, 2), np.float32)
        self._near_m: NDArray[np.floating] = np.zeros(0, np.float32)

    def look(self, observation: Observation) -> None:
        """Perceive: what is around, and what may hide where nothing was measured."""
        camera = self._profile.camera
        if self._surroundings is None or camera is None:
            return
        columns = column_distances(observation.arrays["depth"], camera)
        self._surroundings.observe(columns, observation.arrays["proprio"])
        self._hidden_m = hidden_distance(columns, camera, self._profile.body.corridor_half_width_m)
        points = self._surroundings.points
        distances_m = self._body_distance_m(points)
        near = distances_m < self._within_m
        self._near, self._near_m = points[near], distances_m[near]

    def fastest_mps(self, observation: Observation, now_ns: int) -> float:
        """Return the forward speed that the free distance ahead allows (row S24)."""
        if self._distance is None:
            return math.inf
        distance_m = min(float(observation.arrays["proprio"][self._distance]), self._hidden_m)
        return self.allowed_speed_mps(distance_m, (now_ns - observation.captured_ns) * 1e-9)

    def allowed_speed_mps(self, distance_m: float, age_s: float = 0.0) -> float:
        """Return the fastest forward speed v with v t + v^2 / 2a <= distance - safety distance; 0 if unknown.

        t is the reaction time and a the deceleration of the profile's limits; where the distance is so old that it
        takes longer from its capture to the end of the next tick, t is that.
        """
        limits = self._profile.limits
        room_m = distance_m - limits.safety_distance_m
        if not room_m > 0:
            return 0.0
        reaction_s = max(limits.reaction_time_s, age_s + 1 / self._profile.rates.control_hz)
        drift_mps = limits.max_deceleration_mps2 * reaction_s
        return math.sqrt(drift_mps**2 + 2 * limits.max_deceleration_mps2 * room_m) - drift_mps

    def clear_share(self, linear_mps: float, angular_radps: float) -> float:
        """Return the largest share of a motion that keeps the body clear of what is around until it stands again.

        A body that is within the margin of something already may move where that does not get closer.
        """
        if len(self._near) == 0 or self._near_m.min() >= _BODY_MARGIN_M + self._reach_m(linear_mps, angular_radps):
            return 1.0  # nothing can come that close, whatever the way there
        enough = np.minimum(_BODY_MARGIN_M, self._near_m - 1e-3)
        for share in _SLOWER:
            until_s = self._until_s(linear_mps, angular_radps, share)
            swept = _seen_from(self._near, linear_mps * share, angular_radps * share, until_s)
            if (self._body_distance_m(swept) >= enough).all():
                return share
        return 0.0

    def _until_s(self, linear_mps: float, angular_radps: float, share: float = 1.0) -> float:
        """Return the time until the body stands again: reaction, and the longer of both decelerations."""
        limits = self._profile.limits
        braking_s = abs(linear_mps) / limits.max_deceleration_mps2
        return limits.reaction_time_s + share * max(
            braking_s, abs(angular_radps) / limits.max_angular_acceleration_radps2
        )

    def _reach_m(self, linear_mps: float, angular_radps: float) -> float:
        """Return how far any point of the body can get until it stands again."""
        body = self._profile.body
        corner_m = math.hypot(body.length_m, body.width_m) / 2
        return (abs(linear_mps) + abs(angular_radps) * corner_m) * self._until_s(linear_mps, angular_radps)

    def _body_distance_m(self, points: Points) -> NDArray[np.floating]:
        """Return the distance of points in the robot's frame, (..., 2), to its rectangular body, (...); 0 inside."""
        body = self._profile.body
        outside = np.maximum(np.abs(points) - np.array([body.length_m / 2, body.width_m / 2], np.float32), 0)
        return np.hypot(outside[..., 0], outside[..., 1])


def _seen_from(points: Points, linear_mps: float, angular_radps: float, until_s: float) -> Points:
    """Return where fixed points, (n, 2), lie in the robot's frame along an arc of `until_s`, (poses, n, 2)."""
    times_s = np.linspace(until_s / _POSES, until_s, _POSES)
    turns = angular_radps * times_s
    c, s = np.cos(turns), np.sin(turns)
    straight = abs(angular_radps) * until_s < 1e-6
    x = linear_mps * times_s if straight else linear_mps / angular_radps * s
    y = np.zeros_like(times_s) if straight else linear_mps / angular_radps * (1 - c)
    rotations = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2).astype(np.float32)
    moved: Points = ((points[None] - np.stack([x, y], -1).astype(np.float32)[:, None]) @ rotations).astype(
        np.float32, copy=False
    )
    return moved
