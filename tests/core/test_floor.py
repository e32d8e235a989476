"""Which floor was seen free: between the camera and what it sees, and under the robot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyloop.core.floor import Floor
from policyloop.core.profile import RobotProfile

HERE = (0.0, 0.0, 0.0)


def picture(distance_m: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.full(64, distance_m, np.float32)


@pytest.fixture
def floor(mini: RobotProfile) -> Floor:
    return Floor(mini, 0.6)


def test_what_nobody_has_looked_at_was_not_seen(floor: Floor) -> None:
    assert not floor.seen([0j])
    assert floor.seen([])


def test_floor_is_seen_up_to_an_obstacle_and_no_further(floor: Floor) -> None:
    floor.observe(picture(0.8), HERE, 0.0)  # the camera is 0.16 m ahead
    assert floor.seen([0.3 + 0j, 0.5 + 0.2j, 0.8 - 0.3j])
    assert not floor.seen([0.5 + 0j, 1.1 + 0j])
    assert not floor.seen([1.0 + 0j])


def test_floor_outside_of_the_picture_is_not_seen(floor: Floor) -> None:
    floor.observe(picture(5.0), HERE, 0.0)  # it sees 0.69 m to either side per metre
    assert floor.seen([0.66 + 0.3j, 0.66 - 0.3j])
    assert not floor.seen([0.66 + 0.45j])
    assert not floor.seen([0.66 - 0.45j])
    assert not floor.seen([1.6 + 0j])  # further away than anybody drives soon


def test_a_column_without_a_measurement_shows_no_floor(floor: Floor) -> None:
    holes = picture(5.0)
    holes[32:] = 0  # the right half
    floor.observe(holes, HERE, 0.0)
    assert floor.seen([0.7 + 0.2j])
    assert not floor.seen([0.7 - 0.2j])


def test_a_robot_stands_on_free_floor(floor: Floor) -> None:
    floor.observe(picture(0.0), HERE, 0.0)
    corners = [complex(x, y) for x in (-0.18, 0.18) for y in (-0.18, 0.18)]
    assert floor.seen([0j, *corners])
    assert not floor.seen([0.3 + 0j])


def test_places_are_meant_from_where_the_robot_is_now(floor: Floor) -> None:
    floor.observe(picture(5.0), HERE, 0.0)
    floor.observe(picture(0.0), (1.0, 0.0, math.pi / 2), 1.5)  # it faces left now
    assert floor.seen([0.45j])  # where it came from: (0.55, 0)
    assert not floor.seen([-0.45j])


def test_floor_is_forgotten_after_five_metres_and_where_dead_reckoning_begins_anew(floor: Floor) -> None:
    floor.observe(picture(5.0), HERE, 0.0)
    floor.observe(picture(0.0), HERE, 5.0)
    assert floor.seen([0.5 + 0j])
    floor.observe(picture(0.0), HERE, 5.1)
    assert not floor.seen([0.5 + 0j])
    floor.observe(picture(5.0), HERE, 5.1)
    floor.observe(picture(0.0), HERE, 0.0)
    assert not floor.seen([0.5 + 0j])


def test_a_fast_robot_looks_as_far_as_it_gets_and_cells_grow_with_the_gaps_between_columns(mini: RobotProfile) -> None:
    floor = Floor(mini, 3.3)
    floor.observe(picture(5.0), HERE, 0.0)
    assert floor.seen([complex(x / 10, y / 10) for x in range(8, 34) for y in (-2, 0, 2)])
