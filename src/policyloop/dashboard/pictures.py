"""What a robot's camera saw, as JPEG: colour as it came, depth in colours."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.view.colours import depth_colours
from policyloop.wire.depth import unpack_depth
from policyloop.wire.rgb import unpack_rgb

__all__ = ["picture_message", "render"]

_QUALITY = 80


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
    depth = depth_colours(unpack_depth(encoded["depth"], shape), camera)
    rgb = unpack_rgb(encoded["rgb"], profile.observation_specs["rgb"].shape)
    return {"rgb": _jpeg(rgb), "depth": _jpeg(depth)}


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=_QUALITY, colorspace="RGB"))


def picture_message(robot: str, kind: str, position: int, jpeg: bytes) -> bytes:
    """Return a message for the page: u32le length, that much JSON saying what it is, the JPEG."""
    head = msgspec.json.encode({"robot": robot, "picture": kind, "position": position})
    return struct.pack("<I", len(head)) + head + jpeg
