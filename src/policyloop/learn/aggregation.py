"""DAgger's half of the learner: clone again whenever teachers have shown more (Ross et al., 1011.0686)."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from policyloop.learn.algorithm import Lesson
from policyloop.learn.bc import clone
from policyloop.learn.demonstrations import DAMAGE, DEMONSTRATORS, load_demonstrations, newest_demonstrations
from policyloop.learn.feed import FeedState
from policyloop.learn.inputs import example_inputs
from policyloop.learn.origin import Origin
from policyloop.learn.scores import Scores
from policyloop.learn.teachers import Teachers
from policyloop.link.journal import Journal

__all__ = ["Aggregation"]


class Aggregation:
    """Waits for new demonstrations and clones all that there are, from where the network stands; see `Algorithm`.

    Args:
        journal: Where steps are.
        origin: Its network is improved in place.
        teachers: What they showed before is in the clone already.
        state: Where in the journal to go on.
    """

    def __init__(self, journal: Journal, origin: Origin, teachers: Teachers, state: FeedState | None) -> None:
        self._journal, self._network, self._normalizer = journal, origin.network, origin.normalizer
        self._settings, self._generator, self._device = origin.settings.bc, origin.generator, origin.device
        self.optimizer = torch.optim.Adam(self._network.actor_parameters(), lr=self._settings.learning_rate)
        self.scores = Scores()
        self.ledger: Counter[str] = Counter({} if state is None else state.ledger)
        self.ready = 0
        self._read = teachers.cloned_until if state is None else max(state.read, teachers.cloned_until)
        self.state = self._here()

    def _here(self) -> FeedState:
        return FeedState(position=self._read, read=self._read, ledger=dict(self.ledger))

    def advance(self, version: int, wanted: int, stop: int) -> bool:
        """See `Algorithm`; every version's mistakes are worth correcting."""
        while self.ready < wanted:
            if self._read >= stop:
                return False
            try:
                record = self._journal.header(self._read)
            except DAMAGE:
                self.ledger["damaged"] += 1
            else:
                self.scores.keep(f"{record.robot}/{record.boot}", record)
                shown = record.action.source in DEMONSTRATORS
                self.ledger["demonstration" if shown else "undrawn"] += 1
                self.ready += shown
            self._read += 1
        return True

    def learn(self, update: int, done: float) -> Lesson:
        """See `Algorithm`."""
        steps, self.ready = self.ready, 0
        self.state = self._here()
        positions = newest_demonstrations(self._journal, stop=self._read)
        demonstrations = load_demonstrations(self._journal, self._normalizer, positions)
        statistics = clone(
            self._network,
            demonstrations,
            self._journal.profile,
            self._settings,
            generator=self._generator,
            device=self._device,
            optimizer=self.optimizer,
        )
        inputs = example_inputs(demonstrations.features, len(demonstrations))
        return Lesson({f"bc_{name}": number for name, number in statistics.items()}, steps, inputs)

    def tensors(self) -> dict[str, Tensor]:
        """See `Algorithm`."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Algorithm`."""
