"""Depth on the wire: every uint16 picture comes back exactly, in about two thirds of RVL's bytes.

A stereo camera measures disparity in steps, so a picture holds few distinct distances; their *ranks*
are small numbers with even noise. Where nothing was measured is sent as a mask of bits, and
prediction goes across such holes: a hole takes the value to its left. Each value is predicted from
its neighbours (left + up - upper left, or left alone), what remains is Huffman-coded. Which of the four
combinations fits a picture best is estimated on a sample of its rows.

Small pictures do not repay that effort. They take the plain form: u8 0x01, then one zstandard frame
of the low bytes and then the high bytes of the u16 zigzag differences to the left neighbour.

Layout of the predicted form, little-endian: u8 form (0x10, + 1: ranks, + 2: both neighbours), u32
lengths of mask, table, small and large; then those four:

    mask    zstandard of one bit per pixel, most significant first: 1 = measured
    table   zstandard of u16 differences of the distinct values in ascending order; empty without ranks
    small   raw deflate of one byte per measured pixel: min(zigzag(residual), 255)
    large   zstandard of the u16 zigzag residuals of those that are 255

All arithmetic is modulo 65536. Sizes are checked before anything is unpacked.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from policyloop.errors import WireError

__all__ = ["pack_depth", "unpack_depth"]

_PLAIN, _PREDICTED, _RANKS, _BOTH = 0x01, 0x10, 0x01, 0x02
_HEAD = struct.Struct("<B4I")
_LEVEL = 1
_PLAIN_BELOW_PIXELS = 16_384
_SAMPLE_EVERY = 8

_U16 = NDArray[np.uint16]
_Mask = NDArray[np.bool_]


def pack_depth(depth_mm: _U16) -> bytes:
    """Encode (H, W) uint16, losslessly; 0 = no measurement."""
    if depth_mm.size < _PLAIN_BELOW_PIXELS:
        return bytes([_PLAIN]) + _compress(_planes(_zigzag(_left(depth_mm))))
    valid = depth_mm != 0
    values, table = _ranks(depth_mm)
    form = _PREDICTED | _RANKS
    if _cost(values, valid) + 8 * len(table) > _cost(depth_mm, valid):
        values, table, form = depth_mm, table[:0], _PREDICTED
    horizontal = _horizontal(values, valid)
    both = _vertical(horizontal)
    sample = slice(None, None, _SAMPLE_EVERY)
    if _bits(both[sample][valid[sample]]) < _bits(horizontal[sample][valid[sample]]):
        form |= _BOTH
        horizontal = both
    zigzag = _zigzag(horizontal[valid])
    parts = (
        _compress(np.packbits(valid).tobytes()),
        _compress(np.diff(table, prepend=np.uint16(0)).astype("<u2").tobytes()),
        _huffman(np.minimum(zigzag, 255).astype(np.uint8).tobytes()),
        _compress(zigzag[zigzag >= 255].astype("<u2").tobytes()),
    )
    return _HEAD.pack(form, *map(len, parts)) + b"".join(parts)


def unpack_depth(data: bytes | memoryview, shape: tuple[int, ...]) -> _U16:
    """Decode depth of exactly `shape` (H, W); WireError `bad-depth` if it is anything else."""
    data = bytes(data)
    height, width = shape
    if data[:1] == bytes([_PLAIN]):
        planes = np.frombuffer(_decompress(data[1:], 2 * height * width, "planes"), np.uint8).reshape(2, -1)
        differences = _unzigzag(planes[0] | (planes[1].astype(np.uint16) << 8))
        return np.cumsum(differences.reshape(height, width), axis=1, dtype=np.uint16)
    form, parts = _split(data)
    mask = np.frombuffer(_decompress(parts[0], (height * width + 7) // 8, "mask"), np.uint8)
    valid = np.unpackbits(mask, count=height * width).view(np.bool_).reshape(height, width)
    count = int(np.count_nonzero(valid))
    table = _table(parts[1]) if form & _RANKS else None
    small = np.frombuffer(_unhuffman(parts[2], count), np.uint8)
    zigzag = small.astype(np.uint16)
    escaped = small == 255
    large = _decompress(parts[3], 2 * int(np.count_nonzero(escaped)), "large residuals")
    zigzag[escaped] = np.frombuffer(large, "<u2")
    residual = np.zeros((height, width), np.uint16)
    residual[valid] = _unzigzag(zigzag)
    if form & _BOTH:
        _undo_vertical(residual, valid)
    values = np.cumsum(residual, axis=1, dtype=np.uint16)
    if table is not None:
        if count and int(values[valid].max()) >= len(table):
            raise WireError("bad-depth", f"a rank of {values[valid].max()} in a table of {len(table)}")
        values = table[np.where(valid, values, 0)] if len(table) else values
    return np.where(valid, values, np.uint16(0))


def _zigzag(difference: _U16) -> _U16:
    """Map 0, -1, 1, -2, ... to 0, 1, 2, 3, ..."""
    signed = difference.view(np.int16)
    return ((signed << 1) ^ (signed >> 15)).view(np.uint16)


def _unzigzag(code: _U16) -> _U16:
    return (code >> np.uint16(1)) ^ -(code & np.uint16(1))


def _left(values: _U16) -> _U16:
    """Return each value's difference to its left neighbour."""
    difference = values.copy()
    difference[:, 1:] -= values[:, :-1]
    return difference


def _planes(codes: _U16) -> bytes:
    """Return all low bytes, then all high bytes."""
    return codes.astype("<u2").reshape(-1, 1).view(np.uint8).T.tobytes()


def _ranks(depth_mm: _U16) -> tuple[_U16, _U16]:
    """Return each pixel's place among the distinct values, (H, W), and these, ascending; holes have place 0."""
    present = np.zeros(65536, np.bool_)
    present[depth_mm.ravel()] = True
    present[0] = False
    place = np.cumsum(present, dtype=np.uint16) - np.uint16(1)
    place[0] = 0
    return place[depth_mm], np.flatnonzero(present).astype(np.uint16)


def _horizontal(values: _U16, valid: _Mask) -> _U16:
    """Return each value's difference to the nearest measured one on its left; 0 in holes and before the first."""
    columns = np.where(valid, np.arange(values.shape[1], dtype=np.int32), -1)
    np.maximum.accumulate(columns, axis=1, out=columns)
    filled = np.take_along_axis(values, np.maximum(columns, 0), axis=1)
    filled[columns < 0] = 0
    return _left(filled)


def _vertical(horizontal: _U16) -> _U16:
    """Return the differences of the differences: what left + up - upper left leaves."""
    both = horizontal.copy()
    both[1:] -= horizontal[:-1]
    return both


def _undo_vertical(residual: _U16, valid: _Mask) -> None:
    """Turn the residuals of left + up - upper left into horizontal differences, in place."""
    for row in range(1, len(residual)):
        residual[row] += residual[row - 1]
        residual[row] *= valid[row]  # a hole takes the value to its left


def _cost(values: _U16, valid: _Mask) -> float:
    """Estimate the bits of all residuals from every eighth row."""
    rows = slice(None, None, _SAMPLE_EVERY)
    return _SAMPLE_EVERY * _bits(_horizontal(values[rows], valid[rows])[valid[rows]])


def _bits(residual: _U16) -> float:
    return float(np.log2(1 + np.abs(residual.view(np.int16).astype(np.float32))).sum())


def _compress(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL).compress(data) if data else b""


def _decompress(data: bytes, size: int, what: str) -> bytes:
    """Unpack exactly `size` bytes."""
    if size == 0 and not data:
        return b""
    try:
        claimed = zstandard.frame_content_size(data)
        if claimed != size:
            raise WireError("bad-depth", f"{what} unpack to {claimed} bytes, expected {size}")
        unpacked = zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise WireError("bad-depth", f"broken {what}: {error}") from None
    if len(unpacked) != size:
        raise WireError("bad-depth", f"{what} unpacked to {len(unpacked)} bytes, expected {size}")
    return unpacked


def _huffman(data: bytes) -> bytes:
    """Code noise: there are no repetitions to be found."""
    coder: Any = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return bytes(coder.compress(data) + coder.flush())


def _unhuffman(data: bytes, size: int) -> bytes:
    """Unpack exactly `size` bytes."""
    decoder: Any = zlib.decompressobj(-15)
    try:
        unpacked = bytes(decoder.decompress(data, size + 1))  # never more than one byte too many
    except zlib.error as error:
        raise WireError("bad-depth", f"broken residuals: {error}") from None
    if len(unpacked) != size or not decoder.eof or decoder.unused_data:
        raise WireError("bad-depth", f"the residuals are not those of {size} pixels")
    return unpacked


def _table(data: bytes) -> _U16:
    """Unpack the distinct values; they must ascend."""
    try:
        size = zstandard.frame_content_size(data) if data else 0
    except zstandard.ZstdError as error:
        raise WireError("bad-depth", f"broken table: {error}") from None
    if not 0 <= size <= 2 * 65535 or size % 2:
        raise WireError("bad-depth", f"a table of {size} bytes")
    steps = np.frombuffer(_decompress(data, size, "table"), "<u2")
    if len(steps) and (steps.min() == 0 or int(steps.sum(dtype=np.int64)) > 65535):
        raise WireError("bad-depth", "the table does not ascend")
    return np.cumsum(steps, dtype=np.uint16)


def _split(data: bytes) -> tuple[int, list[bytes]]:
    if len(data) < _HEAD.size or data[0] & ~(_RANKS | _BOTH) != _PREDICTED:
        raise WireError("bad-depth", f"unknown depth form {data[:1].hex() or 'empty'}")
    form, *lengths = _HEAD.unpack_from(data)
    if _HEAD.size + sum(lengths) != len(data):
        raise WireError("bad-depth", f"parts of {sum(lengths)} bytes in {len(data) - _HEAD.size}")
    parts, start = [], _HEAD.size
    for length in lengths:
        parts.append(data[start : start + length])
        start += length
    return form, parts
