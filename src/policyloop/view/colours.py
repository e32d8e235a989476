"""Depth in colours, for people."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import Camera

__all__ = ["depth_colours"]

_UNKNOWN = (58, 58, 62)
"""Grey: no colour of a distance."""
_STOPS = (
    (0.0, (122, 4, 3)),
    (0.18, (233, 93, 16)),
    (0.36, (250, 186, 57)),
    (0.52, (165, 231, 62)),
    (0.68, (31, 200, 190)),
    (0.84, (64, 120, 240)),
    (1.0, (48, 38, 120)),
)
"""From near to far, after Google's Turbo: red is close."""


@lru_cache(maxsize=8)
def _palette(near_m: float, far_m: float) -> NDArray[np.uint8]:
    """Return the colour of every distance in mm, (65536, 3): logarithmic, for what is near matters most."""
    distance_m = np.maximum(np.arange(65536), 1) / 1000
    share = np.clip(np.log(distance_m / near_m) / math.log(far_m / near_m), 0, 1)
    at = [stop for stop, _ in _STOPS]
    channels = [np.interp(share, at, [colour[channel] for _, colour in _STOPS]) for channel in range(3)]
    palette = np.stack(channels, axis=1).astype(np.uint8)
    palette[0] = _UNKNOWN
    return palette


def depth_colours(depth_mm: NDArray[np.uint16], camera: Camera) -> NDArray[np.uint8]:
    """Return (H, W, 3) colours of (H, W) distances in mm: red is near, dark blue as far as it sees, grey unknown."""
    return np.take(_palette(camera.depth_near_m, camera.depth_max_m), depth_mm, axis=0)
