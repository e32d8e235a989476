"""Journal -> what the learner eats: demonstrations, and traces of what the policy itself drove.

Every step that is read ends in exactly one bin of the ledger (row N3). A trace ends where the
episode ends, where steps are missing, where a human takes over, and where the policy that drove is
too old; only inside it may values be carried from one step to the next.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.corridor import column_distances
from policyloop.core.features import features
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.core.reward import total_reward
from policyloop.core.step import Arrays, Step, StepRecord
from policyloop.errors import StorageError, WireError
from policyloop.learn.bc import Demonstrations
from policyloop.learn.networks import SCAN_COLUMNS
from policyloop.learn.rollout import Trace
from policyloop.link.journal import Journal

__all__ = ["Feed", "FeedState", "FinishedEpisode", "learner_inputs", "load_demonstrations", "newest_demonstrations"]

_DEMONSTRATORS = ("human", "scripted")
_UNTRACED = {"human": "demonstration", "scripted": "demonstration", "policy": "undrawn"}
"""Where a step goes that has no density to learn from."""

_DAMAGE = (StorageError, WireError)
"""What reading a record may raise."""


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


def newest_demonstrations(journal: Journal, *, start: int = 0, stop: int, limit: int = 20_000) -> list[int]:
    """Return the positions, in order, of the newest human and scripted steps from `start` to before `stop`."""
    found = (position for position in range(stop - 1, start - 1, -1) if is_demonstration(journal, position))
    return list(islice(found, limit))[::-1]


def load_demonstrations(journal: Journal, normalizer: Normalizer, positions: Sequence[int]) -> Demonstrations:
    """Read the demonstrations at these positions.

    What is learned is what the teacher proposed, not what a disturbance made of it.
    """
    inputs: list[Arrays] = []
    actions: list[tuple[float, ...]] = []
    for position in positions:
        step = journal.read(position)
        inputs.append(learner_inputs(journal.profile, normalizer, step.observation))
        actions.append(step.record.action.values)
    names = inputs[0].keys() if inputs else ()
    return Demonstrations(
        {name: np.stack([entry[name] for entry in inputs]) for name in names},
        np.array(actions, np.float32).reshape(len(actions), len(journal.profile.action)),
    )


def is_demonstration(journal: Journal, position: int) -> bool:
    """Tell whether the record at `position` is an intact demonstration."""
    try:
        return journal.header(position).action.source in _DEMONSTRATORS
    except _DAMAGE:
        return False


class FeedState(msgspec.Struct, kw_only=True):
    """Where in the journal the learner stands; part of a checkpoint."""

    position: int = 0
    """First record that may hold something not consumed yet."""
    consumed: dict[str, int] = {}
    """Per robot/boot, the newest sequence number that is consumed already."""
    read: int = 0
    """First record that was never read; damage before it is counted already."""
    ledger: dict[str, int] = {}


@dataclass(frozen=True)
class FinishedEpisode:
    """Score of an episode that a policy drove."""

    score: float
    steps: int
    collided: bool
    terms: dict[str, float]


@dataclass
class _Item:
    position: int
    record: StepRecord
    inputs: Arrays
    proprio: NDArray[np.float32]


@dataclass
class _Stream:
    """One (robot, boot): the open trace and the running episode."""

    items: list[_Item] = field(default_factory=list)
    terms: Counter[str] = field(default_factory=Counter)
    steps: int = 0


class Feed:
    """Follows a journal from where a checkpoint left off.

    Args:
        journal: Open for reading or writing.
        normalizer: Applied to proprioception.
        max_staleness: Policy versions that a step may lag behind the learner.
        reward: Weights that replace those of the profile's training reward.
        state: From a checkpoint; None = from the beginning.

    Attributes:
        ledger: Steps per bin: trained, demonstration, undrawn, too-old, gap, other, damaged.
        episodes: Finished since the last `take`.
        demonstrations: Positions of the demonstrations read so far by this object, in order.
    """

    def __init__(
        self,
        journal: Journal,
        normalizer: Normalizer,
        *,
        max_staleness: int,
        reward: Mapping[str, float] | None = None,
        state: FeedState | None = None,
    ) -> None:
        state = state or FeedState()
        self.ledger: Counter[str] = Counter(state.ledger)
        self.episodes: list[FinishedEpisode] = []
        self.demonstrations: list[int] = []
        self._journal = journal
        self._profile = journal.profile
        self._normalizer = normalizer
        self._max_staleness = max_staleness
        self._weights = {**journal.profile.training_reward, **(reward or {})}
        self._next = state.position
        self._read = state.read
        self._consumed = dict(state.consumed)
        self._streams: dict[str, _Stream] = defaultdict(_Stream)
        self._traces: list[Trace] = []

    @property
    def state(self) -> FeedState:
        """Where to go on after a restart."""
        waiting = [item.position for stream in self._streams.values() for item in stream.items]
        position = min(waiting, default=self._next)
        return FeedState(position=position, consumed=dict(self._consumed), read=self._read, ledger=dict(self.ledger))

    @property
    def ready(self) -> int:
        """Policy steps that `take` would give now: the last one of an open trace waits for its successor."""
        waiting = sum(max(0, len(stream.items) - 1) for stream in self._streams.values())
        return sum(len(trace) for trace in self._traces) + waiting

    def advance(self, version: int, until_ready: int) -> bool:
        """Read on until `until_ready` policy steps are ready; False if the journal ends before.

        Args:
            version: The learner's, against which staleness counts.
            until_ready: How many steps the next rollout needs.
        """
        for key, stream in self._streams.items():
            self._drop_old(stream, key, version)
        while self.ready < until_ready:
            if self._next >= self._journal.next:
                return False
            self._take_in(self._next, version)
            self._next += 1
            self._read = max(self._read, self._next)
        return True

    def _drop_old(self, stream: _Stream, key: str, version: int) -> None:
        """Give up steps that grew too old while they waited for their successor."""
        while stream.items and self._is_old(stream.items[0].record, version):
            self._bin(key, stream.items.pop(0).record, "too-old")

    def _is_old(self, record: StepRecord, version: int) -> bool:
        behaviour = record.action.behaviour
        assert behaviour is not None
        return version - behaviour.policy_version > self._max_staleness

    def _take_in(self, position: int, version: int) -> None:
        try:
            step = self._journal.read(position)
        except _DAMAGE:
            self.ledger["damaged"] += position >= self._read
            return
        record = step.record
        key = f"{record.robot}/{record.boot}"
        if record.sequence <= self._consumed.get(key, -1):
            return
        stream = self._streams[key]
        self._keep_score(stream, record)
        if not _was_drawn(record):
            self._interrupt(stream, key, step)
            self._bin(key, record, _UNTRACED.get(record.action.source, "other"))
            if record.action.source in _DEMONSTRATORS and position >= self._read:
                self.demonstrations.append(position)
            return
        item = _Item(position, record, self._inputs(step.observation), step.observation["proprio"])
        if stream.items and not _follows(stream.items[-1].record, record):
            self._drop_tail(stream, key)
        if self._is_old(record, version):
            self._interrupt(stream, key, step)
            self._bin(key, record, "too-old")
            return
        stream.items.append(item)
        if record.ended:
            final = step.final_observation
            if final is None:  # cannot be valued: v1 has no final observation
                self._drop_tail(stream, key)
            else:
                self._close(stream, key, self._inputs(final), final["proprio"], terminated=record.terminated)

    def _inputs(self, arrays: Arrays) -> Arrays:
        return learner_inputs(self._profile, self._normalizer, arrays)

    def _interrupt(self, stream: _Stream, key: str, step: Step) -> None:
        """End the open trace, if any, at an observation that somebody else acted upon."""
        if not stream.items:
            return
        if _follows(stream.items[-1].record, step.record):
            proprio = step.observation["proprio"]
            self._close(stream, key, self._inputs(step.observation), proprio, terminated=False)
        else:
            self._drop_tail(stream, key)

    def _drop_tail(self, stream: _Stream, key: str) -> None:
        """End the open trace where nothing is known of what followed: its last state stands for the future."""
        last = stream.items.pop()
        self._bin(key, last.record, "gap")
        if stream.items:
            self._close(stream, key, last.inputs, last.proprio, terminated=False)

    def _close(
        self, stream: _Stream, key: str, final: Arrays, final_proprio: NDArray[np.float32], *, terminated: bool
    ) -> None:
        """Turn the open trace into a `Trace` that ends in state `final`."""
        items = stream.items
        after = [*(item.proprio for item in items[1:]), final_proprio]
        rewards = [
            self._reward(item.record, proprio, terminated and item is items[-1])
            for item, proprio in zip(items, after, strict=True)
        ]
        behaviours = [item.record.action.behaviour for item in items]
        self._traces.append(
            Trace(
                features={name: np.stack([*(item.inputs[name] for item in items), final[name]]) for name in final},
                sample=np.array([b.sample for b in behaviours if b], np.float32),
                log_prob=np.array([b.log_prob for b in behaviours if b], np.float32),
                mean=np.array([b.mean for b in behaviours if b], np.float32),
                log_std=np.array([b.log_std for b in behaviours if b], np.float32),
                reward=np.array(rewards, np.float32),
                terminated=terminated,
            )
        )
        for item in items:
            self._bin(key, item.record, "trained")
        stream.items = []

    def _reward(self, record: StepRecord, next_proprio: NDArray[np.float32], collided: bool) -> float:
        """Recompute the training reward from what followed the step."""
        span = 2 * self._profile.action_half_range
        taken = np.abs(np.subtract(record.action.values, record.command.values)) / span
        outcome = self._profile.outcome(next_proprio, collided=collided, overridden=float(min(1.0, taken.max())))
        return total_reward(self._weights, outcome)

    def _bin(self, key: str, record: StepRecord, name: str) -> None:
        self.ledger[name] += 1
        self._consumed[key] = max(record.sequence, self._consumed.get(key, -1))

    def _keep_score(self, stream: _Stream, record: StepRecord) -> None:
        if record.index == 0:
            stream.terms, stream.steps = Counter(), 0
        if record.action.source == "policy":
            for name, value in record.reward_terms.items():
                stream.terms[name] += value  # type: ignore[assignment]
            stream.steps += 1
            if record.ended and stream.steps == record.index + 1:
                terms = {name: float(value) for name, value in stream.terms.items()}
                self.episodes.append(FinishedEpisode(sum(terms.values()), stream.steps, record.terminated, terms))

    def take(self) -> list[Trace]:
        """Return every ready step as traces. The last step of an open trace waits for its successor."""
        # In a fixed order: after a restart streams begin in another one.
        for key, stream in sorted(self._streams.items(), key=lambda entry: entry[0]):
            if len(stream.items) >= 2:
                last = stream.items.pop()
                self._close(stream, key, last.inputs, last.proprio, terminated=False)
                stream.items = [last]
        traces, self._traces = self._traces, []
        return traces


def _was_drawn(record: StepRecord) -> bool:
    """The action was drawn from a policy's distribution, so that it may enter a policy gradient."""
    behaviour = record.action.behaviour
    return record.action.source == "policy" and behaviour is not None and behaviour.drawn


def _follows(first: StepRecord, second: StepRecord) -> bool:
    """`second` is the very next step of the same episode."""
    return second.episode == first.episode and second.index == first.index + 1 and not second.gap
