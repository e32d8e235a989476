"""The journal's tail, read beside the gateway that writes it: neither gateway nor robots notice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from policyloop.core.profile import RobotProfile
from policyloop.core.step import StepRecord
from policyloop.errors import PolicyloopError
from policyloop.link.journal import Journal
from policyloop.wire.codec import check_record

__all__ = ["JournalTail", "Seen"]

_LOOK_BACK = 300
"""Steps that are read at the beginning, so that the page is not empty."""
_BATCH = 400
"""Steps of one `read`: a journal that grows fast must not keep the page waiting."""


@dataclass(frozen=True)
class Seen:
    """A step as it came to this page.

    Attributes:
        frames: Its encoded arrays, in the order of the profile's observation specs; nothing is decoded yet.
        heard_s: Monotonic time when it was read.
        heard_ns: The same, UTC.
        live: It arrived while the page was watching.
    """

    position: int
    record: StepRecord
    frames: list[bytes]
    heard_s: float
    heard_ns: int
    live: bool


class JournalTail:
    """Reads what is appended to a journal.

    Args:
        directory: Of the journal; it need not be there yet.

    Attributes:
        profile: Of the journal; None until it is there.
        problem: Why nothing can be read; empty if something can.
    """

    def __init__(self, directory: Path) -> None:
        self.profile: RobotProfile | None = None
        self.problem = ""
        self.steps = 0
        self.size_bytes = 0
        self.refused: dict[str, int] = {}
        self.events: dict[str, int] = {}
        self._directory = directory
        self._journal: Journal | None = None
        self._file = (0, 0)
        self._next = self._live_from = 0

    def read(self) -> list[Seen]:
        """Return the steps that came since the last call, oldest first, but not all at once if they are many."""
        try:
            journal = self._current()
            journal.refresh()
        except (PolicyloopError, OSError) as error:
            self.problem = str(error)
            self.close()
            return []
        self.problem = ""
        self.steps, self.size_bytes = journal.next, journal.size_bytes
        start, self._next = self._next, min(journal.next, self._next + _BATCH)
        found = []
        for position, (header, frames, _) in journal.intact(journal.parts, range(start, self._next)):
            try:
                check_record(header.record, journal.profile)
            except PolicyloopError:
                continue
            live = position >= self._live_from
            found.append(Seen(position, header.record, frames, time.monotonic(), time.time_ns(), live))
        return found

    def read_counts(self) -> None:
        """Take in what the gateway has counted beside the steps."""
        if self._journal is not None:
            received = self._journal.received
            self.refused, self.events = received.steps, received.events

    def _current(self) -> Journal:
        """Return the journal; another one if it was replaced by another of the same name."""
        about = self._directory / "journal.json"
        if self._journal is not None and self._file != _identity(about):
            self.close()
        if self._journal is None:
            self._journal = Journal(self._directory)
            self._file = _identity(about)
            self.profile = self._journal.profile
            self._live_from = self._journal.next
            self._next = max(self._journal.first, self._journal.next - _LOOK_BACK)
        return self._journal

    def close(self) -> None:
        """Release the files."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _identity(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino
