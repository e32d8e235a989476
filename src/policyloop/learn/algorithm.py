"""What the learner asks of a reinforcement learning algorithm, so that one loop serves them all."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import msgspec
import torch
from torch import Tensor

from policyloop.core.step import Arrays
from policyloop.learn.feed import FeedState
from policyloop.learn.scores import Scores

__all__ = ["Algorithm", "Lesson"]


class Lesson(msgspec.Struct, frozen=True):
    """One update.

    Attributes:
        statistics: By name.
        steps: How many new steps it was made of.
        inputs: Some observations of them, to check the exported policy with.
    """

    statistics: dict[str, float]
    steps: int
    inputs: list[Arrays]


class Algorithm(Protocol):
    """Improves a network on what it reads from a journal, update by update."""

    @property
    def optimizer(self) -> torch.optim.Adam:
        """Of the network."""

    @property
    def scores(self) -> Scores:
        """Of the episodes that policies drove."""

    @property
    def ledger(self) -> Counter[str]:
        """Steps read, by what became of them."""

    @property
    def ready(self) -> int:
        """Steps that are there for the next update."""

    def advance(self, version: int, wanted: int, stop: int) -> bool:
        """Read on until `wanted` steps are ready; False if position `stop` comes before; `version` is the learner's."""

    def learn(self, update: int, done: float) -> Lesson:
        """Update the network on what is ready; so many updates and this share of the planned training lie behind."""

    @property
    def state(self) -> FeedState:
        """Where in the journal the last update ended."""

    def tensors(self) -> dict[str, Tensor]:
        """Return what it has learned beside network and optimizer, for a checkpoint."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put that back."""
