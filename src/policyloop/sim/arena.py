"""Seeded arenas: a walled square with boxes and cylinders that leave passable gaps."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import Simulation

__all__ = ["Arena", "Solid"]

_WALL_HALF_THICKNESS_M = 0.1
_WALL_HALF_HEIGHT_M = 0.5
_SPAWN_CLEARANCE_M = 0.65


class Solid(msgspec.Struct, frozen=True):
    """One box (half sizes x, y, z) or cylinder (radius, radius, half height) standing on the floor."""

    kind: Literal["box", "cylinder"]
    position_m: tuple[float, float, float]
    half_size_m: tuple[float, float, float]
    yaw_rad: float
    colour: tuple[float, float, float]

    @property
    def radius_m(self) -> float:
        """Radius of the bounding circle on the floor."""
        return self.half_size_m[0] if self.kind == "cylinder" else math.hypot(*self.half_size_m[:2])


class Arena:
    """One arena, built from its seed alone.

    Obstacles keep `settings.gap_m` between their bounding circles, and either that much from the
    walls or stand against them.

    Attributes:
        solids: Four walls, then the obstacles.
        seed: What it was made from.
    """

    def __init__(self, seed: int, settings: Simulation) -> None:
        self.seed = seed
        self.half_size_m = settings.half_size_m
        rng = np.random.default_rng(seed)
        walls = self._walls(rng)
        obstacles = self._obstacles(rng, settings)
        self.solids = (*walls, *obstacles)
        self._circles = np.array([(*o.position_m[:2], o.radius_m) for o in obstacles]).reshape(-1, 3)

    def _walls(self, rng: np.random.Generator) -> list[Solid]:
        a, t, h = self.half_size_m, _WALL_HALF_THICKNESS_M, _WALL_HALF_HEIGHT_M
        walls = []
        for x, y, sx, sy in ((0, a, a, t), (0, -a, a, t), (a, 0, t, a), (-a, 0, t, a)):
            tint = rng.uniform(0.85, 1.1)
            walls.append(Solid("box", (x, y, h), (sx, sy, h), 0.0, (0.78 * tint, 0.74 * tint, 0.66 * tint)))
        return walls

    def _obstacles(self, rng: np.random.Generator, settings: Simulation) -> list[Solid]:
        inner = self.half_size_m - _WALL_HALF_THICKNESS_M
        placed: list[Solid] = []
        for _ in range(4000):
            if len(placed) == settings.obstacles:
                break
            solid = self._random_solid(rng, inner, settings.gap_m)
            wall_gap = inner - max(abs(solid.position_m[0]), abs(solid.position_m[1])) - solid.radius_m
            if 0 < wall_gap < settings.gap_m:
                continue
            if all(
                math.dist(solid.position_m[:2], other.position_m[:2])
                >= solid.radius_m + other.radius_m + settings.gap_m
                for other in placed
            ):
                placed.append(solid)
        return placed

    @staticmethod
    def _random_solid(rng: np.random.Generator, inner: float, gap_m: float) -> Solid:
        half_height = rng.uniform(0.15, 0.6)
        if rng.random() < 0.5:
            radius = rng.uniform(0.08, 0.3)
            kind: Literal["box", "cylinder"] = "cylinder"
            half_size = (radius, radius, half_height)
        else:
            kind, half_size = "box", (rng.uniform(0.1, 0.35), rng.uniform(0.1, 0.35), half_height)
            radius = math.hypot(*half_size[:2])
        reach = inner - radius - gap_m if rng.random() < 0.85 else inner - 0.1
        x, y = rng.uniform(-reach, reach, 2).tolist()
        red, green, blue = rng.uniform(0.2, 0.95, 3).tolist()
        return Solid(kind, (x, y, half_height), half_size, rng.uniform(0, math.pi), (red, green, blue))

    def spawn(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Return a random pose (x m, y m, yaw rad) with room around it."""
        reach = self.half_size_m - 0.8
        while True:
            x, y = rng.uniform(-reach, reach, 2)
            if self.clearance_m(x, y) > _SPAWN_CLEARANCE_M:
                return float(x), float(y), float(rng.uniform(-math.pi, math.pi))

    def clearance_m(self, x: float, y: float) -> float:
        """Return the distance from a point to the nearest bounding circle of an obstacle."""
        if len(self._circles) == 0:
            return math.inf
        offsets: NDArray[np.float64] = np.hypot(self._circles[:, 0] - x, self._circles[:, 1] - y)
        return float((offsets - self._circles[:, 2]).min())
