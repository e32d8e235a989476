"""One record in shared memory, written by one side and read by the other: a seqlock with a checksum. Never blocks.

The writer makes the lock odd, writes, and makes it even; a reader takes what it copied between two equal even locks.
Python cannot issue a memory barrier, and an aarch64 core may make stores visible in another order than they were
done in: the CRC-32 over everything but the lock makes a torn record detectable whatever the order.
"""

from __future__ import annotations

import math
import struct
import time
import zlib
from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.robot.bridge.header import record_bytes

__all__ = ["DRIVE", "IN_POLICY_MODE", "Record", "RecordReader", "RecordWriter", "representable"]

DRIVE = 1
"""Flag of a command: drive; without it, damp."""
IN_POLICY_MODE = 1
"""Flag of a state: the controller does what the policy says."""

_BODY = 8
"""The lock is in front of it."""
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<IQqI4x")
"""Behind the checksum, which covers it and the floats: count, counter, time, flags."""
_TRIES = 4
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_WORD = 0xFFFF_FFFF_FFFF_FFFF


class Record(msgspec.Struct, frozen=True):
    """What one side tells the other.

    Attributes:
        counter: Larger in every record than in the one before.
        time_ns: CLOCK_MONOTONIC; of capture (states), or until when it is valid (commands).
        flags: 32 bits.
        values: float32.
    """

    counter: int
    time_ns: int
    flags: int
    values: NDArray[np.float32]


class RecordReader:
    """Reads what the other side writes.

    Args:
        memory: That of the record.
        floats: How many it has.
    """

    def __init__(self, memory: memoryview, floats: int) -> None:
        self._floats = floats
        self._memory = memory[: record_bytes(floats)]
        self._lock = self._memory[:_BODY].cast("Q")
        self._body = self._memory[_BODY : _BODY + _CRC.size + _HEAD.size + 4 * floats]

    def read(self) -> Record | None:
        """Return the newest record; None if there is none, or it is being written or torn after a few tries."""
        for _ in range(_TRIES):
            before = self._lock[0]
            if before & 1:
                continue
            body = bytes(self._body)
            if self._lock[0] != before:
                continue
            record = _decode(body, self._floats)
            if record is not None:
                return record
        return None

    def close(self) -> None:
        """Let go of the memory."""
        for view in (self._lock, self._body, self._memory):
            view.release()


class RecordWriter:
    """Writes what the other side reads; of one thread. Goes on where a killed writer left off.

    Args:
        memory: That of the record.
        floats: How many it has.
    """

    def __init__(self, memory: memoryview, floats: int) -> None:
        self._floats = floats
        # One call packs everything: a controller waits for this, and Python is slow when it has slept for a tick.
        self._covered = struct.Struct(f"{_HEAD.format}{floats}f")
        self._memory = memory[: record_bytes(floats)]
        self._lock = self._memory[:_BODY].cast("Q")
        self._body = self._memory[_BODY : _BODY + _CRC.size + self._covered.size]
        left = _decode(bytes(self._body), floats)
        # The clock runs faster than anybody writes: above whatever a killed writer counted to, even if that is torn.
        self._counter = max(time.monotonic_ns(), left.counter if left is not None else 0)

    def write(self, time_ns: int, flags: int, values: Iterable[float]) -> None:
        """Write the next record.

        Raises:
            ValueError: `values` are not as many numbers as the record has, or a float32 cannot hold one.
        """
        self._counter += 1
        try:
            covered = self._covered.pack(self._floats, self._counter, time_ns, flags, *values)
        except (struct.error, OverflowError, TypeError) as error:
            raise ValueError(f"no {self._floats} numbers: {error}") from error
        odd = (self._lock[0] + 1 | 1) & _WORD  # also if a killed writer left it odd
        self._lock[0] = odd
        self._body[:] = _CRC.pack(zlib.crc32(covered)) + covered
        self._lock[0] = (odd + 1) & _WORD

    def close(self) -> None:
        """Let go of the memory, after the last write."""
        for view in (self._lock, self._body, self._memory):
            view.release()


def representable(values: tuple[float, ...], floats: int) -> bool:
    """Tell whether these are `floats` numbers that a float32 can hold."""
    if len(values) != floats or not math.isfinite(sum(values)):
        return False
    return min(values) >= -_LARGEST_FLOAT and max(values) <= _LARGEST_FLOAT


def _decode(body: bytes, floats: int) -> Record | None:
    count, counter, time_ns, flags = _HEAD.unpack_from(body, _CRC.size)
    if counter == 0 or count != floats or zlib.crc32(body[_CRC.size :]) != _CRC.unpack_from(body)[0]:
        return None
    values = np.frombuffer(body, "<f4", floats, _CRC.size + _HEAD.size).astype(np.float32)
    return Record(counter, time_ns, flags, values)
