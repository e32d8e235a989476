"""Choose a calibration set that covers how a robot drives: slow and fast, near and far, dark and bright.

Samples taken by the clock are mostly alike. Here every observation of a journal falls into one of
27 strata, three each of speed, free distance and brightness with the journal's own terciles as
edges, and the set takes from every stratum in turn until it is full.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.calibration import save_inputs, save_sample
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays, StepRecord
from policyloop.errors import ConfigError, UsageError
from policyloop.link.journal import Journal

__all__ = ["Coverage", "choose_calibration", "choose_positions", "draw_positions", "record_calibration"]

_PARTS = 3
_MAX_CANDIDATES = 5000


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
    _check_new(output)
    positions, coverage = choose_positions(journal, count, seed=seed)
    for number, (_, step) in enumerate(journal.intact(journal.read, positions)):
        save_sample(output, number, step.observation)
    return coverage


def record_calibration(
    env: Any,
    policy: Callable[[Any], Any] | None,
    output: Path,
    count: int,
    *,
    interval: int = 10,
    seed: int = 0,
    name: str = "obs",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Drive a Gymnasium environment and write every so manieth observation to a new folder.

    Args:
        env: Gives observations; a dictionary with `proprio` counts as a robot's, any other as
            network inputs by name, an array as the one input `name`. Reset whenever an episode ends.
        policy: Called with an observation, returns an action; None = random actions.
        output: New folder.
        count: How many samples.
        interval: Steps from one sample to the next.
        seed: Of the environment.
        name: Of the network's input, where observations are arrays.
        progress: Called with (samples written, samples in all).

    Raises:
        UsageError: `output` holds something.
        ConfigError: `env` is no environment.
        StorageError: The disk refuses.
    """
    _check_new(output)
    for needed in ("reset", "step", *(["action_space"] if policy is None else [])):
        if not hasattr(env, needed):
            raise ConfigError(
                f"a {type(env).__name__} is no Gymnasium environment: it has no {needed}", "see docs/conversion.md"
            )
    if policy is None:
        env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    for number in range(count):
        progress(number, count)
        _save(output, number, observation, name)
        for _ in range(interval):
            action = env.action_space.sample() if policy is None else policy(observation)
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                observation, _ = env.reset()


def _check_new(output: Path) -> None:
    """Raise UsageError unless `output` can become a folder of samples."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is no folder", "choose another --output")
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty", "choose another --output")


def _save(output: Path, number: int, observation: Any, name: str) -> None:
    arrays = observation if isinstance(observation, dict) else {name: np.asarray(observation)}
    if "proprio" in arrays:
        save_sample(output, number, arrays)
    else:
        save_inputs(output, number, arrays)


def choose_positions(
    journal: Journal, count: int, *, seed: int = 0, wanted: Callable[[StepRecord], bool] = lambda record: True
) -> tuple[list[int], Coverage]:
    """Return where in a journal `count` observations of all kinds are, and how well they cover it.

    Of a long journal a random part is looked at, `_MAX_CANDIDATES` steps.

    Raises:
        UsageError: The journal holds no step that is wanted.
    """
    positions = draw_positions(journal, _MAX_CANDIDATES, seed=seed, wanted=wanted)
    positions, measures = _measure(journal, sorted(positions))
    if not positions:
        raise UsageError("the journal holds no steps", "record some first")
    edges = {name: np.quantile(values, [1 / 3, 2 / 3]) for name, values in measures.items()}
    kinds = np.stack([np.searchsorted(edges[name], values, side="left") for name, values in measures.items()], axis=1)
    strata: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, kind in zip(positions, kinds.tolist(), strict=True):
        strata[tuple(kind)].append(position)
    chosen = _in_turn(strata, count, np.random.default_rng(seed))
    counts: dict[str, int] = {}
    for kind, _ in chosen:
        name = "-".join(map(str, kind))
        counts[name] = counts.get(name, 0) + 1
    coverage = Coverage(
        candidates=len(positions),
        chosen=len(chosen),
        strata=len(strata),
        covered=len(counts),
        edges={name: values.tolist() for name, values in edges.items()},
        counts=dict(sorted(counts.items())),
    )
    return [position for _, position in chosen], coverage


def draw_positions(
    journal: Journal, count: int, *, seed: int = 0, wanted: Callable[[StepRecord], bool] = lambda record: True
) -> list[int]:
    """Return the positions of up to `count` random steps that are wanted, in random order."""
    shuffled = journal.first + np.random.default_rng(seed).permutation(journal.next - journal.first)
    found = (at for at, record in journal.intact(journal.header, shuffled.tolist()) if wanted(record))
    return list(islice(found, count))


def _measure(journal: Journal, candidates: list[int]) -> tuple[list[int], dict[str, NDArray[np.float64]]]:
    """Return which of these steps are intact, and what they are told apart by."""
    positions, rows = [], []
    for position, step in journal.intact(journal.read, candidates):
        positions.append(position)
        rows.append(_measures(journal.profile, step.observation))
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
