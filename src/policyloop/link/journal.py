"""The trainer's Journal: every step that was ever acknowledged, in the order it arrived."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from policyloop.core.files import write_file
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step, StepRecord
from policyloop.errors import IncompatibleError, StorageError, WireError
from policyloop.link.segment_log import SegmentLog
from policyloop.wire.codec import decode_step, join_frames, split_step
from policyloop.wire.messages import StepHeader

__all__ = ["Journal", "Received", "appending"]

log = logging.getLogger(__name__)

T = TypeVar("T")

FORMAT = 1
_RECEIVED, _SEQUENCES = "received.json", "sequences.json"


class _About(msgspec.Struct, kw_only=True):
    """`journal.json`: which robot this is the journal of."""

    format: int
    profile_digest: str
    profile: RobotProfile


class _Sequences(msgspec.Struct, kw_only=True):
    """`sequences.json`: robot, boot and newest sequence of every start, up to record `next`."""

    next: int = 0
    sequences: list[tuple[str, str, int]] = []


class Received(msgspec.Struct, kw_only=True):
    """`received.json`: messages that did not become records, and what else the gateway saw, since the beginning."""

    steps: dict[str, int] = {}
    """Step messages that were not stored, by the reason."""
    events: dict[str, int] = {}


class Journal:
    """A segment log of step messages, one profile, one writer.

    Args:
        directory: Where it lives.
        profile: Required to write; a reader takes it from the journal.
        writable: Open for the gateway.

    Attributes:
        progress: Called with (records read, records to read) whenever many are read one after the other.

    Raises:
        IncompatibleError: The journal belongs to another profile or a newer format.
        StorageError: It does not exist, is locked, or the disk refuses.
    """

    def __init__(self, directory: Path, profile: RobotProfile | None = None, *, writable: bool = False) -> None:
        self.progress: Callable[[int, int], None] = lambda done, total: None
        about_path = directory / "journal.json"
        if not about_path.exists() and not writable:
            raise StorageError(
                f"no journal at {directory}", "record one with `policyloop gateway` or `policyloop train`"
            )
        if about_path.exists():
            try:
                about = msgspec.json.decode(about_path.read_bytes(), type=_About)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise IncompatibleError(
                    f"{about_path}: {error}", "it is damaged, or of something else: restore it from a copy"
                ) from error
            if about.format > FORMAT:
                raise IncompatibleError(f"{about_path}: format {about.format}", "upgrade policyloop")
            if profile is not None and about.profile_digest != profile.digest:
                raise IncompatibleError(
                    f"journal {directory} belongs to profile '{about.profile.name}' ({about.profile_digest[:12]}), "
                    f"not to '{profile.name}' ({profile.digest[:12]})",
                    "use another --journal, or the profile it was recorded with",
                )
            self.profile = profile or about.profile
        else:
            if profile is None:
                raise StorageError(f"no journal at {directory}")
            self.profile = profile
        self._log = SegmentLog(directory, writable=writable)
        if writable and not about_path.exists():
            about = _About(format=FORMAT, profile_digest=self.profile.digest, profile=self.profile)
            try:
                write_file(about_path, msgspec.json.format(msgspec.json.encode(about), indent=2))
            except OSError as error:
                self._log.close()
                raise StorageError.cannot_write(about_path, error) from error

    @property
    def first(self) -> int:
        """Position of the oldest step that is still here."""
        return self._log.first

    @property
    def next(self) -> int:
        """Number of steps ever stored: the position behind the newest."""
        return self._log.next

    @property
    def unreadable_bytes(self) -> int:
        """Bytes that hold no intact step."""
        return self._log.unreadable_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._log.size_bytes

    def append(self, frames: list[bytes]) -> int:
        """Store one step message as it came; returns its position."""
        return self._log.append(join_frames(frames))

    def sync(self) -> None:
        """Make everything appended durable."""
        self._log.sync()

    def refresh(self) -> None:
        """See what another process has appended."""
        self._log.refresh()

    def header(self, position: int) -> StepRecord:
        """Return the record at `position` without its arrays."""
        return self.parts(position)[0].record

    def read(self, position: int) -> Step:
        """Return the step at `position`."""
        header, frames, _ = self.parts(position)
        return decode_step(header, frames, self.profile)

    def parts(self, position: int) -> tuple[StepHeader, list[bytes], int]:
        """Return the header of the step at `position`, its encoded arrays, and the header's own size in bytes."""
        header, frames = split_step(self._log.read(position), f"journal record {position}")
        return header, frames[1:], len(frames[0])

    def intact(self, read: Callable[[int], T], positions: Sequence[int] | None = None) -> Iterator[tuple[int, T]]:
        """Iterate over positions and what `read` makes of them, leaving out what is damaged.

        Args:
            read: Such as `header`, `parts` or `read`.
            positions: Default: all, oldest first.
        """
        if positions is None:
            positions = range(self._log.first, self._log.next)
        for done, position in enumerate(positions):
            self.progress(done, len(positions))
            try:
                yield position, read(position)
            except (StorageError, WireError) as error:
                log.warning("%s: record %d is left out: %s", self._log.directory, position, error)

    def headers(self, start: int = 0) -> Iterator[StepRecord]:
        """Iterate over all intact records from position `start`, oldest first; the others are left out."""
        for _, record in self.intact(self.header, range(max(start, self._log.first), self._log.next)):
            yield record

    def last_sequences(self) -> dict[tuple[str, str], int]:
        """Return the newest stored sequence number of each (robot, boot)."""
        known = self._saved_sequences()
        found = {(robot, boot): sequence for robot, boot, sequence in known.sequences}
        for record in self.headers(known.next):
            found[record.robot, record.boot] = record.sequence
        return found

    def save_sequences(self, sequences: dict[tuple[str, str], int]) -> None:
        """Write down `last_sequences` as of now, so that the next start need not read everything.

        Raises:
            StorageError: The disk refuses.
        """
        self._log.sync()  # it must never know of a step that a power cut could still take
        saved = _Sequences(next=self.next, sequences=[(*start, sequence) for start, sequence in sequences.items()])
        self._write(_SEQUENCES, saved)

    def _saved_sequences(self) -> _Sequences:
        try:
            saved = msgspec.json.decode((self._log.directory / _SEQUENCES).read_bytes(), type=_Sequences)
        except (OSError, msgspec.DecodeError):
            return _Sequences()
        return saved if 0 <= saved.next <= self.next else _Sequences()  # else it is of another log

    @property
    def received(self) -> Received:
        """What the gateways of this journal counted; nothing if none did, or if the file is damaged."""
        try:
            return msgspec.json.decode((self._log.directory / _RECEIVED).read_bytes(), type=Received)
        except (OSError, msgspec.DecodeError):
            return Received()

    def save_received(self, received: Received) -> None:
        """Replace the counts; StorageError if the disk refuses."""
        self._write(_RECEIVED, received)

    def _write(self, name: str, content: msgspec.Struct) -> None:
        path = self._log.directory / name
        try:
            write_file(path, msgspec.json.encode(content))
        except OSError as error:
            raise StorageError.cannot_write(path, error) from error

    def close(self) -> None:
        """Release the files."""
        self._log.close()


@contextmanager
def appending(directory: Path, profile: RobotProfile) -> Iterator[Journal]:
    """Give a journal to append to; of a new one that failed before its first step, nothing is left behind.

    Raises:
        IncompatibleError, StorageError: As `Journal`.
    """
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    before = set(directory.iterdir()) if directory.is_dir() else set()
    journal = Journal(directory, profile, writable=True)
    try:
        yield journal
    except BaseException:
        if journal.next == 0:
            with suppress(OSError):  # somebody else has put something there
                for path in set(directory.iterdir()) - before:
                    path.unlink()
                for path in made:
                    path.rmdir()
        raise
    finally:
        journal.close()
