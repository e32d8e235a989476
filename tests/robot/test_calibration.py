"""Calibration samples are taken by the robot's clock, until there are enough, and never hold up a tick."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from policyloop.core.calibration import load_sample, sample_paths
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.robot.calibration import CalibrationCapture, CalibrationSettings


def seen(profile: RobotProfile, at_s: float) -> Observation:
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in profile.observation_specs.items()}
    arrays["proprio"][0] = at_s
    return Observation(arrays, round(at_s * 1e9))


def capture(
    profile: RobotProfile, directory: Path, times_s: list[float], until: Callable[..., None], **settings: float
) -> list[float]:
    """Show observations of these times; returns the times of those that were taken."""
    taking = CalibrationCapture(directory, CalibrationSettings(**settings))  # type: ignore[arg-type]
    for at_s in times_s:
        taking.observe(seen(profile, at_s))
        until(lambda: taking._waiting.empty())  # a disk that keeps up
    taking.close()
    return [float(load_sample(path, profile)["proprio"][0]) for path in sample_paths(directory)]


def test_one_sample_per_interval_until_there_are_enough(
    mini: RobotProfile, tmp_path: Path, until: Callable[..., None]
) -> None:
    times = [0.1 * i for i in range(100)]
    taken = capture(mini, tmp_path, times, until, interval_s=2.0, count=3)
    np.testing.assert_allclose(taken, [0.0, 2.0, 4.0], atol=1e-5)


def test_samples_that_are_there_count_and_are_kept(
    mini: RobotProfile, tmp_path: Path, until: Callable[..., None]
) -> None:
    capture(mini, tmp_path, [1.0, 12.0], until, count=3)
    taken = capture(mini, tmp_path, [103.0, 114.0, 125.0], until, count=3)
    assert taken == [1.0, 12.0, 103.0]
    assert [path.name for path in sample_paths(tmp_path)] == [f"calibration_{i:04d}.npz" for i in range(3)]


def test_a_disk_that_refuses_does_not_hold_up_the_robot(mini: RobotProfile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    taking = CalibrationCapture(tmp_path / "file" / "samples", CalibrationSettings(interval_s=0.0))
    started_s = time.monotonic()
    for i in range(50):
        taking.observe(seen(mini, float(i)))
    assert time.monotonic() - started_s < 1.0
    taking.close()
    assert taking.taken == 0
