"""A store of bundles: numbered immutable versions, an atomic `current`, and what became of each.

    STORE/versions/000007-3f2a91c04d5e/manifest.json, policy.onnx, ...
    STORE/current -> versions/000007-3f2a91c04d5e
    STORE/staging/         what is being received
    STORE/state.json
    STORE/history.jsonl    what was done, and why; for people

A version is a candidate until it is activated, active while it must prove itself, then good or bad. State is written
before each step, so that a power cut leaves the old version driving or the new one, never neither;
a version that is bad is never activated again by itself.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from policyloop.bundle.build import Bundle
from policyloop.core.clock import utc
from policyloop.core.files import sync_directory, write_directory, write_file
from policyloop.errors import SafetyRefusal, StorageError, UsageError, VerificationError

__all__ = ["State", "Store", "VersionState"]

State = Literal["candidate", "active", "good", "bad"]
_STATE_NAME = "state.json"
_SPARE_BYTES = 16 << 20
"""Of the disk, to be left over when a bundle is in."""


class VersionState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of one version.

    Attributes:
        attempts: How often a robot began to drive it and has not said how that ended.
        note: Why it is bad, or what it has shown.
    """

    state: State = "candidate"
    attempts: int = 0
    note: str = ""


class _States(msgspec.Struct, forbid_unknown_fields=True):
    """`state.json`. What it does not name is a candidate."""

    versions: dict[str, VersionState] = {}
    previous: str = ""
    """Where a roll-back goes."""
    newest: int = 0
    """The highest number ever added, whatever was deleted since."""


def _number(bundle: Path) -> int:
    return int(bundle.name.partition("-")[0])


def _size_bytes(bundle: Path) -> int:
    return sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())


class Store:
    """Bundles of one robot under one directory.

    Args:
        directory: Created at the first write.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def current(self) -> Path | None:
        """Directory of the active bundle, or None."""
        try:
            return self.directory / (self.directory / "current").readlink()
        except OSError:
            return None

    @property
    def previous(self) -> Path | None:
        """Where a roll-back would go, or None."""
        name = self._states().previous
        path = self.directory / "versions" / name
        return path if name and path.is_dir() else None

    @property
    def newest_version(self) -> int:
        """The highest version ever added, 0 if there is none."""
        return max([self._states().newest, *map(_number, self.versions())])

    def versions(self) -> list[Path]:
        """Return every bundle's directory, oldest first."""
        return sorted((self.directory / "versions").glob("[0-9]*-*"))

    def state_of(self, bundle: Path) -> State:
        """Return what became of a bundle."""
        return self.about(bundle).state

    def about(self, bundle: Path) -> VersionState:
        """Return what became of a bundle, how often it was tried, and why it is bad."""
        entry = self._states().versions.get(bundle.name, VersionState())
        # Written down, but never linked: the power went in between.
        return VersionState() if entry.state == "active" and bundle != self.current else entry

    def find(self, version: int) -> Path:
        """Return the newest bundle with this number; UsageError if there is none."""
        found = [path for path in self.versions() if _number(path) == version]
        if not found:
            known = ", ".join(str(_number(path)) for path in self.versions()[-5:])
            raise UsageError(f"store {self.directory} has no version {version}", f"the newest are: {known or 'none'}")
        return found[-1]

    # -- taking in ------------------------------------------------------------------------------

    @staticmethod
    def name_of(version: int, digest: str) -> str:
        """Return the directory name of a version."""
        return f"{version:06d}-{digest[:12]}"

    def add(self, bundle: Bundle) -> Path:
        """Write a bundle completely, then give it its name; returns its directory."""
        final = self.directory / "versions" / self.name_of(bundle.manifest.version, bundle.digest)
        if final.exists():
            return final
        try:
            write_directory(final, bundle.contents)
        except OSError as error:
            raise StorageError.cannot_write(final, error) from error
        return final

    def check_newer(self, version: int, name: str) -> None:
        """Refuse to take in what is older than what this store has had; VerificationError.

        A version that is here already is no step back: it is not taken in again.
        """
        newest = self.newest_version
        if version < newest and not (self.directory / "versions" / name).exists():
            raise VerificationError(
                f"version {version} is older than {newest}, which this robot has had already",
                "train on from there; to go back to a version that the robot still has: policyloop store activate",
            )

    def check_not_bad(self, name: str) -> None:
        """Refuse a version that has failed here; SafetyRefusal."""
        _check_not_bad(name, self._states().versions.get(name, VersionState()))

    @contextmanager
    def receiving(self, size: int) -> Iterator[Path]:
        """Give an empty directory to write `size` bytes into, to one process at a time; it is deleted afterwards.

        Raises:
            SafetyRefusal: Somebody else has one.
            StorageError: The disk refuses, or is too full.
        """
        root = self.directory / "staging"
        busy = SafetyRefusal(f"somebody else is sending a bundle to {self.directory} at this moment", "wait a moment")
        with self._claimed(".receiving", busy):
            root.mkdir(exist_ok=True)
            for left in root.iterdir():  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            free = shutil.disk_usage(root).free
            if free < size + _SPARE_BYTES:
                raise StorageError(
                    f"the bundle has {size >> 20} MiB, {root} has {free >> 20} MiB left",
                    "free some space: policyloop store prune",
                )
            staging = Path(tempfile.mkdtemp(dir=root))
            staging.chmod(0o755)
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Drive what is in the store; one robot's program at a time.

        Raises:
            SafetyRefusal: Another one does.
            StorageError: The disk refuses.
        """
        busy = SafetyRefusal(f"another robot's program drives from {self.directory}", "end it first")
        with self._claimed(".driving", busy):
            yield

    @contextmanager
    def _claimed(self, name: str, busy: SafetyRefusal) -> Iterator[None]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._refused(error) from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            yield
        finally:
            os.close(fd)

    def adopt(self, staging: Path, name: str) -> Path:
        """Make a complete directory of `receiving` the version `name`; returns where it is."""
        final = self.directory / "versions" / name
        with self._changing() as states:
            final.parent.mkdir(exist_ok=True)
            sync_directory(staging)
            if final.exists():  # and damaged
                final.rename(staging.with_name(f"{staging.name}.damaged"))
            staging.rename(final)
            sync_directory(final.parent)
            states.newest = max(states.newest, _number(final))
            states.versions.pop(name, None)
            self._save(states, "received", final)
        return final

    # -- choosing -------------------------------------------------------------------------------

    def activate(self, bundle: Path) -> None:
        """Make `bundle` the current one, atomically: a reader sees the old or the new, never neither.

        Raises:
            SafetyRefusal: It is marked bad.
            StorageError: The disk refuses; the old one is still current.
        """
        with self._changing() as states:
            found = states.versions.get(bundle.name, VersionState())
            _check_not_bad(bundle.name, found)
            current = self.current
            if current is not None and current != bundle and _worthier(states, current.name):
                states.previous = current.name
            if found.state != "good":
                states.versions[bundle.name] = VersionState("active", found.attempts if current == bundle else 0)
            states.newest = max(states.newest, _number(bundle))
            self._save(states, "activated", bundle)
            self._link(bundle)

    def begin_attempt(self, bundle: Path) -> None:
        """Write down that a robot begins to drive a version that has not proved itself."""
        self._attempt(bundle, 1)

    def withdraw_attempt(self, bundle: Path) -> None:
        """Take that back: the robot's program ended in order before anything could be said."""
        self._attempt(bundle, -1)

    def _attempt(self, bundle: Path, change: int) -> None:
        with self._changing() as states:
            found = states.versions.get(bundle.name, VersionState("active"))
            states.versions[bundle.name] = msgspec.structs.replace(found, attempts=max(0, found.attempts + change))
            self._save(states)

    def mark(self, bundle: Path, state: Literal["good", "bad"], note: str = "") -> None:
        """Write down that a bundle has proved itself, or failed, and how; StorageError if the disk refuses."""
        with self._changing() as states:
            states.versions[bundle.name] = VersionState(state, note=note)
            self._save(states, f"marked {state}", bundle, note)

    def rollback(self, reason: str = "rolled back by hand") -> Path:
        """Mark the current version bad and make the previous one current; returns it.

        Raises:
            UsageError: There is none to go back to.
            StorageError: The disk refuses.
        """
        nowhere = UsageError(f"store {self.directory} has no version to go back to", "activate one by its number")
        if not self.versions():
            raise nowhere
        with self._changing() as states:
            current, previous = self.current, self.previous
            if current is None or previous is None or previous == current or _state(states, previous) == "bad":
                raise nowhere
            states.versions[current.name] = VersionState("bad", note=reason)
            states.versions[previous.name] = VersionState("good")
            others = [path.name for path in self.versions() if path != previous and _state(states, path) == "good"]
            states.previous = others[-1] if others else ""
            self._save(states, "rolled back from", current, reason)
            self._link(previous)
        return previous

    def recover(self) -> str:
        """Before a robot drives: leave a version behind that ended the robot's program the last time.

        Returns:
            What was done, for people; empty = nothing had to be.
        """
        current = self.current
        if current is None:
            return ""
        found = self.about(current)
        if found.state == "bad":
            good = [path for path in self.versions() if self.state_of(path) == "good"]
            if good:  # the power went in the middle of a roll-back
                self.activate(good[-1])
                return f"back at version {good[-1].name}: {current.name} is marked bad"
        if found.state != "active" or not found.attempts:
            return ""
        reason = "the robot's program died while this version had to prove itself"
        if self.previous is None:
            self.mark(current, "bad", reason)
            return f"version {current.name} is bad: {reason}"
        return f"back at version {self.rollback(reason).name}: {reason} ({current.name})"

    def prunable(self, keep: int) -> dict[Path, int]:
        """Return what `prune` would delete, oldest first, and how many bytes each has."""
        return {path: _size_bytes(path) for path in self._beyond(keep)}

    def _beyond(self, keep: int) -> list[Path]:
        versions = self.versions()
        kept = {*versions[-keep:], self.current, self.previous}
        return [path for path in versions if path not in kept]

    def prune(self, keep: int) -> dict[Path, int]:
        """Delete all but the newest `keep` versions, the current and the previous one; returns what is gone, in bytes.

        Raises:
            StorageError: The disk refuses.
        """
        if not self._beyond(keep):
            return {}
        with self._changing() as states:
            states.newest = self.newest_version
            gone = self.prunable(keep)
            for path in gone:
                states.versions.pop(path.name, None)
                doomed = path.rename(path.with_name(f".{path.name}.gone"))  # never seen half deleted
                shutil.rmtree(doomed)
            self._save(states)
        return gone

    def _link(self, bundle: Path) -> None:
        link = self.directory / "current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(bundle.relative_to(self.directory))
        link.replace(self.directory / "current")
        sync_directory(self.directory)

    # -- state ----------------------------------------------------------------------------------

    def _states(self) -> _States:
        path = self.directory / _STATE_NAME
        try:
            return msgspec.json.decode(path.read_bytes(), type=_States)
        except FileNotFoundError:
            return _States()
        except (OSError, msgspec.DecodeError) as error:
            raise StorageError(
                f"{path} is damaged: {error}", "delete it: every version is a candidate again"
            ) from error

    def _save(self, states: _States, event: str = "", bundle: Path | None = None, note: str = "") -> None:
        write_file(self.directory / _STATE_NAME, msgspec.json.encode(states, order="deterministic"))
        if bundle is not None:
            line = {"time": utc(time.time()), "event": event, "version": bundle.name, "note": note}
            with (self.directory / "history.jsonl").open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")

    @contextmanager
    def _changing(self) -> Iterator[_States]:
        """Give the states to change; one process at a time."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._refused(error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield self._states()
        except OSError as error:
            raise self._refused(error) from error
        finally:
            os.close(fd)

    def _refused(self, error: OSError) -> StorageError:
        return StorageError.cannot_write(self.directory, error)


def _check_not_bad(name: str, found: VersionState) -> None:
    if found.state == "bad":
        raise SafetyRefusal(
            f"version {name} is marked bad" + (f": {found.note}" if found.note else ""),
            "ship a new one; or policyloop store mark-good, if you know better",
        )


def _worthier(states: _States, name: str) -> bool:
    """Tell whether a roll-back should rather go to `name` than where it would go now."""
    state, other = (states.versions.get(entry, VersionState()).state for entry in (name, states.previous))
    return state == "good" or (state != "bad" and other != "good")


def _state(states: _States, bundle: Path) -> State:
    return states.versions.get(bundle.name, VersionState()).state
