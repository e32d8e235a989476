"""Statistics of observations that travel with a foreign policy: `obs_stats.npz` with `mean` and `std` (row S29).

They are of one of two vectors: of what the robot senses, or of what the profile's centres and scales have made of that
already, which is what a trainer's environment hands out whose observations are scaled.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.files import read_file
from policyloop.core.normalizer import Normalizer
from policyloop.core.npz import npy_header
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, UsageError, VerificationError

__all__ = ["StatisticsOf", "as_normalizer", "load_observation_statistics", "statistics_of", "unclipped_nominal"]

StatisticsOf = Literal["sensed", "scaled"]
"""What the robot senses, in its units; or (sensed - center) / scale with the profile's centres and scales."""

_MAX_BYTES = 1 << 20
_NO_CLIP = float(np.finfo(np.float32).max)
"""Foreign policies were trained without our clip: no finite float32 is beyond this."""


def statistics_of(name: str) -> StatisticsOf:
    """Return which vector `name` stands for; UsageError if for none."""
    for known in get_args(StatisticsOf):
        if name == known:
            return known
    raise UsageError(f"--obs-stats-of {name}", f"use {' or '.join(get_args(StatisticsOf))}")


def unclipped_nominal(profile: RobotProfile) -> Normalizer:
    """Return the profile's own centres and scales, without a clip."""
    return msgspec.structs.replace(profile.nominal_normalizer, clip=_NO_CLIP)


def load_observation_statistics(path: Path, profile: RobotProfile, of: StatisticsOf = "sensed") -> Normalizer:
    """Read `mean` and `std`, each of the length of the profile's proprioception vector.

    Args:
        path: The file.
        profile: Of the robot.
        of: Of which vector they are: `sensed` ones replace the profile's centres and scales, `scaled` ones follow them.

    Raises:
        StorageError: There is no file at `path`.
        VerificationError: It is no such file, is far too large, or a number is not finite or a deviation not positive.
        IncompatibleError: It is of observations of another length.
    """
    data = read_file(path, _MAX_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            mean, std = (_vector(archive, name) for name in ("mean", "std"))
    except (ValueError, KeyError, OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise VerificationError(
            f"{path} holds no statistics: {error}", "write it with numpy.savez(path, mean=..., std=...)"
        ) from error
    return as_normalizer(mean, std, profile, of, str(path))


def as_normalizer(
    mean: NDArray[np.float64], std: NDArray[np.float64], profile: RobotProfile, of: StatisticsOf, source: str
) -> Normalizer:
    """Return what maps what the robot senses to what the network sees, without a clip.

    Of scaled observations, ((x - center) / scale - mean) / std = (x - (center + scale * mean)) / (scale * std).

    Args:
        mean: Of the observations, (n,).
        std: The same.
        profile: Of the robot.
        of: Of which vector they are.
        source: Where they come from, for errors.

    Raises:
        IncompatibleError: They are of observations of another length.
        VerificationError: A number is not finite or a deviation not positive.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != profile.proprio_size:
            raise IncompatibleError(
                f"{source}: {name} has length {len(values)}, profile '{profile.name}' observes {profile.proprio_size}",
                "give the statistics of this robot's observations",
            )
        wrong = ~np.isfinite(values) | ((values <= 0) if name == "std" else False)
        if wrong.any():
            index = int(np.argmax(wrong))
            raise VerificationError(f"{source}: {name}[{index}] is {values[index]}", "record the statistics again")
    if of == "scaled":
        center, scale = (np.array(part) for part in (profile.nominal_normalizer.mean, profile.nominal_normalizer.std))
        mean, std = center + scale * mean, scale * std
    return Normalizer(mean=tuple(mean.tolist()), std=tuple(std.tolist()), clip=_NO_CLIP)


def _vector(archive: zipfile.ZipFile, name: str) -> NDArray[np.float64]:
    """Read one vector; its size is known before memory is taken for it."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > _MAX_BYTES:
        raise ValueError(f"{name} has {entry.file_size} bytes")
    data = archive.read(entry)
    shape, dtype = npy_header(data)
    size = int(np.prod(shape, dtype=object))
    if dtype.kind not in "fi" or max(shape, default=1) != size or size * dtype.itemsize > len(data):
        raise ValueError(f"{name} is {dtype} {shape}, not a vector of numbers")
    return np.load(io.BytesIO(data), allow_pickle=False).astype(np.float64).reshape(-1)
