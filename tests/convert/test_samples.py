"""Samples to calibrate on and samples to judge with: made by the robot's own code, never the same ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from policyloop.convert.export import export_onnx
from policyloop.convert.graph import prepare
from policyloop.convert.samples import Samples, samples_of_folder, samples_of_journal, samples_of_observations
from policyloop.core.calibration import save_sample
from policyloop.core.features import features
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import IncompatibleError, UsageError, VerificationError
from policyloop.learn.networks import make_network
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

MakeStep = Callable[..., Step]


@pytest.fixture
def recording(mini: RobotProfile, make_step: MakeStep, tmp_path: Path) -> Journal:
    """40 episodes of five steps; the roll of each is its episode's number."""
    journal = Journal(tmp_path / "journal", mini, writable=True)
    for i in range(200):
        step = make_step(mini, i, episode=i // 5, index=i % 5)
        step.observation["proprio"][mini.proprio_index("roll")] = i // 5 / 100
        journal.append(encode_step(step, mini))
    return journal


def rolls(samples: Samples, profile: RobotProfile) -> set[int]:
    return {round(100 * float(row)) for row in samples.inputs["proprio"][:, profile.proprio_index("roll")]}


def test_no_episode_calibrates_and_judges(recording: Journal, mini: RobotProfile) -> None:
    calibration, held_out = samples_of_journal(
        recording, "journal", mini.nominal_normalizer, calibration=60, held_out=30
    )
    assert (len(calibration), len(held_out)) == (60, 30)
    assert not rolls(calibration, mini) & rolls(held_out, mini)
    assert len(rolls(held_out, mini)) >= 4
    assert "kinds of situation" in calibration.source
    assert held_out.source == "journal: other episodes"


def test_equal_seeds_choose_equal_samples(recording: Journal, mini: RobotProfile) -> None:
    digests = [
        [part.digest for part in samples_of_journal(recording, "journal", mini.nominal_normalizer, seed=seed)]
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert digests[0][0] != digests[0][1]


def test_a_journal_of_one_episode_cannot_do_both(mini: RobotProfile, make_step: MakeStep, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "short", mini, writable=True)
    for i in range(20):
        journal.append(encode_step(make_step(mini, i), mini))
    with pytest.raises(UsageError, match=r"too few episodes|no steps"):
        samples_of_journal(journal, "short", mini.nominal_normalizer)


def test_samples_are_what_the_driving_robot_feeds_its_network(mini: RobotProfile, make_step: MakeStep) -> None:
    observations = [make_step(mini, i).observation for i in range(3)]
    samples = samples_of_observations(mini, mini.nominal_normalizer, observations, "here")
    for row, observation in enumerate(observations):
        for name, expected in features(mini, mini.nominal_normalizer, observation).items():
            np.testing.assert_array_equal(samples.inputs[name][row], expected)
    distances = [observation["proprio"][mini.proprio_index("min_forward_dist")] for observation in observations]
    assert samples.distances_m is not None
    assert samples.distances_m.tolist() == pytest.approx(distances)


def test_a_folder_is_split_three_to_one(mini: RobotProfile, make_step: MakeStep, tmp_path: Path) -> None:
    for i in range(10):
        save_sample(tmp_path, i, make_step(mini, i).observation)
    network = prepare(export_onnx(make_network("spatial", mini), mini))
    samples = samples_of_folder(tmp_path, network, mini, mini.nominal_normalizer)
    calibration, held_out = samples.split()
    assert (len(calibration), len(held_out)) == (7, 3)
    np.testing.assert_array_equal(held_out.inputs["proprio"], samples.inputs["proprio"][[0, 4, 8]])
    assert calibration.digest != held_out.digest != samples.digest


def test_too_few_samples_to_split_say_how_to_get_more(mini: RobotProfile, make_step: MakeStep) -> None:
    observations = [make_step(mini, i).observation for i in range(7)]
    with pytest.raises(UsageError, match="7 samples") as caught:
        samples_of_observations(mini, mini.nominal_normalizer, observations, "here").split()
    assert "--calibration" in caught.value.remedy


def test_numbers_that_are_not_finite_are_refused_with_their_place(mini: RobotProfile, make_step: MakeStep) -> None:
    observations = [make_step(mini, i).observation for i in range(3)]
    observations[2]["proprio"][1] = np.nan
    with pytest.raises(VerificationError, match="proprio of sample 2") as caught:
        samples_of_observations(mini, mini.nominal_normalizer, observations, "here")
    assert caught.value.exit_code == 5


def test_an_empty_folder_says_how_to_fill_it(mini: RobotProfile, tmp_path: Path) -> None:
    network = prepare(export_onnx(make_network("spatial", mini), mini))
    with pytest.raises(UsageError, match=r"holds no calibration_NNNN\.npz"):
        samples_of_folder(tmp_path, network, mini, mini.nominal_normalizer)


# -- networks that do not say which robot they drive ------------------------------------------


def foreign(tmp_path: Path, make_onnx: Callable[..., bytes], **arrays: np.ndarray) -> Samples:
    np.savez(tmp_path / "calibration_0000.npz", **arrays)
    return samples_of_folder(tmp_path, prepare(make_onnx()), None, None)


def test_a_foreign_networks_samples_carry_the_names_of_its_inputs(
    tmp_path: Path, make_onnx: Callable[..., bytes]
) -> None:
    numbers = np.arange(8.0)
    for array in (numbers, numbers[None]):
        samples = foreign(tmp_path, make_onnx, obs=array)
        assert samples.inputs["obs"].tolist() == [numbers.tolist()]
        assert samples.inputs["obs"].dtype == np.float32
        assert samples.distances_m is None


def test_a_foreign_sample_that_does_not_fit_is_named(tmp_path: Path, make_onnx: Callable[..., bytes]) -> None:
    with pytest.raises(IncompatibleError, match=r"obs is \(9,\), the network takes \(8,\)"):
        foreign(tmp_path, make_onnx, obs=np.zeros(9))
    with pytest.raises(IncompatibleError, match="lacks an input"):
        foreign(tmp_path, make_onnx, observation=np.zeros(8))
    with pytest.raises(VerificationError, match="obs of sample 0"):
        foreign(tmp_path, make_onnx, obs=np.full(8, np.inf))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_a_damaged_sample_is_refused(data: bytes, tmp_path: Path, make_onnx: Callable[..., bytes]) -> None:
    (tmp_path / "calibration_0000.npz").write_bytes(data)
    with pytest.raises(VerificationError, match="calibration_0000"):
        samples_of_folder(tmp_path, prepare(make_onnx()), None, None)


def test_a_pickle_is_not_opened(tmp_path: Path, make_onnx: Callable[..., bytes]) -> None:
    with pytest.raises(VerificationError, match="calibration_0000"):
        foreign(tmp_path, make_onnx, obs=np.array([{"a": 1}], dtype=object))
