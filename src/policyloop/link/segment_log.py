"""An append-only log of records in numbered segment files: the robot's Spool and the trainer's Journal.

Layout: `<first record number, 12 digits>.seg`, each an 8-byte magic and then records of
`u32le length, u32le CRC-32C, bytes`. A torn or damaged tail is cut off when the log is opened for
writing; a reader stops before it. One process writes; any number read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from policyloop.errors import StorageError

__all__ = ["SegmentLog"]

_MAGIC = b"PLSEG01\n"
_HEADER = struct.Struct("<II")
_MAX_RECORD_BYTES = 64 << 20


class _Segment:
    """One file and the offsets of its records."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.offsets = array("Q")
        self.end = len(_MAGIC)
        self.fd = -1

    @property
    def next(self) -> int:
        return self.first + len(self.offsets)

    def scan(self) -> None:
        """Take in whatever intact records stand behind those already known."""
        size = os.fstat(self.fd).st_size
        if self.end == len(_MAGIC) and os.pread(self.fd, len(_MAGIC), 0) != _MAGIC:
            return
        while self.end + _HEADER.size <= size:
            length, checksum = _HEADER.unpack(os.pread(self.fd, _HEADER.size, self.end))
            start = self.end + _HEADER.size
            if not 0 < length <= _MAX_RECORD_BYTES or start + length > size:
                return
            if google_crc32c.value(os.pread(self.fd, length, start)) != checksum:
                return
            self.offsets.append(self.end)
            self.end = start + length

    def read(self, index: int) -> bytes:
        """Return one record; StorageError if it was damaged since it was written."""
        offset = self.offsets[index - self.first]
        length, checksum = _HEADER.unpack(os.pread(self.fd, _HEADER.size, offset))
        payload = os.pread(self.fd, length, offset + _HEADER.size)
        if google_crc32c.value(payload) != checksum:
            raise StorageError(f"{self.path}: record {index} is damaged")
        return payload


class SegmentLog:
    """Records numbered from 0, in order, on disk.

    Args:
        directory: Created if missing (when writing).
        writable: Take the writer's lock and repair the tail.
        segment_bytes: A new file begins once one is this large.

    Raises:
        StorageError: Another process writes here, or the disk refuses.
    """

    def __init__(self, directory: Path, *, writable: bool, segment_bytes: int = 64 << 20) -> None:
        self.directory = directory
        self._writable = writable
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._lock_fd = -1
        if writable:
            self._take_lock()
        elif not directory.is_dir():
            raise StorageError(f"no log at {directory}", "check the path")
        self.refresh()
        if writable:
            self._repair()

    def _take_lock(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _storage_error(self.directory, error) from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock_fd)
            raise StorageError(f"{self.directory} is being written by another process", "stop it first") from None

    def refresh(self) -> None:
        """Take in what a writer in another process has appended."""
        known = {segment.first for segment in self._segments}
        for path in sorted(self.directory.glob("*.seg")):
            if path.stem.isdigit() and int(path.stem) not in known:
                self._open(path, int(path.stem))
        if self._segments:
            for segment in self._segments[max(len(known) - 1, 0) :]:
                segment.scan()

    def _open(self, path: Path, first: int) -> None:
        segment = _Segment(path, first)
        flags = (os.O_RDWR if self._writable else os.O_RDONLY) | os.O_CLOEXEC
        segment.fd = os.open(path, flags)
        self._segments.append(segment)

    def _repair(self) -> None:
        """Cut the torn tail of the last segment, so that the next record follows the last intact one."""
        if not self._segments:
            return
        last = self._segments[-1]
        if last.end == len(_MAGIC):
            os.pwrite(last.fd, _MAGIC, 0)
        os.ftruncate(last.fd, last.end)

    @property
    def first(self) -> int:
        """Number of the oldest record that is still here."""
        return self._segments[0].first if self._segments else 0

    @property
    def next(self) -> int:
        """Number that the next record will get."""
        return self._segments[-1].next if self._segments else 0

    @property
    def unreadable_bytes(self) -> int:
        """Bytes behind the last intact record of each segment: a torn tail, or damage that hides what follows."""
        return sum(os.fstat(segment.fd).st_size - segment.end for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(segment.end for segment in self._segments)

    def append(self, payload: bytes) -> int:
        """Write one record and return its number; it is durable after `sync`.

        Raises:
            StorageError: The disk is full or refuses; the log is as it was before.
        """
        if not 0 < len(payload) <= _MAX_RECORD_BYTES:
            raise StorageError(f"a record of {len(payload)} bytes, expected 1 to {_MAX_RECORD_BYTES}")
        segment = self._segments[-1] if self._segments else None
        try:
            if segment is None or segment.end >= self._segment_bytes:
                segment = self._begin_segment()
            data = _HEADER.pack(len(payload), google_crc32c.value(payload)) + payload
            written = os.pwrite(segment.fd, data, segment.end)
            if written != len(data):
                raise OSError(errno.ENOSPC, "no space left on device")
        except OSError as error:
            if segment is not None:
                os.ftruncate(segment.fd, segment.end)
            raise _storage_error(self.directory, error) from error
        segment.offsets.append(segment.end)
        segment.end += len(data)
        return segment.next - 1

    def _begin_segment(self) -> _Segment:
        if self._segments:
            self.sync()
        path = self.directory / f"{self.next:012d}.seg"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            if os.write(fd, _MAGIC) != len(_MAGIC):
                raise OSError(errno.ENOSPC, "no space left on device")
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        segment = _Segment(path, self.next)
        segment.fd = fd
        self._segments.append(segment)
        return segment

    def sync(self) -> None:
        """Make every appended record durable."""
        if self._segments:
            try:
                os.fdatasync(self._segments[-1].fd)
            except OSError as error:
                raise _storage_error(self.directory, error) from error

    def read(self, index: int) -> bytes:
        """Return record `index`; IndexError if it is not here."""
        for segment in reversed(self._segments):
            if segment.first <= index < segment.next:
                return segment.read(index)
        if self.first <= index < self.next:
            raise StorageError(f"{self.directory}: record {index} was lost to damage")
        raise IndexError(index)

    def __iter__(self) -> Iterator[bytes]:
        for index in range(self.first, self.next):
            yield self.read(index)

    def drop_before(self, index: int) -> None:
        """Delete every whole segment whose records all come before `index`, except the last one."""
        while len(self._segments) > 1 and self._segments[0].next <= index:
            segment = self._segments.pop(0)
            os.close(segment.fd)
            segment.path.unlink()

    def close(self) -> None:
        """Sync and release the files."""
        if self._writable and self._segments:
            self.sync()
        for segment in self._segments:
            os.close(segment.fd)
        self._segments = []
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _storage_error(path: Path, error: OSError) -> StorageError:
    remedy = "free some space; nothing that was stored is lost" if error.errno == errno.ENOSPC else ""
    return StorageError(f"cannot write to {path}: {error.strerror}", remedy)
