"""Hand-made depth images for the 64x36 camera: focal length 46.29 px, rows 9..19 are looked at.

Column c looks along tan = (c - 31.5) / 46.29, so at 1 m the corridor of +-0.26 m spans columns
20..43 (43: 0.248 m aside, 44: 0.270 m), and at 2 m columns 26..37: the twelve that look straight ahead.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from policyloop.core.corridor import bearing_tangents, column_distances, free_distance
from policyloop.core.profile import RobotProfile


def picture(background_mm: int) -> NDArray[np.uint16]:
    return np.full((36, 64), background_mm, np.uint16)


def distance(profile: RobotProfile, depth_mm: NDArray[np.uint16]) -> float:
    assert profile.camera is not None
    columns = column_distances(depth_mm, profile.camera)
    return free_distance(columns, profile.camera, profile.body.corridor_half_width_m)


def test_bearings_are_those_of_a_pinhole(mini):
    tangents = bearing_tangents(mini.camera)
    focal = 18 / math.tan(math.radians(21.25))
    assert tangents.shape == (64,)
    assert tangents[31] == pytest.approx(-0.5 / focal)
    assert tangents[63] == pytest.approx(31.5 / focal)
    np.testing.assert_allclose(tangents, -tangents[::-1])


def test_a_wall_is_as_far_as_it_is(mini):
    assert distance(mini, picture(1234)) == pytest.approx(1.234)


def test_an_obstacle_in_the_corridor_counts(mini):
    depth = picture(5000)
    depth[:, 43] = 1000
    assert distance(mini, depth) == pytest.approx(1.0)


@pytest.mark.parametrize("column", [19, 44])
def test_an_obstacle_beside_the_corridor_does_not(mini, column):
    depth = picture(5000)
    depth[:, column] = 1000
    assert distance(mini, depth) == pytest.approx(5.0)


def test_the_same_column_counts_once_the_obstacle_is_near_enough_to_be_in_the_way(mini):
    depth = picture(5000)
    depth[:, 44] = 900  # 0.243 m aside
    assert distance(mini, depth) == pytest.approx(0.9)


def test_the_nearest_of_several_obstacles_wins(mini):
    depth = picture(5000)
    depth[:, 30], depth[:, 35] = 2000, 1500
    assert distance(mini, depth) == pytest.approx(1.5)


def test_floor_and_ceiling_are_not_obstacles(mini):
    depth = picture(5000)
    depth[:9], depth[20:] = 300, 300
    assert distance(mini, depth) == pytest.approx(5.0)


@pytest.mark.parametrize("row", [9, 19])
def test_the_band_reaches_from_its_first_to_its_last_row(mini, row):
    depth = picture(0)
    depth[row, :] = 700
    assert distance(mini, depth) == pytest.approx(0.7)


def test_one_bad_pixel_is_ignored_and_two_are_an_obstacle(mini):
    depth = picture(5000)
    depth[12, 31] = 200
    assert distance(mini, depth) == pytest.approx(5.0)
    depth[13, 31] = 250
    assert distance(mini, depth) == pytest.approx(0.25)


def test_holes_are_not_measurements(mini):
    depth = picture(0)
    depth[10:12] = 3000
    assert distance(mini, depth) == pytest.approx(3.0)


def test_the_largest_depth_is_not_mistaken_for_a_hole(mini):
    columns = column_distances(picture(65535), mini.camera)
    np.testing.assert_allclose(columns, 65.535, rtol=1e-6)


def test_a_picture_without_measurements_is_unknown(mini):
    assert column_distances(picture(0), mini.camera).tolist() == [0.0] * 64
    assert distance(mini, picture(0)) == 0.0


def test_free_distance_is_unknown_when_more_than_half_of_the_columns_ahead_are(mini):
    depth = picture(4000)
    depth[:, 26:32] = 0
    assert distance(mini, depth) == pytest.approx(4.0)
    depth[:, 32] = 0
    assert distance(mini, depth) == 0.0


def test_an_empty_corridor_is_free_to_the_end_of_the_cameras_range(mini):
    columns = np.zeros(64, np.float32)
    columns[26:38] = 20.0
    columns[26:38][np.abs(bearing_tangents(mini.camera)[26:38]) * 20 < 0.26] = 0.0
    assert np.count_nonzero(columns) == 10  # the two middle columns measured nothing, the others see past the corridor
    assert free_distance(columns, mini.camera, 0.26) == mini.camera.depth_max_m


def test_the_picture_is_left_as_it_was(mini):
    depth = np.random.default_rng(0).integers(0, 9000, (36, 64), dtype=np.uint16)
    before = depth.copy()
    column_distances(depth, mini.camera)
    np.testing.assert_array_equal(depth, before)
