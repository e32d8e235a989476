"""Choose a calibration set that covers how a robot drives: slow and fast, near and far, dark and bright.

Samples taken by the clock are mostly alike. Here every observation of a journal falls into one of
27 strata, three each of speed, free distance and brightness with the journal's own terciles as
edges, and the set takes from every stratum in turn until it is full.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.calibration import save_sample
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays
from policyloop.errors import StorageError, UsageError, WireError
from policyloop.link.journal import Journal

__all__ = ["Coverage", "choose_calibration"]

_PARTS = 3


class Coverage(msgspec.Struct, kw_only=True):
    """How well a calibration set covers the driving that it was chosen from."""

    candidates: int
    chosen: int
    strata: int
    """Kinds of situation that occur at all, of 27."""
    covered: int
    """Kinds of which the set holds at least one."""
    edges: dict[str, list[float]]
    """Where the strata of each quantity meet: m/s, m, grey value."""
    counts: dict[str, int]
    """Samples per stratum, named speed-distance-brightness, 0 = lowest."""


def choose_calibration(journal: Journal, output: Path, count: int = 100, *, seed: int = 0) -> Coverage:
    """Write `count` samples of a journal to a new folder.

    Raises:
        UsageError: `output` holds something, or the journal nothing.
        StorageError: The disk refuses.
    """
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty", "choose another --output")
    positions, measures = _measure(journal)
    if not positions:
        raise UsageError("the journal holds no steps", "record some first")
    edges = {name: np.quantile(values, [1 / 3, 2 / 3]) for name, values in measures.items()}
    kinds = np.stack([np.searchsorted(edges[name], values, side="left") for name, values in measures.items()], axis=1)
    strata: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, kind in zip(positions, kinds.tolist(), strict=True):
        strata[tuple(kind)].append(position)
    chosen = _in_turn(strata, count, np.random.default_rng(seed))
    for number, (_, position) in enumerate(chosen):
        save_sample(output, number, journal.read(position).observation)
    counts: dict[str, int] = {}
    for kind, _ in chosen:
        name = "-".join(map(str, kind))
        counts[name] = counts.get(name, 0) + 1
    return Coverage(
        candidates=len(positions),
        chosen=len(chosen),
        strata=len(strata),
        covered=len(counts),
        edges={name: values.tolist() for name, values in edges.items()},
        counts=dict(sorted(counts.items())),
    )


def _measure(journal: Journal) -> tuple[list[int], dict[str, NDArray[np.float64]]]:
    """Return the positions of all intact steps, and what they are told apart by."""
    positions, rows = [], []
    for position in range(journal.first, journal.next):
        try:
            observation = journal.read(position).observation
        except (StorageError, WireError):
            continue
        positions.append(position)
        rows.append(_measures(journal.profile, observation))
    names = rows[0].keys() if rows else ()
    return positions, {name: np.array([row[name] for row in rows]) for name in names}


def _measures(profile: RobotProfile, observation: Arrays) -> dict[str, float]:
    senses = {quantity.name for quantity in profile.proprio}
    proprio = observation["proprio"]

    def sensed(name: str) -> float:
        return abs(float(proprio[profile.proprio_index(name)])) if name in senses else 0.0

    brightness = float(observation["rgb"].mean()) if "rgb" in observation else 0.0
    return {"speed": sensed("linear_vel"), "distance": sensed("min_forward_dist"), "brightness": brightness}


def _in_turn(
    strata: dict[tuple[int, ...], list[int]], count: int, rng: np.random.Generator
) -> list[tuple[tuple[int, ...], int]]:
    """Draw one position of every stratum in turn until there are `count`, or no more."""
    left = {kind: rng.permutation(positions).tolist() for kind, positions in sorted(strata.items())}
    chosen: list[tuple[tuple[int, ...], int]] = []
    while len(chosen) < count and any(left.values()):
        for kind, positions in left.items():
            if positions and len(chosen) < count:
                chosen.append((kind, int(positions.pop())))
    return chosen
