"""A file in memory with two records: its owner makes it and writes one, its guest opens it and writes the other."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import stat
import tempfile
from pathlib import Path

from policyloop.errors import PolicyloopError, SafetyRefusal, StorageError, UsageError, VerificationError
from policyloop.robot.bridge.header import MAGIC, Header
from policyloop.robot.bridge.record import RecordReader, RecordWriter

__all__ = ["SharedFile", "shared_path"]

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LARGEST_HEADER = 16_384


def shared_path(robot: str) -> Path:
    """Return where this user's file for a robot is unless it is said otherwise."""
    name = re.sub(r"[^a-z0-9._-]", "-", robot.lower())
    return Path("/dev/shm") / f"policyloop-{os.getuid()}-{name}"  # noqa: S108  # owner and mode are checked


class SharedFile:
    """A mapped file: `create` makes its owner's side, `open` its guest's.

    Attributes:
        header: What both sides have agreed about.
        reader: Of the other side's record.
        writer: Of this side's record.
    """

    def __init__(self, fd: int, header: Header, *, owner: bool) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, header.file_bytes)
        self._memory = memoryview(self._map)
        self.header = header
        records = [(header.owner_offset, header.owner_floats), (header.guest_offset, header.guest_floats)]
        (mine, mine_floats), (other, other_floats) = records if owner else reversed(records)
        self.writer = RecordWriter(self._memory[mine:], mine_floats)
        self.reader = RecordReader(self._memory[other:], other_floats)

    @classmethod
    def create(cls, path: Path, header: Header) -> SharedFile:
        """Make the file, or go on with one that has the very same header, so that the guest's mapping stays valid.

        Another bridge's file at `path` is replaced by renaming: whoever has mapped it sees it become stale.

        Raises:
            SafetyRefusal: The file is another user's, or others may open it.
            StorageError: It cannot be made.
            UsageError: Another program serves it, or it holds something else.
        """
        try:
            _check_folder(path.parent)
            fd = _lock(path)
            try:
                found = _header_of(fd)
                if os.pread(fd, len(MAGIC), 0) not in (b"", MAGIC):
                    raise UsageError(f"{path} is there, and is no bridge's file", "give another path")
                if found is None or found.encode() != header.encode():
                    fd = _replace(path, fd, header)
                return cls(fd, header, owner=True)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise _storage_error(path, error) from error

    @classmethod
    def open(cls, path: Path) -> SharedFile:
        """Open a file that its owner has made.

        Raises:
            SafetyRefusal: The file is another user's, or others may open it.
            StorageError: There is none, or it cannot be read.
            VerificationError: It is damaged.
        """
        try:
            fd = os.open(path, _FLAGS)
            try:
                _check_owner(fd, path)
                header = _header_of(fd)
                if header is None:
                    raise VerificationError(f"{path} is no bridge's file, or damaged", "start its owner again")
                return cls(fd, header, owner=False)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise _storage_error(path, error) from error

    def close(self) -> None:
        """Let go of the file; it stays, so that the guest's mapping is valid when the owner comes back."""
        self.writer.close()
        self.reader.close()
        self._memory.release()
        self._map.close()
        os.close(self._fd)


def _storage_error(path: Path, error: OSError) -> PolicyloopError:
    return StorageError(f"cannot use {path}: {error.strerror or error}", "check the path, and who owns it")


def _check_folder(folder: Path) -> None:
    about = folder.stat()
    if about.st_uid not in (os.getuid(), 0) or (about.st_mode & 0o022 and not about.st_mode & stat.S_ISVTX):
        raise SafetyRefusal(f"others may rename files in {folder}", "choose a folder of your own, or /dev/shm")


def _check_owner(fd: int, path: Path) -> None:
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise SafetyRefusal(f"{path} is no regular file", "choose another path")
    if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077:
        raise SafetyRefusal(f"{path} is another user's, or others may open it", "remove it, or choose another path")


def _lock(path: Path) -> int:
    """Open or make the file and lock it; what is locked is what the name stands for, whoever renames meanwhile."""
    while True:
        fd = os.open(path, _FLAGS | os.O_CREAT, 0o600)
        try:
            _check_owner(fd, path)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                return fd
        except BlockingIOError as error:
            os.close(fd)
            raise UsageError(f"another program serves {path}", "stop it, or give another path") from error
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _header_of(fd: int) -> Header | None:
    """Return the header if the file is whole."""
    try:
        header = Header.decode(os.pread(fd, _LARGEST_HEADER, 0))
    except VerificationError:
        return None
    return header if os.fstat(fd).st_size == header.file_bytes else None


def _replace(path: Path, fd: int, header: Header) -> int:
    """Put an empty file with this header in the place of the one that is locked; returns it, locked as well."""
    fresh, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        fcntl.flock(fresh, fcntl.LOCK_EX)
        # Now, and not when the first record is written: a full disk then would be a SIGBUS.
        os.posix_fallocate(fresh, 0, header.file_bytes)
        data = header.encode()
        if os.pwrite(fresh, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        Path(name).replace(path)
    except BaseException:
        os.close(fresh)
        Path(name).unlink(missing_ok=True)
        raise
    os.close(fd)
    return fresh
