"""Calibration samples: what a converter sees to choose the scales of an INT8 network.

    DIR/calibration_0000.npz   rgb uint8 (H, W, 3), depth float32 (H, W) in m (0 = no measurement), proprio float32 (n,)

They hold what the sensors said, before any normalisation: `core.features` turns them into network
inputs, for a converter exactly as for a driving robot. A folder of them can be copied between robots.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policyloop.core.files import write_file
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays
from policyloop.errors import StorageError, VerificationError

__all__ = ["load_inputs", "load_sample", "sample_paths", "save_inputs", "save_sample"]

_MAX_BYTES = 64 << 20


def sample_paths(directory: Path) -> list[Path]:
    """Return the samples in a folder, in order."""
    return sorted(directory.glob("calibration_[0-9]*.npz"))


def save_sample(directory: Path, number: int, observation: Arrays) -> Path:
    """Write one observation; returns its path.

    Raises:
        StorageError: The disk refuses; no half sample is left.
    """
    arrays: dict[str, NDArray[np.generic]] = {"proprio": observation["proprio"].astype(np.float32)}
    if "rgb" in observation:
        arrays["rgb"] = observation["rgb"]
        arrays["depth"] = observation["depth"].astype(np.float32) * np.float32(0.001)
    return save_inputs(directory, number, arrays)


def save_inputs(directory: Path, number: int, arrays: Arrays) -> Path:
    """Write arrays under their names, as a network takes them; returns the file's path.

    Raises:
        StorageError: The disk refuses; no half sample is left.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    path = directory / f"calibration_{number:04d}.npz"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_file(path, buffer.getvalue())
    except OSError as error:
        raise StorageError.cannot_write(path, error) from error
    return path


def load_sample(path: Path, profile: RobotProfile) -> Arrays:
    """Read one sample as an observation of `profile`, depth in mm again.

    Raises:
        StorageError: There is none at `path`.
        VerificationError: It is none, or of another robot; what is wrong is named.
    """
    arrays = load_inputs(path, profile.observation_specs)
    for name in profile.observation_specs:
        if name not in arrays:
            raise VerificationError(f"{path} holds no {name}", "record it again")
    if "depth" in arrays:
        depth = arrays["depth"]
        if not np.isfinite(depth).all() or depth.min(initial=0) < 0 or depth.max(initial=0) > 65.535:
            raise VerificationError(f"{path}: depth is not within 0 to 65.535 m", "record it again")
        arrays["depth"] = np.rint(depth * 1000).astype(np.uint16)
    for name, spec in profile.observation_specs.items():
        if arrays[name].shape != spec.shape or arrays[name].dtype != np.dtype(spec.dtype):
            raise VerificationError(
                f"{path}: {name} is {arrays[name].dtype} {arrays[name].shape}, '{profile.name}' has {spec.dtype} "
                f"{spec.shape}",
                "use samples of this robot",
            )
    return arrays


def load_inputs(path: Path, names: Iterable[str]) -> Arrays:
    """Read those of these arrays that a file holds.

    Raises:
        StorageError: There is none at `path`.
        VerificationError: It is no file of arrays, or far too large.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise VerificationError(f"{path} is larger than any calibration sample", "delete it")
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in names if name in stored.files}
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:  # TypeError: a bare array
        raise VerificationError(f"{path} is no calibration sample: {error}", "record it again") from error
