"""Colour pictures on the wire: JPEG or raw. Sizes are checked before anything is decoded."""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from policyloop.core.profile import Stream
from policyloop.errors import WireError

__all__ = ["JPEG_END", "JPEG_START", "pack_rgb", "unpack_rgb"]

JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"


def pack_rgb(rgb: NDArray[np.uint8], stream: Stream) -> bytes:
    """Encode (H, W, 3) uint8 as the profile's stream says."""
    if stream.rgb_encoding == "raw":
        return rgb.tobytes()
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=stream.jpeg_quality, colorspace="RGB"))


def unpack_rgb(data: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Decode a picture of exactly `shape` (H, W, 3); WireError `bad-rgb` otherwise."""
    data = bytes(data)
    whole_jpeg = data.startswith(JPEG_START) and data.endswith(JPEG_END)
    if len(data) == int(np.prod(shape)) and not whole_jpeg:  # a raw picture may begin like a JPEG
        return np.frombuffer(data, np.uint8).reshape(shape)
    if not data.startswith(JPEG_START):
        raise WireError("bad-rgb", f"{len(data)} bytes are neither a JPEG nor a raw picture of {shape}")
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise WireError("bad-rgb", f"broken JPEG header: {error}") from None
    if (height, width) != shape[:2]:
        raise WireError("bad-rgb", f"JPEG of {width}x{height}, expected {shape[1]}x{shape[0]}")
    try:
        picture: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False)
    except ValueError as error:
        raise WireError("bad-rgb", f"broken JPEG: {error}") from None
    return picture
