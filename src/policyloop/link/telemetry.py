"""A step as a flat row of named numbers and words: what plots, tables and monitors read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.core.step import StepRecord
from policyloop.errors import WireError

__all__ = ["Value", "columns", "proprio_of", "telemetry"]

Value = float | int | str


def proprio_of(frames: Sequence[bytes], profile: RobotProfile) -> NDArray[np.float32]:
    """Return the proprioception vector among a step's encoded arrays; WireError if it is damaged."""
    spec = profile.observation_specs["proprio"]
    at = list(profile.observation_specs).index("proprio")
    if len(frames) <= at or len(frames[at]) != spec.nbytes:
        raise WireError("bad-proprio", f"expected {spec.nbytes} bytes")
    vector = np.frombuffer(frames[at], np.float32)
    if not np.isfinite(vector).all():
        raise WireError("bad-proprio", "not finite")
    return vector


def telemetry(record: StepRecord, proprio: NDArray[np.float32], profile: RobotProfile) -> dict[str, Value]:
    """Return one row; the same keys, in the same order, for every step of a profile. SI units, latencies in ms.

    Args:
        record: Of the step.
        proprio: What its robot sensed, (profile.proprio_size,).
        profile: The robot's.
    """
    stamps, behaviour = record.stamps, record.action.behaviour
    row: dict[str, Value] = {
        "robot": record.robot,
        "boot": record.boot,
        "sequence": record.sequence,
        "episode": record.episode,
        "index": record.index,
        "captured_s": stamps.captured_ns * 1e-9,
        "wall_clock_s": record.wall_clock_s,
        "infer_ms": (stamps.inferred_ns - stamps.captured_ns) * 1e-6,
        "act_ms": (stamps.acted_ns - stamps.captured_ns) * 1e-6,
        "source": record.action.source,
        "policy_version": behaviour.policy_version if behaviour is not None else 0,
        "gate": " ".join(record.command.reasons),
        "damped": int(record.command.damped),
        "terminated": int(record.terminated),
        "truncated": int(record.truncated),
        "gap": int(record.gap),
        "reward": record.reward,
    }
    row |= {f"reward_terms/{name}": record.reward_terms.get(name, 0.0) for name in profile.reward}
    names = [entry.name for entry in profile.action]
    row |= {f"action/{name}": value for name, value in zip(names, record.action.values, strict=True)}
    row |= {f"command/{name}": value for name, value in zip(names, record.command.values, strict=True)}
    return row | dict(zip(_proprio_names(profile), proprio.tolist(), strict=True))


def columns(profile: RobotProfile) -> list[str]:
    """Return the keys of every row of a profile."""
    fixed = (
        "robot boot sequence episode index captured_s wall_clock_s infer_ms act_ms source policy_version gate damped "
        "terminated truncated gap reward"
    )
    names = [entry.name for entry in profile.action]
    return [
        *fixed.split(),
        *(f"reward_terms/{name}" for name in profile.reward),
        *(f"action/{name}" for name in names),
        *(f"command/{name}" for name in names),
        *_proprio_names(profile),
    ]


def _proprio_names(profile: RobotProfile) -> Iterator[str]:
    for quantity in profile.proprio:
        if quantity.size == 1:
            yield f"proprio/{quantity.name}"
        else:
            yield from (f"proprio/{quantity.name}/{index}" for index in range(quantity.size))
