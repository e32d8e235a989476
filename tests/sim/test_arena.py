from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from policyloop.core.profile import Simulation
from policyloop.sim.arena import Arena, Solid
from policyloop.sim.rover import arena

SETTINGS = Simulation()
INNER_M = 4.9  # half size 5 m, less half a wall's thickness
SEEDS = range(150)


def obstacles(place: Arena) -> tuple[Solid, ...]:
    return place.solids[4:]


def corners(solid: Solid) -> list[tuple[float, float]]:
    """Return points on the outline of a solid's footprint."""
    x, y, _ = solid.position_m
    if solid.kind == "cylinder":
        radius = solid.half_size_m[0]
        return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 64)]
    c, s = math.cos(solid.yaw_rad), math.sin(solid.yaw_rad)
    sx, sy, _ = solid.half_size_m
    return [
        (x + c * u * sx - s * v * sy, y + s * u * sx + c * v * sy)
        for u, v in itertools.product(np.linspace(-1, 1, 9), (-1, 1))
    ] + [
        (x + c * u * sx - s * v * sy, y + s * u * sx + c * v * sy)
        for u, v in itertools.product((-1, 1), np.linspace(-1, 1, 9))
    ]


def test_every_arena_has_four_walls_and_all_its_obstacles() -> None:
    for seed in SEEDS:
        place = arena(seed, SETTINGS)
        assert len(place.solids) == 4 + 24
        for wall in place.solids[:4]:
            assert wall.kind == "box"
            assert max(map(abs, wall.position_m[:2])) == 5.0


def test_there_is_a_passable_gap_between_any_two_obstacles() -> None:
    for seed in SEEDS:
        for one, other in itertools.combinations(obstacles(arena(seed, SETTINGS)), 2):
            between = math.dist(one.position_m[:2], other.position_m[:2]) - one.radius_m - other.radius_m
            assert between >= 0.9 - 1e-9


def test_an_obstacle_leaves_a_passable_gap_to_the_wall_or_stands_against_it() -> None:
    against = 0
    for seed in SEEDS:
        for solid in obstacles(arena(seed, SETTINGS)):
            gap = INNER_M - max(abs(solid.position_m[0]), abs(solid.position_m[1])) - solid.radius_m
            assert gap >= 0.9 - 1e-9 or gap <= 0
            against += gap <= 0
    assert 0 < against < len(SEEDS) * 24


def test_the_bounding_circle_contains_the_footprint() -> None:
    for seed in range(20):
        for solid in obstacles(arena(seed, SETTINGS)):
            for point in corners(solid):
                assert math.dist(point, solid.position_m[:2]) <= solid.radius_m + 1e-9


def test_obstacles_stand_on_the_floor() -> None:
    for solid in obstacles(Arena(3, SETTINGS)):
        assert solid.position_m[2] == solid.half_size_m[2]


def test_the_same_seed_gives_the_same_arena_and_another_seed_another() -> None:
    for seed in range(10):
        assert Arena(seed, SETTINGS).solids == Arena(seed, SETTINGS).solids
        assert Arena(seed, SETTINGS).solids != Arena(seed + 1, SETTINGS).solids


def test_settings_decide_size_number_and_gap() -> None:
    place = Arena(1, Simulation(obstacles=5, gap_m=1.5, half_size_m=8.0))
    assert len(obstacles(place)) == 5
    assert place.half_size_m == 8.0
    for one, other in itertools.combinations(obstacles(place), 2):
        between = math.dist(one.position_m[:2], other.position_m[:2]) - one.radius_m - other.radius_m
        assert between >= 1.5 - 1e-9


def test_an_arena_too_small_for_its_obstacles_takes_as_many_as_fit() -> None:
    placed = obstacles(Arena(0, Simulation(obstacles=500)))
    assert 24 < len(placed) < 500


def test_a_spawn_has_room_for_the_rover_whichever_way_it_looks() -> None:
    rng = np.random.default_rng(0)
    yaws = []
    for seed in range(60):
        place = arena(seed, SETTINGS)
        for _ in range(5):
            x, y, yaw = place.spawn(rng)
            assert max(abs(x), abs(y)) <= INNER_M - 0.7
            yaws.append(yaw)
            for solid in obstacles(place):
                for point in corners(solid):
                    assert math.dist(point, (x, y)) > 0.65
    assert min(yaws) < -3
    assert max(yaws) > 3


def test_clearance_is_the_distance_to_the_nearest_bounding_circle() -> None:
    place = Arena(5, SETTINGS)
    for x, y in ((0.0, 0.0), (1.5, -2.0), (-4.0, 4.0)):
        expected = min(math.dist((x, y), solid.position_m[:2]) - solid.radius_m for solid in obstacles(place))
        assert place.clearance_m(x, y) == pytest.approx(expected, abs=1e-12)


def test_without_obstacles_everywhere_is_clear() -> None:
    assert Arena(0, Simulation(obstacles=0)).clearance_m(0, 0) == math.inf


def test_an_arena_is_built_once_per_process() -> None:
    assert arena(7, SETTINGS) is arena(7, Simulation())
    assert arena(7, SETTINGS) is not arena(7, Simulation(obstacles=3))
