"""Arrays from bytes that nobody trusts: `.npz` without pickle, every size known before memory is taken for it."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from policyloop.core.step import Arrays

__all__ = ["load_npz", "npy_header"]

_DAMAGE = (
    ValueError,
    KeyError,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading bytes that are no such file may raise."""


def load_npz(data: bytes, limit_bytes: int) -> Arrays:
    """Return the arrays of an `.npz` file by name.

    Args:
        data: The file.
        limit_bytes: Of what is unpacked.

    Raises:
        ValueError: It is no such file, or would be too large; why is in the message.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > limit_bytes:
                raise ValueError(f"{size} bytes, at most {limit_bytes} are allowed")
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except _DAMAGE as error:
        raise ValueError(str(error)) from error


def npy_header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return what the header of a `.npy` file claims, shape and type; ValueError if it is none."""
    stream = io.BytesIO(data)
    version = npy.read_magic(stream)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    return shape, dtype


def _array(data: bytes) -> NDArray[np.generic]:
    """Read one `.npy` member; its header may claim anything."""
    shape, dtype = npy_header(data)
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > len(data):
        raise ValueError(f"a header claims {dtype} {shape} in {len(data)} bytes")
    return np.load(io.BytesIO(data), allow_pickle=False)
