"""Frames on a socket: a little-endian u32 n, and n float32. A reply with n = 0 says: no command, damp."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from policyloop.core.step import TimedCommand
from policyloop.errors import WireError
from policyloop.robot.bridge.record import representable

__all__ = ["DAMP", "FrameParser", "decode_frame", "encode_order"]

_COUNT = struct.Struct("<I")
DAMP = _COUNT.pack(0)
"""The reply that says: no command, damp."""


class FrameParser:
    """Collects one frame after the other from pieces; holds one at most.

    Args:
        floats: How many each frame has.
    """

    def __init__(self, floats: int) -> None:
        self._floats = floats
        self._data = bytearray()

    @property
    def begun(self) -> bool:
        """Whether a part of a frame is here."""
        return bool(self._data)

    @property
    def missing(self) -> int:
        """How many bytes to receive next, at most; the size of a frame is not believed before it is checked."""
        return (_COUNT.size if len(self._data) < _COUNT.size else _COUNT.size + 4 * self._floats) - len(self._data)

    def feed(self, data: bytes) -> NDArray[np.float32] | None:
        """Take up to `missing` bytes; returns the frame when it is whole.

        Raises:
            WireError: It has another number of floats, or these are more bytes than were asked for.
        """
        if len(data) > self.missing:
            raise WireError("frame", f"{len(data)} bytes where at most {self.missing} belong")
        self._data += data
        if len(self._data) == _COUNT.size:
            _check_count(bytes(self._data), self._floats)
        if len(self._data) < _COUNT.size + 4 * self._floats:
            return None
        values = decode_frame(bytes(self._data), self._floats)
        self._data.clear()
        return values


def decode_frame(data: bytes, floats: int) -> NDArray[np.float32]:
    """Return the numbers of a whole frame.

    Raises:
        WireError: It has another number of floats, or another size.
    """
    if len(data) < _COUNT.size:
        raise WireError("frame", f"{len(data)} bytes")
    _check_count(data, floats)
    if len(data) != _COUNT.size + 4 * floats:
        raise WireError("frame", f"{len(data)} bytes, expected {_COUNT.size + 4 * floats}")
    return np.frombuffer(data, "<f4", floats, _COUNT.size).astype(np.float32)


def _check_count(data: bytes, floats: int) -> None:
    (count,) = _COUNT.unpack_from(data)
    if count != floats:
        raise WireError("frame", f"{count} numbers, but this profile's state has {floats}: use the same profile")


def encode_order(order: TimedCommand, targets: int, now_ns: int) -> bytes:
    """Return the reply that a command means; what cannot be driven, or is too late, says that there is none."""
    values = order.command.values
    if order.command.damped or order.valid_until_ns <= now_ns or not representable(values, targets):
        return DAMP
    return _COUNT.pack(targets) + np.array(values, "<f4").tobytes()
