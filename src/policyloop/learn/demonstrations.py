"""What people and scripts proposed, read from the journal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.normalizer import Normalizer
from policyloop.core.step import StepRecord
from policyloop.errors import StorageError, WireError
from policyloop.learn.inputs import follows, input_specs, learner_inputs
from policyloop.link.journal import Journal

__all__ = [
    "DAMAGE",
    "DEMONSTRATORS",
    "Demonstrations",
    "is_demonstration",
    "load_demonstrations",
    "newest_demonstrations",
]

DEMONSTRATORS = ("human", "scripted")
"""Sources whose proposals are worth imitating."""

DAMAGE = (StorageError, WireError)
"""What reading a record may raise."""


class Demonstrations(msgspec.Struct, frozen=True):
    """Observations and the actions that a teacher proposed there.

    Attributes:
        features: Network inputs by name, (n, ...).
        actions: Physical units, (n, actions).
        following: Row of the step after each, -1 where it is not among them, (n,).
    """

    features: dict[str, NDArray[np.generic]]
    actions: NDArray[np.float32]
    following: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.actions)

    def __add__(self, other: Demonstrations) -> Demonstrations:
        if not len(self):
            return other
        features = {name: np.concatenate([array, other.features[name]]) for name, array in self.features.items()}
        theirs = np.where(other.following < 0, -1, other.following + len(self))
        return Demonstrations(
            features, np.concatenate([self.actions, other.actions]), np.concatenate([self.following, theirs])
        )

    def newest(self, count: int) -> Demonstrations:
        """Return the last `count` of them."""
        features = {name: array[-count:] for name, array in self.features.items()}
        lost = max(0, len(self) - count)
        return Demonstrations(features, self.actions[-count:], np.maximum(self.following[-count:] - lost, -1))

    def episodes(self) -> NDArray[np.intp]:
        """Return the number of each row's unbroken stretch of steps, counted by where they begin, (n,)."""
        numbers, count = np.full(len(self), -1, np.intp), 0
        for row, following in enumerate(self.following):
            if numbers[row] < 0:
                numbers[row], count = count, count + 1
            if following >= 0:
                numbers[following] = numbers[row]
        return numbers


def is_demonstration(journal: Journal, position: int) -> bool:
    """Tell whether the record at `position` is an intact demonstration."""
    try:
        return journal.header(position).action.source in DEMONSTRATORS
    except DAMAGE:
        return False


def newest_demonstrations(journal: Journal, *, start: int = 0, stop: int, limit: int = 20_000) -> list[int]:
    """Return the positions, in order, of the newest human and scripted steps from `start` to before `stop`."""
    found = (position for position in range(stop - 1, start - 1, -1) if is_demonstration(journal, position))
    return list(islice(found, limit))[::-1]


def load_demonstrations(journal: Journal, normalizer: Normalizer, positions: Sequence[int]) -> Demonstrations:
    """Read the demonstrations at these positions.

    What is learned is what the teacher proposed, not what a disturbance made of it.
    """
    specs = input_specs(journal.profile)
    features = {name: np.empty((len(positions), *spec.shape), spec.dtype) for name, spec in specs.items()}
    actions: list[tuple[float, ...]] = []
    following = np.full(len(positions), -1, np.intp)
    newest: dict[str, tuple[int, StepRecord]] = {}
    for row, position in enumerate(positions):
        step = journal.read(position)
        stream = f"{step.record.robot}/{step.record.boot}"
        if stream in newest and follows(newest[stream][1], step.record):
            following[newest[stream][0]] = row
        newest[stream] = row, step.record
        for name, array in learner_inputs(journal.profile, normalizer, step.observation).items():
            features[name][row] = array
        actions.append(step.record.action.values)
    return Demonstrations(
        features,
        np.array(actions, np.float32).reshape(len(actions), len(journal.profile.action)),
        following,
    )
