"""Pictures on the wire: RGB as JPEG or raw, depth lossless. Sizes are checked before anything is allocated.

Depth in millimetres goes through a left-neighbour difference, zigzag, two byte planes and
zstandard: exact for every uint16 image.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
import zstandard
from numpy.typing import NDArray

from policyloop.core.profile import Stream
from policyloop.errors import WireError

__all__ = ["pack_depth", "pack_rgb", "unpack_depth", "unpack_rgb"]

_JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
_DELTA_ZSTD = b"\x01"
"""First byte of a depth frame: the form it is coded in. Later forms take the next numbers."""

_COMPRESSION_LEVEL = 1


def pack_rgb(rgb: NDArray[np.uint8], stream: Stream) -> bytes:
    """Encode (H, W, 3) uint8 as the profile's stream says."""
    if stream.rgb_encoding == "raw":
        return rgb.tobytes()
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=stream.jpeg_quality, colorspace="RGB"))


def unpack_rgb(data: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Decode a picture of exactly `shape` (H, W, 3); WireError `bad-rgb` otherwise."""
    data = bytes(data)
    whole_jpeg = data.startswith(_JPEG_START) and data.endswith(JPEG_END)
    if len(data) == int(np.prod(shape)) and not whole_jpeg:  # a raw picture may begin like a JPEG
        return np.frombuffer(data, np.uint8).reshape(shape)
    if not data.startswith(_JPEG_START):
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


def pack_depth(depth_mm: NDArray[np.uint16]) -> bytes:
    """Encode (H, W) uint16, losslessly."""
    delta = depth_mm.copy()
    delta[:, 1:] -= depth_mm[:, :-1]
    signed = delta.view(np.int16)
    zigzag = ((signed << 1) ^ (signed >> 15)).view(np.uint16)
    planes = zigzag.astype("<u2").reshape(-1, 1).view(np.uint8).T.tobytes()
    return _DELTA_ZSTD + zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(planes)


def unpack_depth(data: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Decode depth of exactly `shape` (H, W); WireError `bad-depth` otherwise."""
    data = bytes(data)
    if data[:1] != _DELTA_ZSTD:
        raise WireError("bad-depth", f"unknown depth form {data[:1].hex() or 'empty'}")
    size = 2 * int(np.prod(shape))
    try:
        claimed = zstandard.frame_content_size(data[1:])
        if claimed != size:
            raise WireError("bad-depth", f"depth unpacks to {claimed} bytes, expected {size}")
        planes = zstandard.ZstdDecompressor().decompress(data[1:], max_output_size=size)
    except zstandard.ZstdError as error:
        raise WireError("bad-depth", f"broken zstandard frame: {error}") from None
    if len(planes) != size:
        raise WireError("bad-depth", f"depth unpacked to {len(planes)} bytes, expected {size}")
    zigzag = np.frombuffer(planes, np.uint8).reshape(2, -1).T.copy().view("<u2").astype(np.uint16).reshape(shape)
    delta = (zigzag >> 1) ^ (np.uint16(0) - (zigzag & 1))
    return np.cumsum(delta, axis=1, dtype=np.uint16)
