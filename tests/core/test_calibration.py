"""Calibration samples in the documented form, and what is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyloop.core.calibration import load_sample, sample_paths, save_sample
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import StorageError, VerificationError


@pytest.fixture
def observation(mini: RobotProfile) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "rgb": rng.integers(0, 256, (36, 64, 3), dtype=np.uint8),
        "depth": rng.integers(0, 65536, (36, 64), dtype=np.uint16),
        "proprio": rng.normal(size=6).astype(np.float32),
    }


def test_the_file_has_the_documented_form() -> None:
    rover = load_profile("rover")
    observation = {
        "rgb": np.zeros((240, 424, 3), np.uint8),
        "depth": np.full((240, 424), 1234, np.uint16),
        "proprio": np.zeros(6, np.float32),
    }
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = save_sample(Path(directory), 7, observation)
        assert path.name == "calibration_0007.npz"
        with np.load(path) as stored:
            assert sorted(stored.files) == ["depth", "proprio", "rgb"]
            assert (stored["rgb"].dtype, stored["rgb"].shape) == (np.uint8, (240, 424, 3))
            assert (stored["depth"].dtype, stored["depth"].shape) == (np.float32, (240, 424))
            assert stored["depth"][0, 0] == pytest.approx(1.234)  # metres
            assert (stored["proprio"].dtype, stored["proprio"].shape) == (np.float32, (6,))
        assert load_sample(path, rover)["depth"][0, 0] == 1234


def test_a_sample_comes_back_exactly(mini: RobotProfile, observation: dict[str, Any], tmp_path: Path) -> None:
    loaded = load_sample(save_sample(tmp_path, 0, observation), mini)
    for name, array in observation.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert [path.name for path in sample_paths(tmp_path)] == ["calibration_0000.npz"]


@pytest.mark.parametrize(
    "change",
    [
        {"rgb": np.zeros((36, 63, 3), np.uint8)},
        {"rgb": np.zeros((36, 64, 3), np.float32)},
        {"depth": np.full((36, 64), np.nan, np.float32)},
        {"depth": np.full((36, 64), -1, np.float32)},
        {"depth": np.full((36, 64), 70, np.float32)},
        {"proprio": np.zeros(7, np.float32)},
        {"proprio": None},
        {"proprio": np.array([{}], object)},
    ],
    ids=["width", "dtype", "nan", "negative", "too far", "length", "missing", "pickle"],
)
def test_what_is_not_this_robots_sample_is_refused(
    mini: RobotProfile, observation: dict[str, Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "calibration_0000.npz"
    arrays = {**observation, "depth": observation["depth"] * np.float32(0.001), **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(VerificationError, match="calibration_0000"):
        load_sample(path, mini)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY", b"nonsense" * 100])
def test_bytes_that_are_no_sample_are_refused(mini: RobotProfile, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "calibration_0000.npz"
    path.write_bytes(data)
    with pytest.raises(VerificationError):
        load_sample(path, mini)


def test_a_sample_that_is_not_there_is_a_storage_error(mini: RobotProfile, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        load_sample(tmp_path / "calibration_0000.npz", mini)
