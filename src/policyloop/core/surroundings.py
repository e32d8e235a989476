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

__all__ = ["Points", "Surroundings"]

_MEMORY_M, _TURN_COST_M = 5.0, 0.3
"""Memory fades with the way, not with time: dead reckoning errs by moving, and what stood beside a
waiting robot still stands there. Turning by a radian counts like so many metres."""

_CELL_M = 0.08
_SEEN_WITHIN_M, _REMEMBERED_WITHIN_M = 3.5, 2.5
_COLUMNS = 64

Points = NDArray[np.float32]


class Surroundings:
    """Obstacle points around one robot.

    Args:
        profile: Needs a camera and the proprio quantities `linear_vel` and `angular_vel`.

    Attributes:
        points: Obstacles in the robot's frame, x forward and y left, (n, 2) m.
    """

    def __init__(self, profile: RobotProfile) -> None:
        assert profile.camera is not None
        self._camera = profile.camera
        self._dt_s = 1 / profile.rates.control_hz
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
        self._way_m = 0.0
        self._pose = (0.0, 0.0, 0.0)
        # x m and y m where the memory began, and the way at which it was last seen
        self._memory = np.column_stack([assumed, np.full(len(assumed), assumed_m - _MEMORY_M)])
        self.points: Points = np.zeros((0, 2), np.float32)

    def observe(self, columns: NDArray[np.float32], proprio: NDArray[np.float32]) -> None:
        """Take in the next tick's observation.

        Args:
            columns: See `core.corridor.column_distances`.
            proprio: Proprioception.
        """
        self._dead_reckon(proprio)
        seen = (columns > 0) & (columns < _SEEN_WITHIN_M)
        near = columns[seen]
        now = np.stack([near + self._camera.mount_forward_m, -near * bearing_tangents(self._camera)[seen]], axis=1)
        now = now[:: max(1, len(columns) // _COLUMNS)]
        x, y, yaw = self._pose
        c, s = math.cos(yaw), math.sin(yaw)
        past = (self._memory[:, :2] - (x, y)) @ np.array([[c, -s], [s, c]])
        past = past[(np.abs(past) < _REMEMBERED_WITHIN_M).all(axis=1)]
        self._remember(now @ np.array([[c, s], [-s, c]]) + (x, y))
        self.points = np.concatenate([now, past]).astype(np.float32)

    def _dead_reckon(self, proprio: NDArray[np.float32]) -> None:
        linear, angular = float(proprio[self._linear]), float(proprio[self._angular])
        way_m = (abs(linear) + _TURN_COST_M * abs(angular)) * self._dt_s
        if way_m > _MEMORY_M:
            self.reset()  # nothing that was seen counts any more, and a pose that far off would swallow small moves
            return
        self._way_m += way_m
        x, y, yaw = self._pose
        middle = yaw + angular * self._dt_s / 2
        self._pose = (
            x + linear * self._dt_s * math.cos(middle),
            y + linear * self._dt_s * math.sin(middle),
            yaw + angular * self._dt_s,
        )

    def _remember(self, points: NDArray[np.float64]) -> None:
        """Keep one point per cell of the floor, the newest."""
        newest = np.column_stack([points, np.full(len(points), self._way_m)])
        memory = np.concatenate([newest, self._memory[self._memory[:, 2] >= self._way_m - _MEMORY_M]])
        cells = np.rint(memory[:, :2] / _CELL_M).astype(np.int64)
        self._memory = memory[np.unique(cells[:, 0] * (1 << 20) + cells[:, 1], return_index=True)[1]]
