"""RGB-D pictures by ray casting, without OpenGL.

Two ray casters draw the same arena: Embree (the `embreex` package, x86_64) and MuJoCo's own
`mj_multiRay` (everywhere, 3-4 times slower). Shading and sensor noise come after and are shared,
so that the two agree to a fraction of a millimetre (tests/sim/test_camera.py).

Depth noise follows the RealSense D435: standard deviation 0.0036 z^2, holes at the left edges of
near objects (the stereo shadow) and at random pixels, nothing outside the measuring range. `Conditions`
say how much more of it there is in an episode, and in which light.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any, Literal, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import Camera
from policyloop.errors import ConfigError
from policyloop.sim.arena import Arena, Solid
from policyloop.sim.randomization import NOMINAL, Conditions

__all__ = ["ROVER_GROUP", "Caster", "CasterName", "EmbreeCaster", "MujocoCaster", "RgbdCamera", "make_caster"]

CasterName = Literal["auto", "embree", "mujoco"]
ROVER_GROUP = 1
"""Geom group of the rover's own parts, which its camera does not see."""

_FLOOR, _SKY = -1, -2
_RANGE_M = 30.0
_SUN = np.array([0.35, 0.25, 0.9]) / np.linalg.norm([0.35, 0.25, 0.9])
_CYLINDER_SIDES = 32
_NOISE_TABLE = 1 << 20
_DEPTH_NOISE = 0.0036
"""Standard deviation of a depth of 1 m, m; it grows with the square of the depth."""
_GREY = 128


def _rays(camera: Camera) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return unit ray directions in MuJoCo's camera frame (n, 3), and cos(angle to the axis) (n,)."""
    u = (np.arange(camera.width) + 0.5 - camera.width / 2) / camera.focal_px
    v = (camera.height / 2 - np.arange(camera.height) - 0.5) / camera.focal_px
    uu, vv = np.meshgrid(u, v)
    rays = np.stack([uu, vv, -np.ones_like(uu)], axis=-1).reshape(-1, 3)
    length = np.linalg.norm(rays, axis=1)
    return rays / length[:, None], (1 / length).astype(np.float32)


class Caster(Protocol):
    """Casts the rays of one camera in one arena."""

    def cast(
        self, position_m: NDArray[np.float64], rotation: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Return distance along the ray (n,), owner (n,), shade (n,) and world directions (n, 3)."""


def _lambert(normals: NDArray[Any]) -> NDArray[np.float32]:
    return (0.45 + 0.55 * np.clip(normals @ _SUN.astype(normals.dtype), 0, 1)).astype(np.float32)


def _mesh(solid: Solid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return triangles (n, 3, 3) and outward unit normals (n, 3) of a solid."""
    sx, sy, sz = solid.half_size_m
    if solid.kind == "box":
        vertices = np.array([[x, y, z] for x in (-sx, sx) for y in (-sy, sy) for z in (-sz, sz)])
        faces = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)]
        faces += [(2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)]
    else:
        n = _CYLINDER_SIDES
        angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
        rim = np.stack([np.cos(angle) * sx, np.sin(angle) * sx], axis=1)
        low, high = np.full((n, 1), -sz), np.full((n, 1), sz)
        vertices = np.concatenate([np.hstack([rim, low]), np.hstack([rim, high]), [[0, 0, sz]]])
        faces = []
        for i in range(n):
            j = (i + 1) % n
            faces += [(i, j, n + j), (i, n + j, n + i), (n + i, n + j, 2 * n)]
    c, s = math.cos(solid.yaw_rad), math.sin(solid.yaw_rad)
    triangles = (vertices @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]))[np.array(faces)]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    inward = np.einsum("ij,ij->i", normals, triangles.mean(axis=1)) < 0
    normals[inward] *= -1
    return triangles + np.asarray(solid.position_m), normals


class EmbreeCaster:
    """Intel Embree through `embreex`: triangles in a bounding volume hierarchy."""

    def __init__(self, arena: Arena, camera: Camera) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        meshes = [_mesh(solid) for solid in arena.solids]
        f = arena.half_size_m + 5
        floor = np.array([[[-f, -f, 0], [f, -f, 0], [f, f, 0]], [[-f, -f, 0], [f, f, 0], [-f, f, 0]]])
        triangles = np.concatenate([*(mesh[0] for mesh in meshes), floor]).astype(np.float32)
        normals = np.concatenate([*(mesh[1] for mesh in meshes), np.tile([0.0, 0.0, 1.0], (2, 1))])
        owners = np.repeat(np.arange(len(meshes)), [len(mesh[0]) for mesh in meshes])
        # A miss has triangle -1, which numpy reads as the last entry: the sky.
        self._owner = np.concatenate([owners, [_FLOOR, _FLOOR, _SKY]])
        self._shade = np.append(_lambert(normals), np.float32(1.0))
        self._scene = rtcore_scene.EmbreeScene()
        self._mesh = TriangleMesh(self._scene, np.ascontiguousarray(triangles))
        self._rays = _rays(camera)[0].astype(np.float32)
        self._origins = np.empty_like(self._rays)

    def cast(
        self, position_m: NDArray[np.float64], rotation: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """See `Caster.cast`."""
        directions = self._rays @ rotation.T.astype(np.float32)
        self._origins[:] = position_m
        hits = self._scene.run(self._origins, directions, output=1)
        triangle = hits["primID"]
        return hits["tfar"], self._owner[triangle], self._shade[triangle], directions


class MujocoCaster:
    """MuJoCo's own `mj_multiRay` over the arena's primitives."""

    def __init__(self, arena: Arena, camera: Camera, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        self._rays = _rays(camera)[0]
        count = len(self._rays)
        self._geom = np.empty(count, np.int32)
        self._distance = np.empty(count)
        self._normal = np.empty(3 * count)
        self._groups = np.array([1, 0, 0, 0, 0, 0], np.uint8)
        self._owner = np.full(model.ngeom + 1, _SKY)
        self._owner[model.geom("floor").id] = _FLOOR
        for index in range(len(arena.solids)):
            self._owner[model.geom(f"solid{index}").id] = index

    def cast(
        self, position_m: NDArray[np.float64], rotation: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """See `Caster.cast`."""
        directions = self._rays @ rotation.T
        mujoco.mj_multiRay(
            self._model,
            self._data,
            np.ascontiguousarray(position_m),
            directions.reshape(-1),
            self._groups,
            1,
            -1,
            self._geom,
            self._distance,
            self._normal,
            len(directions),
            _RANGE_M,
        )
        shade = _lambert(self._normal.reshape(-1, 3))
        return self._distance, self._owner[self._geom], shade, directions.astype(np.float32)


def make_caster(
    name: CasterName, arena: Arena, camera: Camera, model: mujoco.MjModel, data: mujoco.MjData
) -> EmbreeCaster | MujocoCaster:
    """Return the named ray caster; `auto` takes Embree where it is installed."""
    installed = importlib.util.find_spec("embreex") is not None
    if name == "embree" and not installed:
        raise ConfigError("embreex is not installed", "pip install embreex (x86_64 only) or use the mujoco caster")
    if name != "mujoco" and installed:
        return EmbreeCaster(arena, camera)
    return MujocoCaster(arena, camera, model, data)


class RgbdCamera:
    """Turns ray hits into pictures: palette, shading, checkered floor, sky, sensor noise."""

    def __init__(self, camera: Camera, *, noise: bool = True) -> None:
        self.camera = camera
        self._noise = noise
        self._axis_cosine = _rays(camera)[1]
        tables = np.random.default_rng(0)
        # Drawing fresh noise costs more than the rays; a window into a fixed table does not.
        self._normal = tables.standard_normal(_NOISE_TABLE, dtype=np.float32)
        self._uniform = tables.random(_NOISE_TABLE, dtype=np.float32)
        self._rgb_noise = np.rint(tables.standard_normal(_NOISE_TABLE) * 3).astype(np.int16)

    def palette(self, arena: Arena) -> NDArray[np.float32]:
        """Return the colours of an arena's solids, then of sky and floor, (n + 2, 3) in 0..255."""
        colours = [*(solid.colour for solid in arena.solids), (0.80, 0.87, 0.95), (0.36, 0.38, 0.34)]
        return (255 * np.clip(np.array(colours), 0, 1)).astype(np.float32)

    def picture(
        self,
        caster: Caster,
        palette: NDArray[np.float32],
        position_m: NDArray[np.float64],
        rotation: NDArray[np.float64],
        rng: np.random.Generator,
        conditions: Conditions = NOMINAL,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Return rgb (H, W, 3) uint8 and depth (H, W) uint16 in mm, 0 = no measurement."""
        distance, owner, shade, directions = caster.cast(position_m, rotation)
        depth = self._depth(distance, owner, rng, conditions)
        rgb = self._rgb(distance, owner, shade, directions, palette, position_m)
        rgb = _lit(rgb, conditions)
        if self._noise:
            rgb += self._window(self._rgb_noise, rgb.size, rng).reshape(rgb.shape)
        np.clip(rgb, 0, 255, out=rgb)
        return rgb.astype(np.uint8).reshape(self.camera.height, self.camera.width, 3), depth

    def _window(self, table: NDArray[Any], size: int, rng: np.random.Generator) -> NDArray[Any]:
        start = int(rng.integers(_NOISE_TABLE - size))
        return table[start : start + size]

    def _depth(
        self, distance: NDArray[Any], owner: NDArray[Any], rng: np.random.Generator, conditions: Conditions
    ) -> NDArray[np.uint16]:
        camera = self.camera
        z = distance.astype(np.float32) * self._axis_cosine
        z[owner == _SKY] = 0
        if self._noise:
            z += np.float32(_DEPTH_NOISE * conditions.depth_noise) * z * z * self._window(self._normal, z.size, rng)
        z = z.reshape(camera.height, camera.width)
        bad = (z < camera.depth_min_m) | (z > camera.depth_max_m)
        if self._noise:
            drop = self._window(self._uniform, z.size, rng).reshape(z.shape)
            bad |= drop < conditions.hole_share
            edge = np.abs(z[:, 1:] - z[:, :-1]) > np.float32(0.08) * np.maximum(z[:, 1:], np.float32(0.1))
            bad[:, 1:] |= edge & (drop[:, 1:] < 0.7)
        z[bad] = 0
        return (z * np.float32(1000) + np.float32(0.5)).astype(np.uint16)

    def _rgb(
        self,
        distance: NDArray[Any],
        owner: NDArray[Any],
        shade: NDArray[np.float32],
        directions: NDArray[np.float32],
        palette: NDArray[np.float32],
        position_m: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Return colours in plain light, (n, 3), 0..255 and beyond."""
        sky, floor = owner == _SKY, owner == _FLOOR
        shade = np.where(sky | floor, np.float32(1), shade)
        rgb = palette[owner] * shade[:, None]
        rgb[sky] -= np.clip(directions[sky, 2], 0, 1)[:, None] * np.array([89, 56, 0], np.float32)
        spot = directions[floor, :2] * distance[floor, None].astype(np.float32) + position_m[:2].astype(np.float32)
        cell = np.floor(spot * 2).astype(np.int32)
        rgb[floor] += (((cell[:, 0] + cell[:, 1]) & 1) * np.float32(30))[:, None]
        return rgb


def _lit(rgb: NDArray[np.float32], conditions: Conditions) -> NDArray[np.float32]:
    """Return colours in the light of an episode, and as a camera with its contrast and white balance gives them."""
    contrast, warmth = conditions.contrast, conditions.warmth
    if conditions.brightness == contrast == 1 and warmth == 0:
        return rgb
    gain = np.array([1 + warmth, 1, 1 - warmth], np.float32) * np.float32(conditions.brightness)
    return (np.float32(contrast) * rgb + np.float32(_GREY * (1 - contrast))) * gain
