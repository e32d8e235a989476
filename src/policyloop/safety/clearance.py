"""Where a rover may go: the free distance ahead, and what its body would sweep in any direction until it stands.

What was not measured is an obstacle; what was seen in the last metres is remembered (`core.surroundings`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from policyloop.core.corridor import column_distances, hidden_distance
from policyloop.core.floor import Floor
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.core.surroundings import Surroundings

__all__ = ["Clearance"]

_BODY_MARGIN_M, _DRIFT = 0.04, 0.03
"""The margin grows by 3 cm with each metre since a thing was last seen, for dead reckoning drifts."""

_OVERLOOKED_M = 0.1
"""Width of a strip at the body's side that nobody needs to have seen; so narrow is also what a hole may hide."""

_SLOWER = (1.0, 0.75, 0.5, 0.25)
_STEPS = (0.25, 0.5, 0.75, 1.0)

Points = NDArray[np.complex64]
"""x m ahead + y m to the left as one number, which turns by a multiplication."""


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
        self._farthest_m = self._reach_m(fastest_mps, limits.max_angular_radps)
        self._floor = Floor(profile, self._farthest_m) if self._surroundings is not None else None
        self._body_m = (profile.body.length_m / 2, profile.body.width_m / 2)
        self._forget()

    def tighten(self, profile: RobotProfile) -> None:
        """Obey the narrower limits of a profile that is the same otherwise."""
        self._profile = profile

    def reset(self) -> None:
        """Forget what is around: the robot stands somewhere else."""
        if self._surroundings is not None:
            self._surroundings.reset()
        if self._floor is not None:
            self._floor.reset()
        self._forget()

    def _forget(self) -> None:
        self._hidden_m = math.inf
        self._near: Points = np.zeros(0, np.complex64)
        self._near_m: NDArray[np.floating] = np.zeros(0, np.float32)
        self._margin_m = self._near_m

    def look(self, observation: Observation) -> None:
        """Perceive: what is around, and what may hide where nothing was measured."""
        camera = self._profile.camera
        if self._surroundings is None or self._floor is None or camera is None:
            return
        columns = column_distances(observation.arrays["depth"], camera)
        self._surroundings.observe(columns, observation.arrays["proprio"], observation.captured_ns)
        self._floor.observe(columns, self._surroundings.pose, self._surroundings.way_m)
        self._hidden_m = hidden_distance(columns, camera, self._profile.body.corridor_half_width_m)
        points = self._surroundings.points.view(np.complex64)[:, 0]
        distances_m = self._body_distance_m(points)
        margin_m = _BODY_MARGIN_M + _DRIFT * self._surroundings.ways_m
        near = distances_m < self._farthest_m + margin_m
        self._near, self._near_m, self._margin_m = points[near], distances_m[near], margin_m[near]

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

        A body that is within the margin of something already may move where that does not get closer. Floor that
        nobody has looked at is swept no faster ahead than backwards, where nobody looks either.
        """
        seen = self._seen_share(linear_mps, angular_radps)
        return seen * self._free_share(linear_mps * seen, angular_radps * seen)

    def _seen_share(self, linear_mps: float, angular_radps: float) -> float:
        slow_mps = self._profile.limits.max_reverse_mps
        if self._floor is None or linear_mps <= slow_mps:
            return 1.0
        until_s = self._until_s(linear_mps, angular_radps)
        front_m, side_m = self._body_m[0] - _BODY_MARGIN_M, self._body_m[1] - _OVERLOOKED_M
        corners = complex(front_m, side_m), complex(front_m, -side_m), complex(0, math.copysign(side_m, angular_radps))
        arc = [_pose(linear_mps, angular_radps, until_s * step) for step in _STEPS]
        seen = self._floor.seen(at + turn * corner for at, turn in arc for corner in corners)
        return 1.0 if seen else slow_mps / linear_mps

    def _free_share(self, linear_mps: float, angular_radps: float) -> float:
        reachable = self._near_m < self._margin_m + self._reach_m(linear_mps, angular_radps)
        if not reachable.any():
            return 1.0  # nothing can come that close, whatever the way there
        near, near_m, margin_m = self._near[reachable], self._near_m[reachable], self._margin_m[reachable]
        enough = np.minimum(margin_m, near_m - 1e-3)
        for share in _SLOWER:
            until_s = self._until_s(linear_mps, angular_radps, share)
            swept = _seen_from(near, linear_mps * share, angular_radps * share, until_s)
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
        """Return the distance of points in the robot's frame to its rectangular body; 0 inside."""
        length_m, width_m = self._body_m
        ahead_m, aside_m = np.abs(points.real) - length_m, np.abs(points.imag) - width_m
        return np.hypot(np.maximum(ahead_m, 0), np.maximum(aside_m, 0))


def _pose(linear_mps: float, angular_radps: float, time_s: float) -> tuple[complex, complex]:
    """Return where an arc leads in a time, and the turn there, a number of length one."""
    turn_rad = angular_radps * time_s
    turn = complex(math.cos(turn_rad), math.sin(turn_rad))
    return (linear_mps / angular_radps * 1j * (1 - turn) if abs(turn_rad) > 1e-6 else linear_mps * time_s), turn


def _seen_from(points: Points, linear_mps: float, angular_radps: float, until_s: float) -> Points:
    """Return where fixed points, (n,), lie in the robot's frame along an arc of `until_s`, (poses, n)."""
    arc = np.array([_pose(linear_mps, angular_radps, until_s * step) for step in _STEPS], np.complex64)
    return (points - arc[:, :1]) * arc[:, 1:].conj()
