"""An episode as it is shown: numbers in physical units, pictures within a budget."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Behaviour, Step, StepRecord
from policyloop.link.journal import Journal
from policyloop.view.colours import depth_colours
from policyloop.view.episodes import Episode
from policyloop.view.pictures import Pictures
from policyloop.wire.codec import decode_step

__all__ = ["PICTURE_BYTES", "Reel", "Shot", "load_reel"]

PICTURE_BYTES = 32 << 20
_MOST_SHOTS = 20_000
_DIGITS = 5


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """One step. Actions are in the profile's order and units.

    Attributes:
        time_s: Since the first step that is shown.
        mean, low, high: What the policy's density means: its middle, and one standard deviation below and above;
            empty where no policy drove.
        events: What else there was: terminated, truncated, gap, contact, intervention.
        inferred_ms, acted_ms: After the sensors were read.
        picture: Place in the reel's pictures; -1 where there is none.
    """

    index: int
    time_s: float
    source: str
    version: int
    digest: str
    backend: str
    proposed: list[float]
    commanded: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    reasons: tuple[str, ...]
    reward: dict[str, float]
    events: list[str]
    inferred_ms: float
    acted_ms: float
    proprio: list[float]
    picture: int


class Reel(msgspec.Struct, frozen=True, kw_only=True):
    """One episode.

    Attributes:
        began_s: By the robot's wall clock, s since 1970; for people only.
        steps: How many the episode has.
        damaged: How many of them cannot be read.
        stride: Every so many steps are shown.
        picture_stride: Every so many of those have pictures.
        actions: Name, unit, lowest and highest value.
        quantities: Name and unit of each number of the proprioception.
    """

    robot: str
    boot: str
    number: int
    profile: str
    profile_digest: str
    began_s: float
    steps: int
    damaged: int
    stride: int
    picture_stride: int
    actions: list[tuple[str, str, float, float]]
    quantities: list[tuple[str, str]]
    shots: list[Shot]
    rgb: list[str]
    depth: list[str]


def load_reel(
    journal: Journal, episode: Episode, *, picture_bytes: int = PICTURE_BYTES, most_shots: int = _MOST_SHOTS
) -> Reel:
    """Read an episode. However long it is, the reel stays bounded.

    Args:
        journal: Where it is.
        episode: Which.
        picture_bytes: What pictures may take; more of them are left out, evenly, as it gets used up.
        most_shots: Of a longer episode, every second, third, ... step is shown.
    """
    profile = journal.profile
    stride = -(-len(episode.positions) // most_shots) or 1
    names = list(profile.observation_specs)
    pictures = Pictures(picture_bytes)
    read: list[tuple[StepRecord, NDArray[np.float32]]] = []

    def decode(position: int) -> tuple[Step, bytes]:
        header, frames, _ = journal.parts(position)
        stored = frames[names.index("rgb")] if "rgb" in names else b""
        return decode_step(header, frames, profile), bytes(stored)

    for _, (step, stored) in journal.intact(decode, episode.positions[::stride]):
        if profile.camera is not None and pictures.wants(len(read)):
            depth = depth_colours(step.observation["depth"], profile.camera)
            pictures.add(step.observation["rgb"], stored, depth)
        read.append((step.record, step.observation["proprio"]))
    began_ns = read[0][0].stamps.captured_ns if read else 0
    shown = len(pictures.rgb)
    shots = [
        _shot(profile, record, proprio, began_ns, _picture(index, pictures.stride, shown))
        for index, (record, proprio) in enumerate(read)
    ]
    return Reel(
        robot=episode.robot,
        boot=episode.boot,
        number=episode.number,
        profile=profile.name,
        profile_digest=profile.digest,
        began_s=read[0][0].wall_clock_s if read else 0.0,
        steps=len(episode.positions),
        damaged=len(episode.positions[::stride]) - len(read),
        stride=stride,
        picture_stride=pictures.stride,
        actions=[(one.name, one.unit, one.low, one.high) for one in profile.action],
        quantities=[
            (f"{one.name} {place}" if one.size > 1 else one.name, one.unit)
            for one in profile.proprio
            for place in range(one.size)
        ],
        shots=shots,
        rgb=pictures.rgb,
        depth=pictures.depth,
    )


def _picture(index: int, stride: int, shown: int) -> int:
    """Return the place of the newest picture that was there at a step; -1 if there are none."""
    return min(index // stride, shown - 1)


def _shot(profile: RobotProfile, record: StepRecord, proprio: NDArray[np.float32], began_ns: int, picture: int) -> Shot:
    behaviour, stamps = record.action.behaviour, record.stamps
    mean, low, high = _density(profile, behaviour)
    flags = {name: getattr(record, name) for name in ("terminated", "truncated", "gap", "contact")}
    events = [name for name, happened in flags.items() if happened]
    return Shot(
        index=record.index,
        time_s=_round((stamps.captured_ns - began_ns) * 1e-9),
        source=record.action.source,
        version=behaviour.policy_version if behaviour else 0,
        digest=behaviour.policy_digest if behaviour else "",
        backend=behaviour.backend if behaviour else "",
        proposed=_rounded(record.action.values),
        commanded=_rounded(record.command.values),
        mean=mean,
        low=low,
        high=high,
        reasons=(*record.command.reasons, *(("damped",) if record.command.damped else ())),
        reward={name: _round(value) for name, value in record.reward_terms.items()},
        events=[*events, f"intervention: {record.intervention}"] if record.intervention else events,
        inferred_ms=_round((stamps.inferred_ns - stamps.captured_ns) * 1e-6),
        acted_ms=_round((stamps.acted_ns - stamps.captured_ns) * 1e-6),
        proprio=_rounded(proprio),
        picture=picture,
    )


def _density(profile: RobotProfile, behaviour: Behaviour | None) -> tuple[list[float], list[float], list[float]]:
    """Return middle, and one standard deviation below and above, as actions: the map bends what was a Gaussian."""
    if behaviour is None:
        return [], [], []
    mean, std = np.array(behaviour.mean), np.exp(np.array(behaviour.log_std))
    middle, below, above = (_rounded(profile.actions_of(outputs)) for outputs in (mean, mean - std, mean + std))
    return middle, below, above


def _rounded(values: Iterable[float] | NDArray[np.floating]) -> list[float]:
    return [_round(float(value)) for value in values]


def _round(value: float) -> float:
    return round(value, _DIGITS)
