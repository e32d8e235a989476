"""The header of a shared file: written once, checked by both sides before a number is believed. See docs/bridge.md."""

from __future__ import annotations

import struct
import zlib

import msgspec
import numpy as np

from policyloop.errors import ConfigError, VerificationError

__all__ = ["LONGEST_VALIDITY_NS", "MAGIC", "MOST_FLOATS", "Header", "record_bytes"]

LONGEST_VALIDITY_NS = 100_000_000
"""No command over the bridge is valid for longer, whatever it says."""
MOST_FLOATS = 1024
"""Of a record, in either direction."""

MAGIC, _VERSION = b"PLOOPBRG", 1
_FIXED = struct.Struct("<8sII4Iq24x32s32x")
_COVERED = 16
"""The checksum covers everything behind itself; magic and version are compared as they are."""
_ALIGNMENT = 64
_LARGEST = float(np.finfo(np.float32).max)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def record_bytes(floats: int) -> int:
    """Return the size of a record with so many floats, bytes."""
    return _aligned(40 + 4 * floats)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides must agree about.

    Attributes:
        owner_floats: Of a record that the file's owner writes, 1..1024.
        guest_floats: Of a record that the other side writes, 1..1024.
        digest: The robot profile's, 32 bytes; zeros where there is none.
        kp: N m/rad of each joint, which the policy was made for; empty, or `owner_floats` of them.
        kd: N m s/rad of each joint.
        pose: rad of each joint, where the policy starts from.
        longest_validity_ns: No command claims more.
    """

    owner_floats: int
    guest_floats: int
    digest: bytes = bytes(32)
    kp: tuple[float, ...] = ()
    kd: tuple[float, ...] = ()
    pose: tuple[float, ...] = ()
    longest_validity_ns: int = LONGEST_VALIDITY_NS

    def __post_init__(self) -> None:
        for name in ("owner_floats", "guest_floats"):
            if not 1 <= getattr(self, name) <= MOST_FLOATS:
                raise ConfigError(f"{name} is {getattr(self, name)}", f"the bridge carries 1 to {MOST_FLOATS} numbers")
        if len(self.digest) != 32:
            raise ConfigError(f"a digest of {len(self.digest)} bytes", "it has 32")
        if not 0 < self.longest_validity_ns <= LONGEST_VALIDITY_NS:
            raise ConfigError(f"longest_validity_ns is {self.longest_validity_ns}", f"at most {LONGEST_VALIDITY_NS}")
        for name in ("kp", "kd", "pose"):
            values = np.array(getattr(self, name), np.float64)
            if len(values) not in (0, self.owner_floats) or len(values) != len(self.kp):
                raise ConfigError(f"{name} has {len(values)} entries", f"one for each of {self.owner_floats} joints")
            if not (np.abs(values) <= _LARGEST).all() or (name != "pose" and (values < 0).any()):
                raise ConfigError(f"{name} {getattr(self, name)}", "numbers are finite, and gains not negative")

    @property
    def owner_offset(self) -> int:
        """Where the owner's record begins, bytes."""
        return _FIXED.size + _aligned(12 * len(self.kp))

    @property
    def guest_offset(self) -> int:
        """Where the guest's record begins, bytes."""
        return self.owner_offset + record_bytes(self.owner_floats)

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.guest_offset + record_bytes(self.guest_floats)

    def encode(self) -> bytes:
        """Return the bytes in front of the first record."""
        joints = np.array([*self.kp, *self.kd, *self.pose], "<f4").tobytes()
        sizes = (self.owner_floats, self.guest_floats, len(self.kp), 0)
        data = _FIXED.pack(MAGIC, _VERSION, 0, *sizes, self.longest_validity_ns, self.digest) + joints
        data = data.ljust(self.owner_offset, b"\0")
        return data[:12] + struct.pack("<I", zlib.crc32(data[_COVERED:])) + data[_COVERED:]

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Return the header that a file begins with.

        Raises:
            VerificationError: It is of another kind or version, or damaged.
        """
        if len(data) < _FIXED.size:
            raise VerificationError(f"a bridge's file of {len(data)} bytes has no header")
        magic, version, _, owner, guest, joints, _, longest_ns, digest = _FIXED.unpack_from(data)
        if magic != MAGIC or version != _VERSION:
            raise VerificationError(f"no bridge's file of layout {_VERSION}: {magic!r}, layout {version}")
        values: list[float] = []
        if joints <= MOST_FLOATS and len(data) >= _FIXED.size + 12 * joints:
            values = np.frombuffer(data, "<f4", 3 * joints, _FIXED.size).tolist()
        kp, kd, pose = (tuple(values[at * joints : (at + 1) * joints]) for at in range(3))
        try:
            header = cls(
                owner_floats=owner,
                guest_floats=guest,
                digest=digest,
                kp=kp,
                kd=kd,
                pose=pose,
                longest_validity_ns=longest_ns,
            )
        except ConfigError as error:
            raise VerificationError(f"the header of a bridge's file is damaged: {error}") from error
        if header.encode() != data[: header.owner_offset]:
            raise VerificationError("the header of a bridge's file is damaged")
        return header
