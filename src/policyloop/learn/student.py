"""What learns: a network with its teachers and the algorithm that improves it. Every rank of a training has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import torch

from policyloop.bundle.build import Bundle
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.step import Arrays
from policyloop.learn.aggregation import Aggregation
from policyloop.learn.algorithm import Algorithm, Lesson
from policyloop.learn.bc import clone
from policyloop.learn.checkpoint import CheckpointState, encode_checkpoint, restore_optimizer, save_checkpoint
from policyloop.learn.device import accelerator_errors
from policyloop.learn.feed import FeedState
from policyloop.learn.inputs import example_inputs
from policyloop.learn.off_policy import OffPolicy
from policyloop.learn.on_policy import OnPolicy
from policyloop.learn.orders import Begin, Learn
from policyloop.learn.origin import Origin
from policyloop.learn.ranks import ALONE, Ranks
from policyloop.learn.restore_point import RestorePoint
from policyloop.learn.teachers import Teachers
from policyloop.learn.tuning import Execution
from policyloop.link.journal import Journal

__all__ = ["Student"]

_PARITY_OBSERVATIONS = 16

_ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    "bc": OnPolicy,
    "dagger": Aggregation,
    "ppo": OnPolicy,
    "rlpd": OffPolicy,
}


class Student:
    """Clones its teachers, and makes updates.

    Args:
        journal: Where steps are.
        origin: What it begins with.
        ranks: Who makes every update together.

    Attributes:
        teachers: What people and scripts proposed.
        algorithm: Improves the network.
        updates: So many lie behind.
    """

    def __init__(self, journal: Journal, origin: Origin, ranks: Ranks = ALONE) -> None:
        self._journal, self._profile, self._origin, self._ranks = journal, journal.profile, origin, ranks
        self._network, self._settings, self._generator = origin.network, origin.settings, origin.generator
        self._inputs: list[Arrays] = []
        state = None if origin.checkpoint is None else origin.checkpoint.state
        self.updates = 0 if state is None else state.update
        self.teachers = Teachers(
            journal,
            origin.normalizer,
            self._settings.bc,
            cloned_until=0 if state is None else state.demonstrations_until,
            read=state.feed.read if state is not None and state.cloned else 0,
        )
        if origin.checkpoint is None or origin.only_cloned:
            self.algorithm = self._begin(None)
            return
        self.algorithm = self._begin(origin.checkpoint.state.feed)
        restore_optimizer("optimizer", self.algorithm.optimizer, origin.checkpoint.tensors)
        self.algorithm.restore(origin.checkpoint.tensors)

    def _begin(self, feed: FeedState | None) -> Algorithm:
        make = _ALGORITHMS[self._settings.learner]
        if self._ranks.count > 1:
            make = partial(OnPolicy, ranks=self._ranks)  # the others share nothing
        return make(self._journal, self._origin, self.teachers, feed)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with accelerator_errors(), (self._settings.execution or Execution()).applied_to(self._network):
            yield

    def clone(self, progress: Callable[[int, int, float], None]) -> dict[str, float]:
        """Clone the demonstrations that the journal holds now; the algorithm begins anew. Returns the clone's numbers.

        Args:
            progress: See `bc.clone`.
        """
        self.teachers.cloned_until = self._journal.next
        demonstrations = self.teachers.demonstrations
        self._inputs = example_inputs(demonstrations.features, len(demonstrations))
        with self._at_work():
            statistics = clone(
                self._network,
                demonstrations,
                self._profile,
                self._settings.bc,
                generator=self._generator,
                device=self._origin.device,
                progress=progress,
            )
        self.algorithm = self._begin(None)
        return statistics

    def learn(self, order: Learn) -> Lesson | RestorePoint:
        """Update the network; if that leaves numbers that are not finite it is undone, and what was restored returned.

        Raises:
            PolicyloopError: The GPU failed, or another rank is gone.
        """
        before = RestorePoint(self._network, self.algorithm, self._generator)
        with self._at_work():
            lesson = self.algorithm.learn(order.update, order.done)
        if not before.is_sound:
            before.restore()
            return before
        self.updates += 1
        self._inputs = lesson.inputs or self._inputs
        return lesson

    def export(self, version: int) -> Bundle:
        """Return the policy under a number, checked against torch on observations that it learned from."""
        return export_bundle(
            self._network,
            self._profile,
            self._origin.normalizer,
            network_name=self._settings.network,
            version=version,
            noise_hold_ticks=self._settings.noise_hold_ticks,
            observations=self._inputs or probe_features(self._profile, _PARITY_OBSERVATIONS),
            training={
                "learner": self._settings.learner,
                "update": self.updates,
                "steps": self.algorithm.ledger["trained"],
                "demonstrations": len(self.teachers.demonstrations) if self.teachers.cloned_until else 0,
                "seed": self._settings.seed,
                **({"parent": self._origin.lineage[-1]} if self._origin.lineage else {}),
            },
        )

    def state(self, version: int, elapsed_s: float) -> CheckpointState:
        """Return what a checkpoint says of it now; its training has shipped this policy and taken so long."""
        return CheckpointState(
            profile=self._profile,
            profile_digest=self._profile.digest,
            network=self._settings.network,
            normalizer=self._origin.normalizer,
            version=version,
            update=self.updates,
            seed=self._settings.seed,
            cloned=bool(self.teachers.cloned_until),
            demonstrations_until=self.teachers.cloned_until,
            feed=self.algorithm.state,
            elapsed_s=elapsed_s,
            settings=msgspec.to_builtins(self._settings),
            lineage=self._origin.lineage,
        )

    def save(
        self, directory: Path, state: CheckpointState, bundle: Bundle, generator: torch.Generator | None = None
    ) -> Path:
        """Write a checkpoint under `directory` and return its path.

        Args:
            directory: Of all checkpoints.
            state: See `state`.
            bundle: The policy as robots get it.
            generator: As it was earlier; None = as it is now.

        Raises:
            StorageError: The disk refuses.
        """
        return save_checkpoint(
            directory,
            state,
            self._network,
            self.algorithm.optimizer,
            generator or self._generator,
            bundle,
            self.algorithm.tensors(),
        )

    def begin_order(self, state: CheckpointState) -> Begin:
        """Return the order that lets another rank stand where this one does."""
        return Begin(*encode_checkpoint(state, self._network, self.algorithm.optimizer, self._generator))
