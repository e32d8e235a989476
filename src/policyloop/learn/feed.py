"""Journal -> traces of what the policy itself drove, for learners that need the distribution it drew from.

Every step that is read ends in exactly one bin of the ledger (row N3). A trace ends where the
episode ends, where steps are missing, where a human takes over, and where the policy that drove is
too old; only inside it may values be carried from one step to the next.

Where several ranks learn together, each follows all headers, so that every one of them knows what all have read; it
decodes the arrays of its own episodes only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.normalizer import Normalizer
from policyloop.core.step import Arrays, Step, StepRecord
from policyloop.learn.demonstrations import DAMAGE, DEMONSTRATORS
from policyloop.learn.inputs import follows, learner_inputs, training_reward
from policyloop.learn.ranks import ALONE, Ranks
from policyloop.learn.rollout import Trace
from policyloop.learn.scores import Scores
from policyloop.learn.share import owner
from policyloop.link.journal import Journal
from policyloop.wire.codec import decode_step

__all__ = ["Feed", "FeedState"]

_UNTRACED = {"human": "demonstration", "scripted": "demonstration", "policy": "undrawn"}
"""Where a step goes that has no density to learn from."""


class FeedState(msgspec.Struct, kw_only=True):
    """Where in the journal the learner stands; part of a checkpoint."""

    position: int = 0
    """First record that may hold something not consumed yet."""
    consumed: dict[str, int] = {}
    """Per robot/boot, the newest sequence number that is consumed already."""
    read: int = 0
    """First record that was never read; damage before it is counted already."""
    ledger: dict[str, int] = {}


class _Seen(NamedTuple):
    """What was seen in one state."""

    inputs: Arrays
    proprio: NDArray[np.float32]


@dataclass
class _Item:
    position: int
    record: StepRecord
    seen: _Seen | None
    """None: another rank decodes this episode."""


@dataclass
class _Run:
    """Steps of which a trace was made, here or by another rank."""

    length: int
    trace: Trace | None


class Feed:
    """Follows a journal from where a checkpoint left off.

    Args:
        journal: Open for reading or writing.
        normalizer: Applied to proprioception.
        max_staleness: Policy versions that a step may lag behind the learner.
        reward: Weights that replace those of the profile's training reward.
        takeover_penalty: What it costs the policy's last step that somebody took over.
        state: From a checkpoint; None = from the beginning.
        ranks: Who else reads this journal for the same learner.

    Attributes:
        ledger: Steps per bin: trained, demonstration, undrawn, too-old, gap, other, damaged.
        scores: Of the episodes that policies drove.
        staleness: By how many versions the steps lagged that were turned into traces since this list was emptied.
        demonstrations: Positions of the demonstrations read so far by this object, in order.
        taken: Steps that the last `take` gave, those of other ranks included.
        rows: Numbers of this rank's steps among them, in the order of its traces.
    """

    def __init__(
        self,
        journal: Journal,
        normalizer: Normalizer,
        *,
        max_staleness: int,
        reward: Mapping[str, float] | None = None,
        takeover_penalty: float = 0.0,
        state: FeedState | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        state = state or FeedState()
        self.ledger: Counter[str] = Counter(state.ledger)
        self.scores = Scores()
        self.staleness: list[int] = []
        self.demonstrations: list[int] = []
        self.taken = 0
        self.rows = np.zeros(0, np.int64)
        self._ranks = ranks
        self._journal = journal
        self._profile = journal.profile
        self._normalizer = normalizer
        self._max_staleness = max_staleness
        self._takeover_penalty = takeover_penalty
        self._version = 0
        self._weights = {**journal.profile.training_reward, **(reward or {})}
        self._next = state.position
        self._read = state.read
        self._consumed = dict(state.consumed)
        self._streams: dict[str, list[_Item]] = defaultdict(list)
        self._runs: list[_Run] = []

    @property
    def state(self) -> FeedState:
        """Where to go on after a restart."""
        waiting = [item.position for items in self._streams.values() for item in items]
        position = min(waiting, default=self._next)
        return FeedState(position=position, consumed=dict(self._consumed), read=self._read, ledger=dict(self.ledger))

    @property
    def ready(self) -> int:
        """Policy steps that `take` would give now: the last one of an open trace waits for its successor."""
        waiting = sum(max(0, len(items) - 1) for items in self._streams.values())
        return sum(run.length for run in self._runs) + waiting

    def advance(self, version: int, until_ready: int, stop: int | None = None) -> bool:
        """Read on until `until_ready` policy steps are ready; False if the journal ends before.

        Args:
            version: The learner's, against which staleness counts.
            until_ready: How many steps the next rollout needs.
            stop: Take the journal to end at this position; None = where it does now.
        """
        stop = self._journal.next if stop is None else stop
        self._version = version
        for key, items in self._streams.items():
            self._drop_old(items, key)
        while self.ready < until_ready:
            if self._next >= stop:
                return False
            self._take_in(self._next)
            self._next += 1
            self._read = max(self._read, self._next)
        return True

    def _drop_old(self, items: list[_Item], key: str) -> None:
        """Give up steps that grew too old while they waited for their successor."""
        while items and self._lag(items[0].record) > self._max_staleness:
            self._bin(key, items.pop(0).record, "too-old")

    def _lag(self, record: StepRecord) -> int:
        behaviour = record.action.behaviour
        assert behaviour is not None
        return self._version - behaviour.policy_version

    def _take_in(self, position: int) -> None:
        try:
            header, frames, _ = self._journal.parts(position)
            record, step = header.record, None
            if owner(record, self._ranks.count) == self._ranks.rank:
                step = decode_step(header, frames, self._profile)
        except DAMAGE:
            self.ledger["damaged"] += position >= self._read
            return
        key = f"{record.robot}/{record.boot}"
        if record.sequence <= self._consumed.get(key, -1):
            return
        items = self._streams[key]
        self.scores.keep(key, record)
        if not _was_drawn(record):
            self._interrupt(items, key, record, step)
            self._bin(key, record, _UNTRACED.get(record.action.source, "other"))
            if record.action.source in DEMONSTRATORS and position >= self._read:
                self.demonstrations.append(position)
            return
        if items and not follows(items[-1].record, record):
            self._drop_tail(items, key)
        if self._lag(record) > self._max_staleness:
            self._interrupt(items, key, record, step)
            self._bin(key, record, "too-old")
            return
        items.append(_Item(position, record, self._seen(step.observation if step else None)))
        if record.ended:
            if header.final:
                self._close(
                    items, key, self._seen(step.final_observation if step else None), terminated=record.terminated
                )
            else:  # cannot be valued: v1 has no final observation
                self._drop_tail(items, key)

    def _seen(self, arrays: Arrays | None) -> _Seen | None:
        if arrays is None:
            return None
        return _Seen(learner_inputs(self._profile, self._normalizer, arrays), arrays["proprio"])

    def _interrupt(self, items: list[_Item], key: str, record: StepRecord, step: Step | None) -> None:
        """End the open trace, if any, at an observation that somebody else acted upon."""
        if not items:
            return
        if follows(items[-1].record, record):
            taken_over = record.action.source in DEMONSTRATORS
            self._close(
                items, key, self._seen(step.observation if step else None), terminated=False, taken_over=taken_over
            )
        else:
            self._drop_tail(items, key)

    def _drop_tail(self, items: list[_Item], key: str) -> None:
        """End the open trace where nothing is known of what followed: its last state stands for the future."""
        last = items.pop()
        self._bin(key, last.record, "gap")
        if items:
            self._close(items, key, last.seen, terminated=False)

    def _close(
        self, items: list[_Item], key: str, final: _Seen | None, *, terminated: bool, taken_over: bool = False
    ) -> None:
        """Turn the open trace into a `Trace` that ends in state `final`; None if it is another rank's."""
        trace = final and self._trace(items, final, terminated=terminated, taken_over=taken_over)
        self._runs.append(_Run(len(items), trace))
        for item in items:
            self.staleness.append(self._lag(item.record))
            self._bin(key, item.record, "trained")
        items.clear()

    def _trace(self, items: list[_Item], final: _Seen, *, terminated: bool, taken_over: bool) -> Trace:
        states = [*(item.seen for item in items if item.seen), final]
        rewards = [
            training_reward(
                self._profile, self._weights, item.record, after.proprio, collided=terminated and item is items[-1]
            )
            for item, after in zip(items, states[1:], strict=True)
        ]
        rewards[-1] -= self._takeover_penalty * taken_over
        behaviours = [item.record.action.behaviour for item in items]
        return Trace(
            features={name: np.stack([state.inputs[name] for state in states]) for name in final.inputs},
            sample=np.array([b.sample for b in behaviours if b], np.float32),
            log_prob=np.array([b.log_prob for b in behaviours if b], np.float32),
            mean=np.array([b.mean for b in behaviours if b], np.float32),
            log_std=np.array([b.log_std for b in behaviours if b], np.float32),
            reward=np.array(rewards, np.float32),
            terminated=terminated,
        )

    def _bin(self, key: str, record: StepRecord, name: str) -> None:
        self.ledger[name] += 1
        self._consumed[key] = max(record.sequence, self._consumed.get(key, -1))

    def take(self) -> list[Trace]:
        """Return every ready step of this rank as traces. The last step of an open trace waits for its successor."""
        # In a fixed order: after a restart streams begin in another one.
        for key, items in sorted(self._streams.items(), key=lambda entry: entry[0]):
            if len(items) >= 2:
                last = items.pop()
                self._close(items, key, last.seen, terminated=False)
                items.append(last)
        runs, self._runs = self._runs, []
        self.taken = sum(run.length for run in runs)
        own = np.repeat([run.trace is not None for run in runs], [run.length for run in runs])
        self.rows = np.flatnonzero(own)
        return [run.trace for run in runs if run.trace is not None]


def _was_drawn(record: StepRecord) -> bool:
    """The action was drawn from a policy's distribution, so that it may enter a policy gradient."""
    behaviour = record.action.behaviour
    return record.action.source == "policy" and behaviour is not None and behaviour.drawn
