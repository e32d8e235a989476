"""How a foreign policy's observations are normalised: by statistics that were given, its own, or the profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policyloop.convert.observation_statistics import (
    StatisticsOf,
    as_normalizer,
    load_observation_statistics,
    unclipped_nominal,
)
from policyloop.convert.pt_file import PtFile
from policyloop.convert.trained_statistics import take_trained_statistics
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.errors import UsageError

__all__ = ["Normalisation", "choose_normalisation"]


@dataclass(frozen=True)
class Normalisation:
    """What maps what a robot senses to what the network sees.

    Attributes:
        source: Where it comes from; for people.
    """

    normalizer: Normalizer
    source: str


def choose_normalisation(
    path: Path, file: PtFile | None, profile: RobotProfile, statistics: Path | None, of: StatisticsOf | None
) -> tuple[Normalisation, PtFile | None]:
    """Return the normalisation, and the file without the statistics in it that were used.

    Args:
        path: Of the policy.
        file: What is in it; None for an ONNX file, whose statistics are nodes of its graph.
        profile: Of the robot.
        statistics: An `.npz` file that a person gave; it counts more than what the policy's file holds.
        of: Which vector they are of; None = sensed for a file of statistics, scaled for those in a checkpoint: they
            see what the network would see without them.

    Raises:
        UsageError: `of` is given and there are no statistics.
        PolicyloopError: See `load_observation_statistics` and `take_trained_statistics`.
    """
    if statistics is not None:
        of = of or "sensed"
        given = load_observation_statistics(statistics, profile, of)
        return Normalisation(given, f"{statistics.name}, of {of} observations"), file
    if file is not None:
        trained, file = take_trained_statistics(file, str(path), profile.proprio_size)
        if trained is not None:
            of = of or "scaled"
            own = as_normalizer(trained.mean, trained.std, profile, of, f"{path}: {trained.name}")
            return Normalisation(own, f"{trained.name} of {path.name}, of {of} observations"), file
    if of is not None:
        raise UsageError(
            f"--obs-stats-of {of}: {path} holds no statistics", "give them: --obs-stats, or leave this out"
        )
    return Normalisation(unclipped_nominal(profile), "the profile's, without a clip"), file
