"""What a robot's camera saw, as JPEG: colour as it came, depth in colours."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.wire.depth import unpack_depth
from policyloop.wire.rgb import unpack_rgb

__all__ = ["depth_colours", "picture_message", "render"]

_QUALITY = 80
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


def depth_colours(depth_mm: NDArray[np.uint16], near_m: float, far_m: float) -> NDArray[np.uint8]:
    """Return (H, W, 3) colours of (H, W) distances in mm: red at `near_m`, dark blue at `far_m`, grey if unknown."""
    return np.take(_palette(near_m, far_m), depth_mm, axis=0)


def render(frames: Sequence[bytes], profile: RobotProfile) -> dict[str, bytes]:
    """Return `rgb` and `depth` of a step's encoded arrays as JPEG; nothing for a robot without a camera.

    Raises:
        WireError: They are damaged.
    """
    camera = profile.camera
    if camera is None:
        return {}
    encoded = dict(zip(profile.observation_specs, frames, strict=False))
    shape = profile.observation_specs["depth"].shape
    depth = depth_colours(unpack_depth(encoded["depth"], shape), camera.depth_near_m, camera.depth_max_m)
    rgb = unpack_rgb(encoded["rgb"], profile.observation_specs["rgb"].shape)
    return {"rgb": _jpeg(rgb), "depth": _jpeg(depth)}


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=_QUALITY, colorspace="RGB"))


def picture_message(robot: str, kind: str, position: int, jpeg: bytes) -> bytes:
    """Return a message for the page: u32le length, that much JSON saying what it is, the JPEG."""
    head = msgspec.json.encode({"robot": robot, "picture": kind, "position": position})
    return struct.pack("<I", len(head)) + head + jpeg
