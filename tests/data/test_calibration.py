"""A calibration set holds every kind of situation, as evenly as there are observations of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyloop.core.calibration import load_inputs, load_sample, sample_paths
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.data.calibration import choose_calibration, record_calibration
from policyloop.errors import UsageError
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step


@pytest.fixture
def drive(mini: RobotProfile, make_step: Callable[..., Step], tmp_path: Path) -> Journal:
    """60 fast far bright observations, and a few that are slow, near and dark."""
    journal = Journal(tmp_path / "journal", mini, writable=True)
    for i in range(66):
        step = make_step(mini, i)
        common = i < 60
        step.observation["proprio"][mini.proprio_index("linear_vel")] = 0.5 + i * 1e-3 if common else 0.01 * i
        step.observation["proprio"][mini.proprio_index("min_forward_dist")] = 3 + i * 1e-2 if common else 0.4
        step.observation["rgb"][:] = 150 + i % 50 if common else 20
        journal.append(encode_step(step, mini))
    return journal


def test_rare_situations_are_not_forgotten(drive: Journal, mini: RobotProfile, tmp_path: Path) -> None:
    coverage = choose_calibration(drive, tmp_path / "set", 20)
    samples = [load_sample(path, mini) for path in sample_paths(tmp_path / "set")]
    assert len(samples) == coverage.chosen == 20
    near = [sample["proprio"][mini.proprio_index("min_forward_dist")] < 1 for sample in samples]
    assert 1 <= sum(near) <= 6
    assert coverage.candidates == 66
    assert coverage.covered == coverage.strata >= 4
    assert sum(coverage.counts.values()) == 20
    assert max(coverage.counts.values()) - min(coverage.counts.values()) <= 20


def test_the_edges_are_the_terciles(drive: Journal, tmp_path: Path) -> None:
    coverage = choose_calibration(drive, tmp_path / "set", 5)
    distances = [3 + i * 1e-2 for i in range(60)] + [0.4] * 6
    np.testing.assert_allclose(coverage.edges["distance"], np.quantile(distances, [1 / 3, 2 / 3]), rtol=1e-5)


def test_equal_seeds_choose_equally_and_nothing_twice(drive: Journal, mini: RobotProfile, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        choose_calibration(drive, tmp_path / name, 30, seed=seed)
    first, again, other = (
        [load_sample(path, mini)["depth"].tobytes() for path in sample_paths(tmp_path / name)] for name in "abc"
    )
    assert first == again != other
    assert len(set(first)) == 30


def test_fewer_observations_than_asked_for_are_all_taken(drive: Journal, tmp_path: Path) -> None:
    assert choose_calibration(drive, tmp_path / "set", 500).chosen == 66


def test_a_folder_that_holds_something_is_refused(drive: Journal, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        choose_calibration(drive, tmp_path / "set")


def test_an_empty_journal_is_refused(mini: RobotProfile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no steps"):
        choose_calibration(Journal(tmp_path / "empty", mini, writable=True), tmp_path / "set")


class ShortEpisodes:
    """An environment whose episodes last four steps; observations name episode and step."""

    def __init__(self) -> None:
        self.episode, self.step_number = -1, 4

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.episode, self.step_number = self.episode + 1, 0
        return self._see(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.step_number < 4, "stepped after the end of an episode"
        self.step_number += 1
        over = self.step_number == 4
        return self._see(), 0.0, over and self.episode % 2 == 0, over and self.episode % 2 == 1, {}

    def _see(self) -> np.ndarray:
        return np.array([self.episode, self.step_number], np.float32)


def test_an_environment_is_reset_whenever_an_episode_ends(tmp_path: Path) -> None:
    record_calibration(ShortEpisodes(), lambda observation: observation, tmp_path / "set", 6, interval=3)
    seen = [load_inputs(path, ["obs"])["obs"].tolist() for path in sample_paths(tmp_path / "set")]
    assert seen == [[0, 0], [0, 3], [1, 2], [2, 1], [3, 0], [3, 3]]  # an end is seen by nobody: reset comes at once
