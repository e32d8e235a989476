"""Statistics of observations: read, checked, and used as they are."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.lib import format as npy

from policyloop.convert.observation_statistics import load_observation_statistics, statistics_of, unclipped_nominal
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import IncompatibleError, StorageError, UsageError, VerificationError

MEAN, STD = np.linspace(-1, 1, 8), np.linspace(0.1, 2, 8)


def load(walker: RobotProfile, tmp_path: Path, **arrays: Any) -> Normalizer:
    np.savez(tmp_path / "stats.npz", **arrays)
    return load_observation_statistics(tmp_path / "stats.npz", walker)


@pytest.mark.parametrize("shape", [(8,), (1, 8)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_statistics_normalise_without_a_clip(
    walker: RobotProfile, tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    found = load(walker, tmp_path, mean=MEAN.reshape(shape).astype(dtype), std=STD.reshape(shape).astype(dtype), n=9)
    x = np.full(8, 1e6, np.float32)
    np.testing.assert_allclose(found(x), (x - MEAN) / STD, rtol=1e-6)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Normalizer) == found


def test_statistics_of_scaled_observations_follow_the_profiles_scales(walker: RobotProfile, tmp_path: Path) -> None:
    """By hand: a joint has center 0 and scale 0.5, a lean center 0.1 and scale 1."""
    np.savez(tmp_path / "stats.npz", mean=np.full(8, 2.0), std=np.full(8, 4.0))
    found = load_observation_statistics(tmp_path / "stats.npz", walker, "scaled")
    assert found.mean == (1.0,) * 6 + (2.1,) * 2  # 0 + 0.5 * 2; 0.1 + 1 * 2
    assert found.std == (2.0,) * 6 + (4.0,) * 2  # 0.5 * 4; 1 * 4
    np.testing.assert_allclose(found(np.full(8, 5.0, np.float32)), [2.0] * 6 + [0.725] * 2, rtol=1e-6)


def test_joint_angles_are_scaled_about_the_centre_of_their_action(tmp_path: Path) -> None:
    lite3 = load_profile("lite3")
    np.savez(tmp_path / "stats.npz", mean=np.full(45, 0.2), std=np.full(45, 0.5))
    found = load_observation_statistics(tmp_path / "stats.npz", lite3, "scaled")
    np.testing.assert_allclose(found.mean[9:12], [0.2, -0.45, 1.5], rtol=1e-6)  # HipX 0, HipY -0.65, Knee 1.3
    np.testing.assert_allclose([found.mean[0], found.std[0]], [0.8, 2.0])  # 0 + 4 * 0.2, 4 * 0.5: a turning rate
    np.testing.assert_allclose([found.mean[21], found.std[21]], [4.0, 10.0])  # 20 * 0.2, 20 * 0.5: a joint's speed


def test_a_vector_of_another_name_is_refused() -> None:
    assert (statistics_of("sensed"), statistics_of("scaled")) == ("sensed", "scaled")
    with pytest.raises(UsageError, match="--obs-stats-of raw"):
        statistics_of("raw")


def test_without_statistics_the_profiles_scales_hold_without_its_clip(walker: RobotProfile) -> None:
    found = unclipped_nominal(walker)
    x = np.full(8, 100.0, np.float32)
    np.testing.assert_allclose(found(x), [200.0] * 6 + [99.9] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        pytest.param(MEAN[:7], STD[:7], "mean has length 7, profile 'walker' observes 8", id="too short"),
        pytest.param(MEAN, STD[:7], "std has length 7, profile 'walker' observes 8", id="of unequal length"),
    ],
)
def test_statistics_of_other_observations_are_refused(
    mean: Any, std: Any, said: str, walker: RobotProfile, tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleError, match=said) as caught:
        load(walker, tmp_path, mean=mean, std=std)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        pytest.param({"mean": MEAN}, "std", id="no deviations"),
        pytest.param({"mean": MEAN, "std": STD * np.nan}, r"std\[0\] is nan", id="not numbers"),
        pytest.param({"mean": MEAN, "std": STD - STD[3]}, r"std\[0\] is -", id="negative deviations"),
        pytest.param({"mean": MEAN, "std": STD * [1, 1, 0, 1, 1, 1, 1, 1]}, r"std\[2\] is 0\.0", id="a constant"),
        pytest.param({"mean": np.ones((2, 4)), "std": STD}, "not a vector", id="a matrix"),
        pytest.param({"mean": np.array(list("abcdefgh")), "std": STD}, "not a vector", id="letters"),
        pytest.param({"mean": np.array([{}] * 8), "std": STD}, "not a vector", id="pickled objects"),
    ],
)
def test_wrong_statistics_are_refused(arrays: dict[str, Any], said: str, walker: RobotProfile, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=said) as caught:
        load(walker, tmp_path, **arrays)
    assert caught.value.exit_code == 5


def test_a_file_that_promises_more_than_it_holds_takes_no_memory(walker: RobotProfile, tmp_path: Path) -> None:
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    path = tmp_path / "stats.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mean.npy", header.getvalue())
        archive.writestr("std.npy", header.getvalue())
    with pytest.raises(VerificationError, match="not a vector"):
        load_observation_statistics(path, walker)


def test_a_bomb_is_not_unpacked(walker: RobotProfile, tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    np.savez_compressed(path, mean=np.zeros(1 << 20), std=STD)
    assert path.stat().st_size < 20_000
    with pytest.raises(VerificationError, match="mean has 8388736 bytes"):
        load_observation_statistics(path, walker)


def test_files_that_are_missing_or_none_are_named(walker: RobotProfile, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*stats\.npz"):
        load_observation_statistics(tmp_path / "stats.npz", walker)
    np.save(tmp_path / "stats.npy", MEAN)
    with pytest.raises(VerificationError, match="holds no statistics"):
        load_observation_statistics(tmp_path / "stats.npy", walker)
