"""Files that are whole or not there: what a power cut leaves is the old state or the new one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["sync_directory", "write_directory", "write_file"]


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


def write_file(path: Path, data: bytes) -> None:
    """Write or replace one file.

    Raises:
        OSError: The disk refuses; what was at `path` is still there.
    """
    staging = path.with_name(f".{path.name}.new")
    try:
        _write(staging, data)
        staging.replace(path)
    except OSError:
        staging.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_directory(final: Path, files: Mapping[str, bytes]) -> None:
    """Write a directory of files completely, then give it its name; one that has this name is replaced.

    Args:
        final: Its path; missing parents are made.
        files: Contents by relative path.

    Raises:
        OSError: The disk refuses; what was at `final` is still there.
    """
    staging = final.with_name(f".{final.name}.new")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name, data in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data)
        for directory in {path.parent for path in staging.rglob("*")}:
            sync_directory(directory)
        if final.exists():
            shutil.rmtree(final)
        staging.rename(final)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    sync_directory(final.parent)
