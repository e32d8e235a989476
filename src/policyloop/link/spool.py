"""The robot's Spool: steps that the trainer has not stored yet, on disk, within a budget of bytes.

When the budget is used up, whole oldest episodes go: half an episode is worth little to a learner,
and the newest driving is worth most. What is lost is counted.
"""

from __future__ import annotations

import logging
from pathlib import Path

from policyloop.errors import StorageError, WireError
from policyloop.link.segment_log import SegmentLog
from policyloop.wire.codec import join_frames, split_step
from policyloop.wire.messages import StepHeader

__all__ = ["Spool"]

log = logging.getLogger(__name__)


class Spool:
    """Step messages in a segment log, oldest first, numbered without gaps.

    Args:
        directory: Where it lives; one program at a time.
        budget_bytes: What it may take on disk, up to one segment.
        segment_bytes: Space is given back in pieces of this size.

    Attributes:
        lost: Steps that went because there was no room for them.
    """

    def __init__(self, directory: Path, *, budget_bytes: int, segment_bytes: int) -> None:
        self.lost = 0
        self._budget_bytes = budget_bytes
        self._log = SegmentLog(directory, writable=True, segment_bytes=segment_bytes)
        self._first = self._log.first

    @property
    def first(self) -> int:
        """Number of the oldest step that is still to be delivered."""
        return max(self._first, self._log.first)

    @property
    def next(self) -> int:
        """Number that the next step will get."""
        return self._log.next

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._log.size_bytes

    def append(self, frames: list[bytes]) -> None:
        """Store one step, at the price of the oldest episodes if need be.

        Raises:
            StorageError: The disk has no room although nothing else is left to go, or refuses.
        """
        record = join_frames(frames)
        while self._log.size_bytes + len(record) > self._budget_bytes and self._make_room():
            pass
        while True:
            try:
                self._log.append(record)
                return
            except StorageError:
                if not self._make_room():
                    self.lost += 1
                    raise

    def read(self, number: int) -> tuple[StepHeader, list[bytes]]:
        """Return a step's header and all its frames; WireError or StorageError if it is damaged."""
        return split_step(self._log.read(number), f"spool record {number}")

    def delivered(self, before: int) -> None:
        """Forget the steps before number `before`: the trainer has them."""
        self._first = max(self._first, before)
        self._log.drop_before(self._first)

    def sync(self) -> None:
        """Make everything appended durable."""
        self._log.sync()

    def close(self) -> None:
        """Sync and release the files."""
        self._log.close()

    def _make_room(self) -> bool:
        """Give up the oldest episodes until a segment could be deleted; False if there is only one."""
        if self._log.segments < 2:
            return False
        held, first, dropped_from = self._log.segments, self.first, self.first
        while self._log.segments == held:
            first = self._end_of_episode(first)
            self._first = first
            self._log.drop_before(first)
        self.lost += first - dropped_from
        log.warning("the spool is full: %d oldest steps are given up", first - dropped_from)
        return True

    def _end_of_episode(self, number: int) -> int:
        """Return the number behind the episode of step `number`, or behind its segment if it fills more."""
        episode, limit = self._episode(number), self._log.segment_end(number)
        number += 1
        while number < self.next and self._episode(number) == episode:
            number += 1
        # An episode that has not ended yet must not go as a whole: it is being driven.
        return number if number < self.next else limit

    def _episode(self, number: int) -> tuple[str, str, int] | None:
        try:
            record = self.read(number)[0].record
        except (StorageError, WireError):
            return None
        return record.robot, record.boot, record.episode
