"""Journal -> replay: every step that anybody drove, as often as a learner wants to see it.

Whoever proposed it, a transition tells what the command that was executed led to; only values may be learned from it,
never a policy gradient. What is in a replay depends on the order of the journal alone, so that a restart can read it
anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policyloop.core.normalizer import Normalizer
from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays, Step, StepRecord
from policyloop.learn.demonstrations import DAMAGE, DEMONSTRATORS
from policyloop.learn.inputs import follows, input_specs, learner_inputs, training_reward
from policyloop.learn.networks import Features
from policyloop.learn.scores import Scores
from policyloop.link.journal import Journal

__all__ = ["Replay", "ReplayFeed", "Transitions", "state_bytes"]


@dataclass(frozen=True)
class Transitions:
    """A batch; one row per transition.

    Attributes:
        features: What was seen, and what was seen next.
        shares: The executed action in shares of its range, (n, actions).
        reward: What it earned, (n,).
        future: 1, or 0 where the task ended, (n,).
    """

    features: Features
    next_features: Features
    shares: Tensor
    reward: Tensor
    future: Tensor


class Replay:
    """A ring of states; a state whose outcome is known is a transition. The oldest give way.

    Args:
        capacity: How many states it holds; memory is taken as it fills.
        specs: Of what is seen in a state.
        actions: How many numbers an action has.
    """

    def __init__(self, capacity: int, specs: Mapping[str, ArraySpec], actions: int) -> None:
        self._capacity = capacity
        self._stored = 0
        self._features = {name: np.zeros((capacity, *spec.shape), spec.dtype) for name, spec in specs.items()}
        self._shares = np.zeros((capacity, actions), np.float32)
        self._reward, self._future = np.zeros(capacity, np.float32), np.zeros(capacity, np.float32)
        self._next = np.full(capacity, -1)
        """Slot of the state that followed; -1 = not known."""

    def __len__(self) -> int:
        return int((self._next >= 0).sum())

    def store(self, inputs: Arrays) -> int:
        """Keep a state and return its number."""
        number, slot = self._stored, self._stored % self._capacity
        for name, array in inputs.items():
            self._features[name][slot] = array
        self._next[slot] = -1
        self._stored += 1
        return number

    def connect(
        self, number: int, shares: NDArray[np.float32], reward: float, next_number: int, *, final: bool
    ) -> None:
        """Say what became of a state, unless it had to give way meanwhile; `final` = nothing follows."""
        if number <= self._stored - 1 - self._capacity:
            return
        slot = number % self._capacity
        self._shares[slot], self._reward[slot], self._future[slot] = shares, reward, 0.0 if final else 1.0
        self._next[slot] = next_number % self._capacity

    def draw(self, count: int, generator: torch.Generator) -> Transitions:
        """Draw random transitions."""
        known = np.flatnonzero(self._next >= 0)
        rows = known[torch.randint(len(known), (count,), generator=generator).numpy()]
        following = self._next[rows]

        def picked(slots: NDArray[np.intp]) -> Features:
            return {name: torch.from_numpy(array[slots]) for name, array in self._features.items()}

        return Transitions(
            picked(rows),
            picked(following),
            *(torch.from_numpy(array[rows]) for array in (self._shares, self._reward, self._future)),
        )


def state_bytes(specs: Mapping[str, ArraySpec], actions: int) -> int:
    """Return what a state takes in a full `Replay`: what is seen, the action, two numbers, and what followed."""
    return sum(spec.nbytes for spec in specs.values()) + 4 * actions + 2 * 4 + 8


@dataclass
class _Waiting:
    """The newest step of a robot: its outcome is what comes next."""

    record: StepRecord
    states: list[tuple[Replay, int]]


class ReplayFeed:
    """Follows a journal and fills two replays: what teachers drove, and what was driven since learning began.

    Interventions go into both: they are demonstrations, and they happened where the policy had led.

    Args:
        journal: Open for reading or writing.
        normalizer: Applied to proprioception.
        capacity: States of each replay.
        online_from: Demonstrations before this position were not driven online.
        reward: Weights that replace those of the profile's training reward.
        takeover_penalty: What it costs the policy's last step that somebody took over.

    Attributes:
        demonstrations, online: The replays.
        ledger: Steps per bin: trained, demonstration, gap, damaged.
        scores: Of the episodes that policies drove.
        interventions: Take-overs so far.
        read: Position of the next record.
        fresh: Steps that were driven online and read since this was set to 0.
    """

    def __init__(
        self,
        journal: Journal,
        normalizer: Normalizer,
        *,
        capacity: int,
        online_from: int,
        reward: Mapping[str, float] | None = None,
        takeover_penalty: float = 0.0,
    ) -> None:
        specs, actions = input_specs(journal.profile), len(journal.profile.action)
        self.demonstrations, self.online = (Replay(capacity, specs, actions) for _ in range(2))
        self.ledger: Counter[str] = Counter()
        self.scores = Scores()
        self.interventions = self.read = self.fresh = 0
        self._journal, self._profile, self._normalizer = journal, journal.profile, normalizer
        self._online_from = online_from
        self._weights = {**journal.profile.training_reward, **(reward or {})}
        self._takeover_penalty = takeover_penalty
        self._waiting: dict[str, _Waiting] = {}

    def advance(self, until_fresh: int, stop: int | None = None) -> bool:
        """Read on until so many steps are fresh, or to the position `stop`; False if the journal ends before."""
        while self.fresh < until_fresh and (stop is None or self.read < stop):
            if self.read >= self._journal.next:
                return False
            self._take_in(self.read)
            self.read += 1
        return True

    def _take_in(self, position: int) -> None:
        try:
            step = self._journal.read(position)
        except DAMAGE:
            self.ledger["damaged"] += 1
            return
        record, stream = step.record, f"{step.record.robot}/{step.record.boot}"
        self.scores.keep(stream, record)
        taught = record.action.source in DEMONSTRATORS
        online = position >= self._online_from
        inputs = learner_inputs(self._profile, self._normalizer, step.observation)
        states = [
            (replay, replay.store(inputs))
            for replay, wanted in ((self.demonstrations, taught), (self.online, online or not taught))
            if wanted
        ]
        before = self._waiting.pop(stream, None)
        if before is not None and follows(before.record, record):
            taken_over = taught and before.record.action.source not in DEMONSTRATORS
            self.interventions += taken_over
            self._connect(before, inputs, step.observation, dict(states), taken_over=taken_over)
        elif before is not None:
            self._move(before.record, "gap")
        self.ledger["demonstration" if taught else "trained"] += 1
        self.fresh += online or not taught
        if not record.ended:
            self._waiting[stream] = _Waiting(record, states)
        else:
            self._end(step, states)

    def _end(self, step: Step, states: list[tuple[Replay, int]]) -> None:
        """Take in the last step of an episode; what followed may be unknown, as with v1."""
        final = step.final_observation
        if final is None and not step.record.terminated:
            self._move(step.record, "gap")
            return
        seen = step.observation if final is None else final
        inputs = learner_inputs(self._profile, self._normalizer, seen)
        self._connect(_Waiting(step.record, states), inputs, seen, {}, terminated=step.record.terminated)

    def _connect(
        self,
        before: _Waiting,
        inputs: Arrays,
        seen: Arrays,
        states: dict[Replay, int],
        *,
        terminated: bool = False,
        taken_over: bool = False,
    ) -> None:
        record, profile = before.record, self._profile
        reward = training_reward(profile, self._weights, record, seen["proprio"], collided=terminated)
        reward -= self._takeover_penalty * taken_over
        shares = ((np.array(record.command.values) - profile.action_center) / profile.action_half_range).astype(
            np.float32
        )
        for replay, number in before.states:
            following = states[replay] if replay in states else replay.store(inputs)
            replay.connect(number, shares.clip(-1, 1), reward, following, final=terminated)

    def _move(self, record: StepRecord, name: str) -> None:
        """Account otherwise for a step that was counted already."""
        self.ledger["demonstration" if record.action.source in DEMONSTRATORS else "trained"] -= 1
        self.ledger[name] += 1
