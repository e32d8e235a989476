"""Files that are whole or not there: what a power cut leaves is the old state or the new one."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from policyloop.errors import StorageError, VerificationError

__all__ = ["read_file", "staged", "sync_directory", "write_directory", "write_file"]

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Linux's fcntl.h and stdio.h."""


def read_file(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of a file from anywhere.

    Raises:
        StorageError: There is none at `path`, or it cannot be read.
        VerificationError: It is larger than `limit_bytes`.
    """
    try:
        if path.exists() and not path.is_file():
            raise StorageError(f"{path} is no file", "check the path")
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", "check the path") from error
    if len(data) > limit_bytes:
        raise VerificationError(f"{path} is larger than {limit_bytes} bytes")
    return data


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a place to write to, which becomes the file `path`; whatever is raised, what was there stays.

    Raises:
        OSError: The disk refuses.
    """
    staging = path.with_name(f".{path.name}.new")
    try:
        yield staging
        staging.replace(path)
    finally:
        with suppress(OSError):
            staging.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write or replace one file.

    Raises:
        OSError: The disk refuses; what was at `path` is still there.
    """
    with staged(path) as staging:
        _write(staging, data)
    sync_directory(path.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap what two names stand for, in one step; False where the system cannot, and nothing has changed."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0


def _replace(staging: Path, final: Path) -> Path:
    """Give `staging` the name of the directory `final`; returns where the old one is now."""
    if _exchange(staging, final):
        return staging
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    final.rename(old)
    try:
        staging.rename(final)
    except OSError:
        old.rename(final)
        raise
    return old


def write_directory(final: Path, files: Mapping[str, bytes]) -> None:
    """Write a directory of files completely, then give it its name; one that has this name is replaced.

    Args:
        final: Its path; missing parents are made.
        files: Contents by relative path.

    Raises:
        OSError: The disk refuses; what was at `final` is still there.
    """
    staging, old = final.with_name(f".{final.name}.new"), None
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name, data in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data)
        for directory in {path.parent for path in staging.rglob("*")}:
            sync_directory(directory)
        if final.is_dir() and not final.is_symlink():
            old = _replace(staging, final)
        else:
            staging.rename(final)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    sync_directory(final.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
