"""Which floor a robot has seen free: what nobody has looked at is a direction without a sensor."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from policyloop.core.corridor import bearing_tangents
from policyloop.core.profile import RobotProfile
from policyloop.core.surroundings import MEMORY_M, Pose

__all__ = ["Floor"]

_CELL_M, _SIDE = 0.05, 512
"""The grid repeats every 25 m: further than what is seen from a way of `MEMORY_M`, to either side."""

_LEAST_AHEAD_M = 1.2
"""What a slow robot may sweep when it turns there later."""


class Floor:
    """The free floor around one robot.

    Args:
        profile: Needs a camera.
        reach_m: How far the robot gets until it stands.
    """

    def __init__(self, profile: RobotProfile, reach_m: float) -> None:
        assert profile.camera is not None
        camera, body = profile.camera, profile.body
        within_m = max(_LEAST_AHEAD_M, reach_m)
        self._cell_m = max(_CELL_M, within_m / camera.focal_px)  # no finer than the columns of the picture
        self._columns = slice(None, None, max(1, int(self._cell_m * camera.focal_px / within_m)))
        self._ahead_m = np.arange(self._cell_m / 2, within_m, self._cell_m, dtype=np.float32)
        aside = -bearing_tangents(camera)[self._columns, None] * self._ahead_m
        self._rays = np.stack([np.broadcast_to(self._ahead_m + camera.mount_forward_m, aside.shape), aside], -1)
        x, y = (
            np.linspace(-side / 2, side / 2, 2 + int(side / self._cell_m)) for side in (body.length_m, body.width_m)
        )
        self._under = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the robot stands somewhere else."""
        self._seen_at_m = np.full(_SIDE * _SIDE, -math.inf, np.float32)
        self._pose: Pose = (0.0, 0.0, 0.0)
        self._way_m = 0.0

    def observe(self, columns: NDArray[np.float32], pose: Pose, way_m: float) -> None:
        """Take in the next picture.

        Args:
            columns: See `core.corridor.column_distances`.
            pose: See `core.surroundings.Surroundings`.
            way_m: See there.
        """
        if way_m < self._way_m:
            self.reset()  # dead reckoning began anew
        self._pose, self._way_m = pose, way_m
        free = self._rays[self._ahead_m < columns[self._columns, None] - self._cell_m]
        self._seen_at_m[self._cells(np.concatenate([free, self._under]))] = way_m

    def seen(self, places: Iterable[complex]) -> bool:
        """Return whether the floor at all of these places was seen free in the last metres.

        Args:
            places: In the robot's frame, x m ahead + y m to the left as one number.
        """
        x, y, yaw = self._pose
        at, turn = complex(x, y) / self._cell_m, complex(math.cos(yaw), math.sin(yaw)) / self._cell_m
        since_m, seen_at_m = self._way_m - MEMORY_M, self._seen_at_m
        for place in places:
            cell = at + turn * place
            if seen_at_m.item((round(cell.imag) & _SIDE - 1) * _SIDE + (round(cell.real) & _SIDE - 1)) < since_m:
                return False
        return True

    def _cells(self, points: NDArray[np.float32]) -> NDArray[np.int64]:
        x, y, yaw = self._pose
        c, s = math.cos(yaw) / self._cell_m, math.sin(yaw) / self._cell_m
        px, py = points[:, 0], points[:, 1]
        column = np.rint(px * c - py * s + x / self._cell_m).astype(np.int64) & _SIDE - 1
        row = np.rint(px * s + py * c + y / self._cell_m).astype(np.int64) & _SIDE - 1
        return row * _SIDE + column
