"""One step as learners see it: the policy's features, what only the critic sees, and the reward to maximise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from policyloop.core.corridor import column_distances
from policyloop.core.features import feature_specs, features
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.core.reward import total_reward
from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays, StepRecord
from policyloop.learn.networks import SCAN_COLUMNS

__all__ = ["example_inputs", "follows", "input_specs", "learner_inputs", "scan", "training_reward"]

_EXAMPLES = 16


def scan(depth_mm: NDArray[np.uint16], profile: RobotProfile) -> NDArray[np.float32]:
    """Return the critic's scan: per sector, near / nearest distance, 0 (far or unknown) .. 1, (SCAN_COLUMNS,)."""
    assert profile.camera is not None
    near_m = profile.camera.depth_near_m
    columns = column_distances(depth_mm, profile.camera)
    columns[columns == 0] = np.inf
    per_sector = -(-len(columns) // SCAN_COLUMNS)
    padded = np.pad(columns, (0, per_sector * SCAN_COLUMNS - len(columns)), constant_values=np.inf)
    nearest = padded.reshape(SCAN_COLUMNS, per_sector).min(axis=1)
    return np.minimum(near_m / nearest, 1).astype(np.float32)


def learner_inputs(profile: RobotProfile, normalizer: Normalizer, arrays: Arrays) -> Arrays:
    """Return the policy's features and, for a robot with a camera, the critic's `scan`."""
    result = features(profile, normalizer, arrays)
    if profile.camera is not None:
        result["scan"] = scan(arrays["depth"], profile)
    return result


def input_specs(profile: RobotProfile) -> dict[str, ArraySpec]:
    """Return the specs of `learner_inputs`, in its order."""
    specs = feature_specs(profile)
    if profile.camera is not None:
        specs["scan"] = ArraySpec(name="scan", shape=(SCAN_COLUMNS,), dtype="float32")
    return specs


def example_inputs(features: Mapping[str, NDArray[np.generic]], states: int) -> list[Arrays]:
    """Return the inputs of a few of the first `states` rows, evenly spread: to check an exported policy with."""
    rows = np.linspace(0, states - 1, _EXAMPLES).astype(int)
    return [{name: array[row] for name, array in features.items()} for row in rows]


def training_reward(
    profile: RobotProfile,
    weights: Mapping[str, float],
    record: StepRecord,
    next_proprio: NDArray[np.float32],
    *,
    collided: bool,
) -> float:
    """Return what a step earned, recomputed from the observation that followed it.

    Args:
        profile: Says where in the proprioception vector the reward's quantities are.
        weights: Of each term.
        record: The step; what the gate took away of its proposal may cost something.
        next_proprio: What was seen after it.
        collided: The episode ended by collision with it.
    """
    span = 2 * profile.action_half_range
    taken = np.abs(np.subtract(record.action.values, record.command.values)) / span
    outcome = profile.outcome(next_proprio, collided=collided, overridden=float(min(1.0, taken.max())))
    return total_reward(weights, outcome)


def follows(first: StepRecord, second: StepRecord) -> bool:
    """Tell whether `second` is the very next step of the same episode."""
    return second.episode == first.episode and second.index == first.index + 1 and not second.gap
