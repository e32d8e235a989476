"""What a robot knows of the obstacles around it: the present picture and the memory of the last metres.

A forward camera sees nothing at the robot's sides. What it saw there a moment ago, moved by dead
reckoning, is still true of a world that stands still.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from policyloop.core.corridor import bearing_tangents
from policyloop.core.profile import RobotProfile

__all__ = ["MEMORY_M", "Points", "Pose", "Surroundings"]

MEMORY_M, _TURN_COST_M = 5.0, 0.3
"""Memory fades with the way, not with time: dead reckoning errs by moving, and what stood beside a
waiting robot still stands there. Turning by a radian counts like so many metres."""

_CELL_M = 0.08
_SEEN_WITHIN_M, _REMEMBERED_WITHIN_M = 3.5, 2.5
_COLUMNS = 64

Points = NDArray[np.float32]
Pose = tuple[float, float, float]


class Surroundings:
    """Obstacle points around one robot.

    Args:
        profile: Needs a camera and the proprio quantities `linear_vel` and `angular_vel`.

    Attributes:
        pose: Where dead reckoning says it is, from where it began: x m, y m, yaw rad.
        way_m: How far it has moved since.
        points: Obstacles in the robot's frame, x forward and y left, (n, 2) m.
        ways_m: How far the robot has moved since each was seen, (n,): 0 for what is in the picture.
    """

    def __init__(self, profile: RobotProfile) -> None:
        assert profile.camera is not None
        self._camera = profile.camera
        self._dt_s = 1 / profile.rates.control_hz
        limits = profile.limits
        self._longest_s = profile.rates.sensor_timeout_s + limits.max_forward_mps / limits.max_deceleration_mps2
        self._linear = profile.proprio_index("linear_vel")
        self._angular = profile.proprio_index("angular_vel")
        self.reset()

    def reset(self, assumed: NDArray[np.float64] | None = None, assumed_m: float = 0.0) -> None:
        """Forget everything: the robot stands somewhere else.

        Args:
            assumed: Points to be treated as obstacles at first, (n, 2) m.
            assumed_m: For how long a way.
        """
        assumed = np.zeros((0, 2)) if assumed is None else assumed
        self._moved: tuple[int, float, float] | None = None  # when it was captured, m/s and rad/s
        self.way_m = 0.0
        self.pose = (0.0, 0.0, 0.0)
        # x m and y m where the memory began, and the way at which it was last seen
        self._memory = np.column_stack([assumed, np.full(len(assumed), assumed_m - MEMORY_M)])
        self.points: Points = np.zeros((0, 2), np.float32)
        self.ways_m: NDArray[np.float32] = np.zeros(0, np.float32)

    def observe(self, columns: NDArray[np.float32], proprio: NDArray[np.float32], captured_ns: int) -> None:
        """Take in the next observation; the same one again moves nothing.

        Args:
            columns: See `core.corridor.column_distances`.
            proprio: Proprioception.
            captured_ns: When it was taken.
        """
        self._dead_reckon(float(proprio[self._linear]), float(proprio[self._angular]), captured_ns)
        seen = (columns > 0) & (columns < _SEEN_WITHIN_M)
        near = columns[seen]
        now = np.stack([near + self._camera.mount_forward_m, -near * bearing_tangents(self._camera)[seen]], axis=1)
        now = now[:: max(1, len(columns) // _COLUMNS)]
        x, y, yaw = self.pose
        c, s = math.cos(yaw), math.sin(yaw)
        past = (self._memory[:, :2] - (x, y)) @ np.array([[c, -s], [s, c]])
        close = (np.abs(past) < _REMEMBERED_WITHIN_M).all(axis=1)
        ways_m = self.way_m - self._memory[close, 2]
        self._remember(now @ np.array([[c, s], [-s, c]]) + (x, y))
        self.points = np.concatenate([now, past[close]]).astype(np.float32)
        self.ways_m = np.concatenate([np.zeros(len(now)), ways_m]).astype(np.float32)

    def _dead_reckon(self, linear: float, angular: float, captured_ns: int) -> None:
        moved = captured_ns, linear, angular
        before_ns, linear_before, angular_before = self._moved or moved
        # After a gap that is longer the gate has stopped the robot, whatever was captured in between.
        dt_s = min(max(captured_ns - before_ns, 0) * 1e-9, self._longest_s)
        if dt_s > 1.5 * self._dt_s:  # in between it drove as before; within a tick motors follow at once
            linear, angular = (linear + linear_before) / 2, (angular + angular_before) / 2
        way_m = (abs(linear) + _TURN_COST_M * abs(angular)) * dt_s
        if way_m > MEMORY_M:
            self.reset()  # nothing that was seen counts any more, and a pose that far off would swallow small moves
            way_m = linear = angular = 0.0
        self._moved = moved
        self.way_m += way_m
        x, y, yaw = self.pose
        middle = yaw + angular * dt_s / 2
        self.pose = (
            x + linear * dt_s * math.cos(middle),
            y + linear * dt_s * math.sin(middle),
            yaw + angular * dt_s,
        )

    def _remember(self, points: NDArray[np.float64]) -> None:
        """Keep one point per cell of the floor, the newest."""
        newest = np.column_stack([points, np.full(len(points), self.way_m)])
        memory = np.concatenate([newest, self._memory[self._memory[:, 2] >= self.way_m - MEMORY_M]])
        cells = np.rint(memory[:, :2] / _CELL_M).astype(np.int64)
        self._memory = memory[np.unique(cells[:, 0] * (1 << 20) + cells[:, 1], return_index=True)[1]]
