from __future__ import annotations

import math
import sys
from typing import Any

import msgspec
import mujoco
import numpy as np
import pytest

from policyloop.core.profile import Camera, RobotProfile, Simulation
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError
from policyloop.sim.arena import Arena, Solid
from policyloop.sim.camera import CasterName, EmbreeCaster, MujocoCaster, RgbdCamera, make_caster
from policyloop.sim.rover import Rover, arena

FORWARD = np.array([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]])
"""Rotation of a camera that looks along +x: its right is -y, its up is +z, it looks along its own -z."""

BOTH: tuple[CasterName, ...] = ("embree", "mujoco")


def need(caster: CasterName) -> None:
    if caster == "embree":
        pytest.importorskip("embreex", reason="EMBREE IS NOT INSTALLED: its pictures go untested here")


def look(profile: RobotProfile, caster: CasterName, seed: int) -> tuple[Arrays, Rover]:
    need(caster)
    rover = Rover(profile, caster=caster)
    rover.reset(arena(seed, profile.simulation), np.random.default_rng(seed))
    return rover.observe(), rover


def distance_to_walls(rover: Rover, camera: Camera) -> np.ndarray[Any, Any]:
    """Return by hand the depth of the bare walls in each column, m: they stand at +-4.9 m."""
    x, y, yaw = rover.pose
    x, y = x + camera.mount_forward_m * math.cos(yaw), y + camera.mount_forward_m * math.sin(yaw)
    right = (np.arange(camera.width) + 0.5 - camera.width / 2) / camera.focal_px
    dx = math.cos(yaw) + right * math.sin(yaw)
    dy = math.sin(yaw) - right * math.cos(yaw)
    to_x = (np.copysign(4.9, dx) - x) / dx
    to_y = (np.copysign(4.9, dy) - y) / dy
    return np.minimum(to_x, to_y)


class Middle:
    """Draws one arena from its middle with either caster."""

    def __init__(self, place: Arena) -> None:
        solids = "".join(_geom(index, solid) for index, solid in enumerate(place.solids))
        self.place = place
        self.model = mujoco.MjModel.from_xml_string(
            f'<mujoco><compiler angle="radian"/><worldbody><geom name="floor" type="plane" size="10 10 .1"/>{solids}'
            "</worldbody></mujoco>"
        )
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)

    def picture(self, name: CasterName, camera: Camera) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        caster = make_caster(name, self.place, camera, self.model, self.data)
        drawer = RgbdCamera(camera, noise=False)
        position = np.array([0.31, -0.17, 0.18])
        return drawer.picture(caster, drawer.palette(self.place), position, FORWARD, np.random.default_rng(0))


def _geom(index: int, solid: Solid) -> str:
    x, y, z = solid.position_m
    sizes = " ".join(f"{size:.6f}" for size in solid.half_size_m)
    place = f'pos="{x:.6f} {y:.6f} {z:.6f}" euler="0 0 {solid.yaw_rad:.6f}"'
    return f'<geom name="solid{index}" type="box" size="{sizes}" {place}/>'


@pytest.mark.parametrize("caster", BOTH)
def test_depth_of_bare_walls_by_hand(empty: RobotProfile, caster: CasterName) -> None:
    assert empty.camera is not None
    row = empty.camera.height // 2 - 2  # just above the horizon: walls only
    seen = 0
    for seed in range(8):
        observation, rover = look(empty, caster, seed)
        expected = distance_to_walls(rover, empty.camera)
        within = expected < empty.camera.depth_max_m
        np.testing.assert_allclose(observation["depth"][row][within] / 1000, expected[within], atol=1e-3)
        assert not observation["depth"][row][~within].any()
        seen += np.count_nonzero(within)
    assert seen > 400


def test_depth_of_the_floor_by_hand(empty: RobotProfile) -> None:
    need("embree")
    assert empty.camera is not None
    place = Arena(0, empty.simulation)
    camera = RgbdCamera(empty.camera, noise=False)
    position = np.array([0.0, 0.0, 0.18])
    _, depth = camera.picture(
        EmbreeCaster(place, empty.camera), camera.palette(place), position, FORWARD, np.random.default_rng(0)
    )
    below_horizon = np.arange(20, 36) + 0.5 - 18
    focal_px = 18 / math.tan(math.radians(42.5 / 2))
    np.testing.assert_allclose(depth[20:, 32], 1000 * 0.18 * focal_px / below_horizon, atol=1.0)


def test_the_free_distance_is_that_to_the_wall_in_the_rovers_path_by_hand(empty: RobotProfile) -> None:
    camera = empty.camera
    assert camera is not None
    right = (np.arange(64) + 0.5 - 32) / camera.focal_px
    for seed in range(8):
        observation, rover = look(empty, "auto", seed)
        walls_m = distance_to_walls(rover, camera)
        in_the_way = np.abs(walls_m * right) < 0.26
        assert observation["proprio"][5] == pytest.approx(walls_m[in_the_way].min(), abs=0.01)


@pytest.mark.parametrize(("distance_m", "seen"), [(9.9, 9900), (10.1, 0), (0.11, 110), (0.09, 0)])
def test_what_is_out_of_the_measuring_range_is_unknown(empty: RobotProfile, distance_m: float, seen: int) -> None:
    need("embree")
    assert empty.camera is not None
    place = Arena(0, Simulation(obstacles=0, half_size_m=9.5))
    camera = RgbdCamera(empty.camera, noise=False)
    position = np.array([9.4 - distance_m, 0.0, 0.18])
    _, depth = camera.picture(
        EmbreeCaster(place, empty.camera), camera.palette(place), position, FORWARD, np.random.default_rng(0)
    )
    assert abs(int(depth[17, 32]) - seen) <= 1


@pytest.mark.parametrize("caster", BOTH)
def test_the_floor_reaches_the_walls_of_a_large_arena(empty: RobotProfile, caster: CasterName) -> None:
    simulation = msgspec.structs.replace(empty.simulation, half_size_m=25.0)
    wide = msgspec.structs.replace(empty, simulation=simulation)
    seen = [look(wide, caster, seed)[0]["depth"][-1] for seed in range(6)]
    assert all(row.all() for row in seen)


def test_both_casters_give_the_same_pictures(quiet: RobotProfile) -> None:
    depth_m, rgb = [], []
    for seed in range(12):
        (embree, rover), (native, other) = (look(quiet, caster, seed) for caster in BOTH)
        assert rover.pose == other.pose
        depth_m.append(np.abs(embree["depth"].astype(float) - native["depth"]).ravel() / 1000)
        rgb.append(np.abs(embree["rgb"].astype(float) - native["rgb"]).ravel())
        assert abs(float(embree["proprio"][5]) - float(native["proprio"][5])) < 0.01
    differences = np.concatenate(depth_m)
    assert np.median(differences) < 1e-5
    assert np.percentile(differences, 99) < 5e-3
    assert np.concatenate(rgb).mean() < 0.5


def test_both_casters_agree_to_a_hair_where_everything_is_flat() -> None:
    """Only a cylinder differs: Embree's has 32 sides."""
    need("embree")
    camera = Camera(width=64, height=36)
    profile_settings = Simulation(sensor_noise=False)
    for seed in range(4):
        place = Arena(seed, profile_settings)
        place.solids = tuple(solid for solid in place.solids if solid.kind == "box")
        middle = Middle(place)
        _, native = middle.picture("mujoco", camera)
        _, embree = middle.picture("embree", camera)
        differences = np.abs(native.astype(float) - embree)
        assert np.percentile(differences, 99) <= 1.0  # mm: one step of rounding
        assert np.count_nonzero(embree) > embree.size / 2


def test_noise_follows_the_sensors_model(empty: RobotProfile) -> None:
    need("embree")
    assert empty.camera is not None
    place = Arena(0, empty.simulation)
    camera, caster = RgbdCamera(empty.camera), EmbreeCaster(place, empty.camera)
    rng = np.random.default_rng(0)
    position = np.array([1.9, 0.0, 0.18])  # 3 m from the wall
    pictures = [camera.picture(caster, camera.palette(place), position, FORWARD, rng)[1] for _ in range(300)]
    wall_m = np.array(pictures)[:, 5:14].astype(float) / 1000
    measured = wall_m[wall_m > 0]
    assert measured.mean() == pytest.approx(3.0, abs=2e-3)
    assert measured.std() == pytest.approx(0.0036 * 3.0**2, rel=0.05)
    assert np.mean(wall_m == 0) == pytest.approx(0.002, rel=0.3)  # holes at random pixels


def test_depth_is_a_hole_or_within_the_range(mini: RobotProfile) -> None:
    camera = mini.camera
    assert camera is not None
    holes = 0
    for seed in range(10):
        depth = look(mini, "auto", seed)[0]["depth"]
        assert depth.dtype == np.uint16
        measured = depth[depth > 0]
        assert measured.min() >= 1000 * camera.depth_min_m
        assert measured.max() <= 1000 * camera.depth_max_m
        holes += np.count_nonzero(depth[20:] == 0)  # below the horizon nothing is sky
    assert holes > 0


def test_near_objects_cast_a_stereo_shadow_to_their_left(mini: RobotProfile) -> None:
    need("embree")
    camera = mini.camera
    assert camera is not None
    place = Arena(0, Simulation(obstacles=0))
    place.solids = (*place.solids, Solid("box", (1.0, 0.0, 0.5), (0.1, 0.2, 0.5), 0.0, (0.5, 0.5, 0.5)))
    drawer, caster = RgbdCamera(camera), EmbreeCaster(place, camera)
    rng, position = np.random.default_rng(0), np.array([0.0, 0.0, 0.18])
    pictures = np.array(
        [drawer.picture(caster, drawer.palette(place), position, FORWARD, rng)[1][12:17] for _ in range(50)]
    )
    share = (pictures == 0).mean(axis=(0, 1))
    # The front face is 0.9 m away and 0.2 m wide to each side: 0.2 / 0.9 * focal length = 10.3 pixels.
    left, right = 32 - 10, 32 + 10
    assert share[left - 1 : left + 1].max() > 0.5
    assert share[left + 2 : right - 2].max() < 0.05
    assert share[: left - 2].max() < 0.05


def test_walls_have_their_own_colour_the_sky_is_blue_and_the_floor_checkered(empty: RobotProfile) -> None:
    need("embree")
    assert empty.camera is not None
    place = Arena(0, empty.simulation)
    camera = RgbdCamera(empty.camera, noise=False)
    position = np.array([0.0, 0.0, 0.18])
    rgb, depth = camera.picture(
        EmbreeCaster(place, empty.camera), camera.palette(place), position, FORWARD, np.random.default_rng(0)
    )
    (wall,) = [solid for solid in place.solids if solid.position_m[0] == 5.0]
    # the sun stands at (0.35, 0.25, 0.9): this wall, seen from inside, has only the ambient 45 %
    assert rgb[12:17].astype(float) == pytest.approx(
        np.broadcast_to(np.array(wall.colour) * 255 * 0.45, (5, 64, 3)), abs=1.0
    )
    sky, floor = rgb[0].astype(int), rgb[25:].reshape(-1, 3).astype(int)
    assert not depth[0].any()
    assert (sky[:, 2] > sky[:, 1]).all()
    assert (sky[:, 1] > sky[:, 0]).all()
    assert {tuple(pixel) for pixel in floor} == {(91, 96, 86), (121, 126, 116)}


def test_the_native_caster_steps_in_where_embree_is_missing(
    empty: RobotProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "embreex", None)  # as if it were not installed
    middle = Middle(Arena(0, empty.simulation))
    assert empty.camera is not None
    arguments = (middle.place, empty.camera, middle.model, middle.data)
    assert isinstance(make_caster("auto", *arguments), MujocoCaster)
    with pytest.raises(ConfigError, match="embreex") as caught:
        make_caster("embree", *arguments)
    assert caught.value.exit_code == 3


def test_embree_is_taken_where_it_is_installed(empty: RobotProfile) -> None:
    need("embree")
    middle = Middle(Arena(0, empty.simulation))
    assert empty.camera is not None
    arguments = (middle.place, empty.camera, middle.model, middle.data)
    assert isinstance(make_caster("auto", *arguments), EmbreeCaster)
    assert isinstance(make_caster("mujoco", *arguments), MujocoCaster)
