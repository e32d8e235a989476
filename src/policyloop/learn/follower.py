"""A rank other than the first: it reads its share of the journal and makes every update with the others."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import torch

from policyloop.errors import StorageError
from policyloop.learn.checkpoint import Checkpoint, decode_checkpoint, restore_optimizer
from policyloop.learn.device import accelerator_errors, choose_device, keep_freed_memory
from policyloop.learn.on_policy import OnPolicy
from policyloop.learn.orders import Begin, Finish, Learn, Order, Read, hear_order
from policyloop.learn.ranks import TIMEOUT_S, Ranks
from policyloop.learn.restore_point import RestorePoint
from policyloop.learn.settings import LearnerSettings
from policyloop.learn.teachers import Teachers
from policyloop.learn.tuning import Execution
from policyloop.link.journal import Journal

__all__ = ["follow"]

_LOOK_EVERY_S = 0.02


def follow(ranks: Ranks, journal: Path) -> None:
    """Do as rank 0 says until it is done. Nothing is written.

    Args:
        ranks: All of them.
        journal: The directory into which rank 0 looks too.

    Raises:
        PolicyloopError: Rank 0 is gone, or the journal does not hold what rank 0 sees in it.
    """
    order = hear_order(ranks)
    while not isinstance(order, Begin | Finish):
        order = hear_order(ranks)
    if isinstance(order, Finish):
        return
    begun = decode_checkpoint(order.state, order.tensors, "from rank 0")
    opened = Journal(journal, begun.state.profile)
    try:
        follower = _Follower(ranks, opened, begun)
        while not isinstance(order := hear_order(ranks), Finish):
            follower.obey(order)
    finally:
        opened.close()


class _Follower:
    """Holds what rank 0 holds, but for the arrays of other ranks' steps."""

    def __init__(self, ranks: Ranks, journal: Journal, begun: Checkpoint) -> None:
        state = begun.state
        settings = msgspec.convert(state.settings, LearnerSettings)
        self._execution = settings.execution or Execution()
        self._journal = journal
        device = choose_device(settings.device)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        keep_freed_memory()
        self._network = begun.network().to(device)
        self._execution.lay_out(self._network)
        self._generator = torch.Generator()
        self._generator.set_state(begun.tensors["generator"])
        _wait_until_there(journal, max(state.feed.read, state.demonstrations_until))
        teachers = Teachers(
            journal,
            state.normalizer,
            settings.bc,
            cloned_until=state.demonstrations_until,
            read=state.feed.read if state.cloned else 0,
        )
        self._algorithm = OnPolicy(
            self._network,
            journal,
            state.normalizer,
            settings,
            teachers,
            generator=self._generator,
            device=device,
            state=state.feed,
            ranks=ranks,
        )
        restore_optimizer("optimizer", self._algorithm.optimizer, begun.tensors)

    def obey(self, order: Order) -> None:
        """Carry out an order."""
        if isinstance(order, Read):
            _wait_until_there(self._journal, order.stop)
            self._algorithm.advance(order.version, order.wanted, order.stop)
        elif isinstance(order, Learn):
            self._learn(order)

    def _learn(self, order: Learn) -> None:
        """Update the network, and undo it as rank 0 does if it leaves numbers that are not finite."""
        before = RestorePoint(self._network, self._algorithm, self._generator)
        with accelerator_errors(), self._execution.applied_to(self._network):
            self._algorithm.learn(order.update, order.done)
        self._algorithm.scores.take()
        if not before.is_sound:
            before.restore()


def _wait_until_there(journal: Journal, position: int) -> None:
    """Wait until another process' steps before `position` show up here; over a network that takes a moment."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while journal.next < position:
        if time.monotonic() > deadline_s:
            raise StorageError(
                f"this rank's journal ends at record {journal.next}, that of rank 0 at {position} or later",
                "let all ranks see the same directory: --journal",
            )
        journal.refresh()
        if journal.next < position:
            time.sleep(_LOOK_EVERY_S)
