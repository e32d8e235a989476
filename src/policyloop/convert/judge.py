"""What conversion costs, in the units that matter: the action's, not the tensor's (row N4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile

__all__ = ["ActionError", "Judgement", "Thresholds", "judge", "near_obstacles"]

_NEAR_M = 0.6
_WORST = 5


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a converted network may cost; shares are of each action's range.

    Attributes:
        output_abs: Largest error of the output before tanh; asked of float16 alone.
        return_loss: Share of the float network's return in closed loop.
    """

    mean: float = 0.02
    p99: float = 0.05
    output_abs: float = 5e-3
    return_loss: float = 0.05


class ActionError(msgspec.Struct, frozen=True, kw_only=True):
    """Error of one action on the held-out samples, in its unit."""

    name: str
    unit: str
    range: float
    mean: float
    p99: float
    worst: float
    worst_near: float | None
    """Worst where something is nearer than 0.6 m, or nothing is known; None if there is no such sample."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """How a converted network compares with the float one on samples that it was not calibrated on."""

    samples: int
    output_max_abs: float
    output_mean_abs: float
    actions: list[ActionError]
    worst_samples: list[int]
    """Which samples fare worst, worst first."""
    failures: list[str]
    """What the gate objects to; empty = passed."""


def judge(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    *,
    profile: RobotProfile | None,
    distances_m: NDArray[np.float32] | None,
    thresholds: Thresholds,
    precision: str,
) -> Judgement:
    """Compare outputs before tanh, (n, actions) each.

    Without a profile the outputs themselves are the actions, and their range is the one that was seen.
    """
    error = np.abs(found.astype(np.float64) - expected)
    actions, ranges, named = _actions(expected, found, profile)
    cost = np.abs(actions[1] - actions[0])
    near = near_obstacles(distances_m, len(expected))
    entries = [
        ActionError(
            name=name,
            unit=unit,
            range=float(ranges[i]),
            mean=float(cost[:, i].mean()),
            p99=float(np.quantile(cost[:, i], 0.99)),
            worst=float(cost[:, i].max()),
            worst_near=float(cost[near, i].max()) if near.any() else None,
        )
        for i, (name, unit) in enumerate(named)
    ]
    failures = [text for entry in entries for text in _objections(entry, thresholds)]
    if precision == "float16" and not error.max() <= thresholds.output_abs:
        failures.append(f"the network's output: worst error {error.max():.1e}, at most {thresholds.output_abs:g}")
    if not np.isfinite(found).all():
        failures.insert(0, "the converted network answers with numbers that are not finite")
    order = np.argsort(-(cost / ranges).max(axis=1))[:_WORST]
    return Judgement(
        samples=len(expected),
        output_max_abs=float(error.max()),
        output_mean_abs=float(error.mean()),
        actions=entries,
        worst_samples=order.tolist(),
        failures=failures,
    )


def _actions(
    expected: NDArray[np.float32], found: NDArray[np.float32], profile: RobotProfile | None
) -> tuple[list[NDArray[Any]], NDArray[np.float64], Sequence[tuple[str, str]]]:
    """Return both networks' actions, the ranges, and names with units."""
    if profile is None:
        spans = np.maximum(np.ptp(expected, axis=0).astype(np.float64), 1e-9)
        return [expected, found], spans, [(f"output {i}", "1") for i in range(expected.shape[1])]
    both: list[NDArray[Any]] = [profile.actions_of(mean) for mean in (expected, found)]
    return (
        both,
        2.0 * profile.action_half_range.astype(np.float64),
        [(entry.name, entry.unit) for entry in profile.action],
    )


def near_obstacles(distances_m: NDArray[np.float32] | None, count: int) -> NDArray[np.bool_]:
    """Return which samples have something near ahead, (n,). Unknown is 0, and so counts as near: as everywhere else."""
    return np.zeros(count, bool) if distances_m is None else distances_m < _NEAR_M


def _objections(entry: ActionError, thresholds: Thresholds) -> list[str]:
    found = [("mean", entry.mean, thresholds.mean), ("p99", entry.p99, thresholds.p99)]
    return [
        f"{entry.name}: {what} error {value:.4g} {entry.unit} is {value / entry.range:.1%} of its range, "
        f"at most {limit:.0%}"
        for what, value, limit in found
        if not value <= limit * entry.range
    ]
