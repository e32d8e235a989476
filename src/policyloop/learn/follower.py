"""A rank other than the first: it reads its share of the journal and makes every update with the others."""

from __future__ import annotations

import time
from pathlib import Path

from policyloop.errors import StorageError
from policyloop.learn.checkpoint import decode_checkpoint
from policyloop.learn.orders import Begin, Finish, Learn, Order, Read, hear_order
from policyloop.learn.origin import origin_at
from policyloop.learn.ranks import TIMEOUT_S, Ranks
from policyloop.learn.student import Student
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
        _wait_until_there(opened, max(begun.state.feed.read, begun.state.demonstrations_until))
        student = Student(opened, origin_at(begun), ranks)
        while not isinstance(order := hear_order(ranks), Finish):
            _obey(order, student, opened)
    finally:
        opened.close()


def _obey(order: Order, student: Student, journal: Journal) -> None:
    """Carry out an order as rank 0 does, which alone needs to know what came of it."""
    if isinstance(order, Read):
        _wait_until_there(journal, order.stop)
        student.algorithm.advance(order.version, order.wanted, order.stop)
    elif isinstance(order, Learn):
        student.learn(order)
        student.algorithm.scores.take()


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
