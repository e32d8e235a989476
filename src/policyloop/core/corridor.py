"""Free distance ahead, from one depth image.

A fixed central crop is narrower than the robot at short range; the corridor test asks of every
column whether its obstacle lies within the robot's path: |z tan(bearing)| < half width.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import Camera

__all__ = ["bearing_tangents", "column_distances", "free_distance", "hidden_distance"]

_HIDDEN_M = 0.1
"""Width of what may stand unseen behind neighbouring columns without a measurement."""

_BAND = (0.25, 0.55)
"""Image rows, as shares of the height, in which obstacles of a low robot's height appear."""


@lru_cache(maxsize=8)
def bearing_tangents(camera: Camera) -> NDArray[np.float32]:
    """Return tan(bearing) of each image column, positive to the right, shape (width,)."""
    columns = np.arange(camera.width) + 0.5 - camera.width / 2
    return (columns / camera.focal_px).astype(np.float32)


def column_distances(depth_mm: NDArray[np.uint16], camera: Camera) -> NDArray[np.float32]:
    """Return the forward distance to the nearest obstacle of each column, m, shape (width,).

    The second nearest valid pixel counts, so that one bad pixel does not. A column without any
    valid pixel is unknown: 0.
    """
    first, last = int(camera.height * _BAND[0]), round(camera.height * _BAND[1])
    band = depth_mm[first:last] - np.uint16(1)  # a hole wraps to 65535: further than anything
    band.partition(1, axis=0)
    nearest, second = band[0], band[1]
    chosen = np.where(second == 65535, nearest, second) + np.uint16(1)
    return chosen.astype(np.float32) * np.float32(0.001)


def free_distance(columns_m: NDArray[np.float32], camera: Camera, half_width_m: float) -> float:
    """Return the distance to the nearest obstacle in the corridor, m; 0 when it is unknown.

    Unknown means that more than half of the columns straight ahead (those inside the corridor
    at 2 m) hold no measurement at all.
    """
    tangents = bearing_tangents(camera)
    ahead = np.abs(tangents) * 2.0 < half_width_m
    known = columns_m > 0
    if np.count_nonzero(known & ahead) * 2 < np.count_nonzero(ahead):
        return 0.0
    inside = known & (np.abs(columns_m * tangents) < half_width_m)
    return float(columns_m[inside].min()) if inside.any() else camera.depth_max_m


def hidden_distance(columns_m: NDArray[np.float32], camera: Camera, half_width_m: float) -> float:
    """Return the nearest distance at which something 0.1 m wide could stand unseen in the corridor, m.

    A hole is unknown, not far: behind neighbouring columns without any measurement that are `w` wide
    (as a difference of tangents) it can stand at 0.1 / w and further away.
    """
    unknown = columns_m == 0
    if not unknown.any():
        return camera.depth_max_m
    edges = np.flatnonzero(np.diff(np.concatenate(([False], unknown, [False]))))
    first, last = edges[::2], edges[1::2] - 1
    tangents, pitch = bearing_tangents(camera), 1 / camera.focal_px
    distance_m = _HIDDEN_M / (tangents[last] - tangents[first] + pitch)
    aside = np.maximum(np.maximum(tangents[first], -tangents[last]) - pitch / 2, 0)
    inside = aside * distance_m < half_width_m
    return float(min(distance_m[inside].min(initial=np.inf), camera.depth_max_m))
