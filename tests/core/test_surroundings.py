"""Where dead reckoning puts what was seen: the body turns and moves, the points stay."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.surroundings import Surroundings

MS = 1_000_000


def see(around: Surroundings, at_ms: int, linear: float = 0.0, angular: float = 0.0, ahead_m: float = 5.0) -> None:
    """Show a wall across the picture; further than 3.5 m it is not seen."""
    columns = np.full(64, ahead_m, np.float32)
    around.observe(columns, np.array([linear, angular, 0, 0, 9.81, 5], np.float32), at_ms * MS)


def test_what_is_in_the_picture_lies_ahead_of_the_camera(mini: RobotProfile) -> None:
    around = Surroundings(mini)
    see(around, 0, ahead_m=1.0)
    assert around.points[:, 0] == pytest.approx([1.16] * 64)
    assert around.points[[0, 63], 1] == pytest.approx([0.6805, -0.6805], abs=1e-3)  # 31.5 of 46.28 pixels
    assert around.ways_m.tolist() == [0.0] * 64


def test_what_was_seen_stays_where_it_was_while_the_robot_drives_by(mini: RobotProfile) -> None:
    around = Surroundings(mini)
    see(around, 0, ahead_m=1.0)
    see(around, 100, linear=5.0)
    assert around.points[:, 0] == pytest.approx(np.full(len(around.points), 0.66), abs=1e-5)
    assert around.ways_m == pytest.approx(np.full(len(around.points), 0.5))
    see(around, 200, angular=10 * math.pi)  # half a turn to the left: what was ahead is behind
    assert around.points[:, 0] == pytest.approx(np.full(len(around.points), -0.66), abs=1e-5)
    assert around.ways_m == pytest.approx(np.full(len(around.points), 0.5 + 0.3 * math.pi))


def test_the_same_observation_again_moves_nothing(mini: RobotProfile) -> None:
    around = Surroundings(mini)
    for at_ms in (0, 100, 100, 100):
        see(around, at_ms, linear=1.0)
    assert (around.pose, around.way_m) == (pytest.approx((0.1, 0, 0)), pytest.approx(0.1))
    see(around, 50, linear=1.0)  # nor does one that comes too late
    assert around.way_m == pytest.approx(0.1)


def test_while_observations_were_missing_the_robot_drove_at_the_mean_of_before_and_after(mini: RobotProfile) -> None:
    around = Surroundings(mini)
    see(around, 0, linear=0.6)
    see(around, 200, linear=0.4, angular=0.0)
    assert around.pose[0] == pytest.approx(0.1)
    see(around, 300, linear=0.2)  # none was missing
    assert around.pose[0] == pytest.approx(0.12)


def test_in_a_long_gap_the_robot_was_stopped(mini: RobotProfile) -> None:
    around = Surroundings(mini)
    see(around, 0, linear=0.6)
    see(around, 60_000)  # 0.2 s until the timeout, 0.4 s to stand
    assert around.pose[0] == pytest.approx(0.3 * 0.6)


def test_the_first_observation_is_where_everything_begins(mini: RobotProfile) -> None:
    around = Surroundings(mini)
    see(around, 12_345, linear=3.0, angular=1.0)
    assert (around.pose, around.way_m) == ((0.0, 0.0, 0.0), 0.0)
    see(around, 12_445, linear=3.0)
    around.reset()
    see(around, 99_999, linear=3.0)
    assert around.pose == (0.0, 0.0, 0.0)
