"""Sparse arenas first, denser ones once the driver copes, sparser ones again if it does not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from policyloop.core.profile import Simulation
from policyloop.errors import ConfigError
from policyloop.robot.recorder import EpisodeSummary

__all__ = ["Curriculum", "CurriculumSettings", "Level"]


class Level(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How dense an arena is: see `Simulation`."""

    obstacles: int
    gap_m: float


def _levels(*levels: tuple[int, float]) -> tuple[Level, ...]:
    return tuple(Level(obstacles=obstacles, gap_m=gap_m) for obstacles, gap_m in levels)


class CurriculumSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a robot moves on to the next level, and when it falls back by one.

    Attributes:
        levels: From sparse to dense.
        episodes: The mean of so many of the last episodes decides; all of them at the present level.
        harder_score: The next level needs at least this mean score...
        harder_collisions: ...and at most this share of collisions; so a robot that only waits does not move on.
        easier_score: Below this mean score a robot falls back...
        easier_collisions: ...and also above this share of collisions.
    """

    levels: tuple[Level, ...] = _levels((6, 1.5), (12, 1.2), (18, 1.0), (24, 0.9), (30, 0.8))
    episodes: int = 10
    harder_score: float = 150.0
    harder_collisions: float = 0.2
    easier_score: float = 0.0
    easier_collisions: float = 0.6

    def __post_init__(self) -> None:
        if not self.levels or self.episodes < 1:
            raise ConfigError("a curriculum needs at least one level, and one episode to decide by")
        for easy, hard in itertools.pairwise(self.levels):
            if hard.obstacles < easy.obstacles or hard.gap_m > easy.gap_m:
                raise ConfigError(
                    f"{hard.obstacles} obstacles {hard.gap_m:g} m apart are no denser than {easy.obstacles} obstacles "
                    f"{easy.gap_m:g} m apart",
                    "order the levels from sparse to dense",
                )
        if not (self.easier_score < self.harder_score and self.harder_collisions < self.easier_collisions):
            raise ConfigError(
                "a robot could deserve the next level and the last one at the same time",
                "keep easier_score below harder_score, and harder_collisions below easier_collisions",
            )


class Curriculum:
    """The way of one robot through the levels; equal outcomes lead equal ways.

    Args:
        settings: Levels and thresholds.
        simulation: The robot's world in all but density.

    Attributes:
        level: Index of the present level.
    """

    def __init__(self, settings: CurriculumSettings, simulation: Simulation) -> None:
        self._settings, self._simulation = settings, simulation
        self._since = 0
        self.level = 0

    def world(self, episodes: Sequence[EpisodeSummary]) -> Simulation:
        """Return what the next arena is to be like.

        Args:
            episodes: All that this robot has finished, in order.
        """
        step = self._step(episodes[self._since :][-self._settings.episodes :])
        if step and 0 <= self.level + step < len(self._settings.levels):
            self.level += step
            self._since = len(episodes)
        level = self._settings.levels[self.level]
        return msgspec.structs.replace(self._simulation, obstacles=level.obstacles, gap_m=level.gap_m)

    def _step(self, recent: Sequence[EpisodeSummary]) -> int:
        """Return 1 for the next level, -1 for the last one, 0 to stay."""
        settings = self._settings
        if len(recent) < settings.episodes:
            return 0
        score = sum(episode.score for episode in recent) / len(recent)
        collisions = sum(episode.collided for episode in recent) / len(recent)
        if score >= settings.harder_score and collisions <= settings.harder_collisions:
            return 1
        return -1 if score < settings.easier_score or collisions > settings.easier_collisions else 0
