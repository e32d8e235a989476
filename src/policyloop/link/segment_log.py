r"""An append-only log of records in numbered segment files: the robot's Spool and the trainer's Journal.

Layout: `<first record number, 12 digits>.seg`, each an 8-byte magic and then records of

    u8[4] marker "\xf5REC", u32le CRC-32C of all that follows, u32le length, u64le number, bytes

A torn tail is cut off when the log is opened for writing; a reader stops before it. Damage further
up costs the records that it hits and no others: the next marker with a fitting checksum goes on,
and its number tells how many are missing. One process writes; any number read.
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

from policyloop.core.files import sync_directory
from policyloop.errors import IncompatibleError, StorageError

__all__ = ["SegmentLog"]

_MAGIC = b"PLSEG02\n"
_MARKER = b"\xf5REC"
_HEADER = struct.Struct("<4sIIQ")
_CHECKED_FROM = 8
"""Marker and checksum are not under the checksum."""
_MAX_RECORD_BYTES = 64 << 20
_DAMAGED = 0
"""In place of an offset: the record with this number cannot be read."""


def _encode(number: int, payload: bytes) -> bytes:
    body = _HEADER.pack(_MARKER, 0, len(payload), number)[_CHECKED_FROM:] + payload
    return _MARKER + struct.pack("<I", google_crc32c.value(body)) + body


class _Segment:
    """One file and the offsets of its records."""

    def __init__(self, path: Path, first: int, *, writable: bool) -> None:
        self.path = path
        self.first = first
        self.offsets = array("Q")
        self.end = len(_MAGIC)
        self.skipped_bytes = 0
        self.fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    @property
    def next(self) -> int:
        return self.first + len(self.offsets)

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def scan(self, *, sealed: bool) -> None:
        """Take in whatever intact records stand behind those already known.

        Of a sealed segment, which was synced long ago, only the chain of heads is followed; `read` checks the rest.

        Raises:
            IncompatibleError: Another version wrote this file.
        """
        size = self.size
        while self.end < size:
            found = self._at(self.end, size, check=not sealed) or self._resume(size)
            if found is None:
                break
            offset, number, length = found
            self.skipped_bytes += offset - self.end
            self.offsets.extend([_DAMAGED] * (number - self.next))
            self.offsets.append(offset)
            self.end = offset + _HEADER.size + length
        magic = b"" if self.offsets else os.pread(self.fd, len(_MAGIC), 0)
        if magic[:5] == _MAGIC[:5] and magic[5:] != _MAGIC[5 : len(magic)]:
            raise IncompatibleError(f"{self.path} is of format {magic!r}", "read it with the version that wrote it")

    def _at(self, offset: int, size: int, *, check: bool = True) -> tuple[int, int, int] | None:
        """Return offset, number and length of a record at `offset` that may follow those known."""
        head = os.pread(self.fd, _HEADER.size, offset)
        if len(head) < _HEADER.size:
            return None
        marker, checksum, length, number = _HEADER.unpack(head)
        if marker != _MARKER or not 0 < length <= min(_MAX_RECORD_BYTES, size - offset - _HEADER.size):
            return None
        if not self.next <= number <= self.next + (offset - self.end) // _HEADER.size:
            return None  # no more records can be missing than the bytes between have room for
        if check or not self._leads_on(offset + _HEADER.size + length, number + 1, size):
            payload = os.pread(self.fd, length, offset + _HEADER.size)
            if google_crc32c.value(head[_CHECKED_FROM:] + payload) != checksum:
                return None
        return offset, number, length

    def _leads_on(self, offset: int, number: int, size: int) -> bool:
        """Tell whether the record with `number` begins at `offset`, or the file ends there."""
        head = os.pread(self.fd, _HEADER.size, offset)
        return offset == size or (len(head) == _HEADER.size and _HEADER.unpack(head)[::3] == (_MARKER, number))

    def _resume(self, size: int) -> tuple[int, int, int] | None:
        """Return the next intact record behind damage, or None: then this is the end, or a torn tail.

        A reader must not look beyond the `size` at which it began: a record that was half written then may be whole by
        now, with others behind it, and would pass for damage.
        """
        rest = os.pread(self.fd, size - self.end, self.end)
        if len(rest) >= _HEADER.size:  # most likely only the bytes of one record are damaged, not its length
            after = self.end + _HEADER.size + _HEADER.unpack_from(rest)[2]
            if after < size and (found := self._at(after, size)) is not None:
                return found
        place = rest.find(_MARKER, 1)
        while place >= 0:
            found = self._at(self.end + place, size)
            if found is not None:
                return found
            place = rest.find(_MARKER, place + 1)
        return None

    def read(self, number: int) -> bytes:
        """Return one record; StorageError if it is damaged."""
        offset = self.offsets[number - self.first]
        if offset != _DAMAGED:
            head = os.pread(self.fd, _HEADER.size, offset)
            _, checksum, length, found = _HEADER.unpack(head)
            payload = os.pread(self.fd, min(length, _MAX_RECORD_BYTES), offset + _HEADER.size)
            if found == number and google_crc32c.value(head[_CHECKED_FROM:] + payload) == checksum:
                return payload
        raise StorageError(f"{self.path}: record {number} is damaged")


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
                self._segments.append(_Segment(path, int(path.stem), writable=self._writable))
        for segment in self._segments[max(len(known) - 1, 0) :]:
            segment.scan(sealed=segment is not self._segments[-1])

    def _repair(self) -> None:
        """Cut the torn tail of the last segment, so that the next record follows the last intact one."""
        if not self._segments:
            return
        last = self._segments[-1]
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
        """Bytes that belong to no intact record: damage between two of them, and a torn tail."""
        return sum(segment.skipped_bytes + segment.size - segment.end for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(segment.end for segment in self._segments)

    @property
    def segments(self) -> int:
        """Number of files."""
        return len(self._segments)

    def segment_end(self, index: int) -> int:
        """Return the number behind the last record of the segment that holds record `index`."""
        return next(segment.next for segment in self._segments if index < segment.next)

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
            data = _encode(segment.next, payload)
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
        os.close(fd)
        segment = _Segment(path, self.next, writable=True)
        self._segments.append(segment)
        sync_directory(self.directory)
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
    if error.errno == errno.ENOSPC:
        return StorageError(
            f"cannot write {path}: {error.strerror}", "free some space; nothing that was stored is lost"
        )
    return StorageError.cannot_write(path, error)
