"""A store of bundles: numbered immutable versions, an atomic `current`, and what became of each.

    STORE/versions/000007-3f2a91c04d5e/manifest.json, policy.onnx, ...
    STORE/current -> versions/000007-3f2a91c04d5e
    STORE/state.json

A version is a candidate until it is activated, active while it must prove itself, then good or bad. State is written
before each step, so that a power cut leaves the old version driving or the new one, never neither;
a version that is bad is never activated again by itself.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from policyloop.bundle.build import Bundle
from policyloop.core.files import sync_directory, write_directory, write_file
from policyloop.errors import SafetyRefusal, StorageError, UsageError

__all__ = ["State", "Store"]

State = Literal["candidate", "active", "good", "bad"]
_STATE_NAME = "state.json"


class _States(msgspec.Struct, forbid_unknown_fields=True):
    """`state.json`. What it does not name is a candidate."""

    versions: dict[str, State] = {}
    previous: str = ""
    """Where a roll-back goes."""


def _number(bundle: Path) -> int:
    return int(bundle.name.partition("-")[0])


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
        except FileNotFoundError:
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
        return max(map(_number, self.versions()), default=0)

    def versions(self) -> list[Path]:
        """Return every bundle's directory, oldest first."""
        return sorted((self.directory / "versions").glob("[0-9]*-*"))

    def state_of(self, bundle: Path) -> State:
        """Return what became of a bundle."""
        state = self._states().versions.get(bundle.name, "candidate")
        # Written down, but never linked: the power went in between.
        return "candidate" if state == "active" and bundle != self.current else state

    def find(self, version: int) -> Path:
        """Return the newest bundle with this number; UsageError if there is none."""
        found = [path for path in self.versions() if _number(path) == version]
        if not found:
            known = ", ".join(str(_number(path)) for path in self.versions()[-5:])
            raise UsageError(f"store {self.directory} has no version {version}", f"the newest are: {known or 'none'}")
        return found[-1]

    def add(self, bundle: Bundle) -> Path:
        """Write a bundle completely, then give it its name; returns its directory."""
        name = f"{bundle.manifest.version:06d}-{bundle.digest[:12]}"
        final = self.directory / "versions" / name
        if final.exists():
            return final
        try:
            write_directory(final, bundle.contents)
        except OSError as error:
            raise StorageError(f"cannot write bundle {final}: {error.strerror}", "free some space") from error
        return final

    def activate(self, bundle: Path) -> None:
        """Make `bundle` the current one, atomically: a reader sees the old or the new, never neither.

        Raises:
            SafetyRefusal: It is marked bad.
            StorageError: The disk refuses; the old one is still current.
        """
        with self._changing() as states:
            if states.versions.get(bundle.name) == "bad":
                raise SafetyRefusal(
                    f"version {bundle.name} is marked bad",
                    "ship a new one; or policyloop store mark-good, if you know better",
                )
            current = self.current
            if current is not None and current != bundle and states.versions.get(current.name) != "bad":
                states.previous = current.name
            if states.versions.get(bundle.name) != "good":
                states.versions[bundle.name] = "active"
            self._save(states)
            self._link(bundle)

    def mark(self, bundle: Path, state: Literal["good", "bad"]) -> None:
        """Write down that a bundle has proved itself, or failed; StorageError if the disk refuses."""
        with self._changing() as states:
            states.versions[bundle.name] = state
            self._save(states)

    def rollback(self) -> Path:
        """Mark the current version bad and make the previous one current; returns it.

        Raises:
            UsageError: There is none to go back to.
            StorageError: The disk refuses.
        """
        with self._changing() as states:
            current, previous = self.current, self.previous
            if current is None or previous is None or previous == current:
                raise UsageError(f"store {self.directory} has no version to go back to", "activate one by its number")
            states.versions[current.name] = "bad"
            states.versions[previous.name] = "good"
            states.previous = ""
            self._save(states)
            self._link(previous)
        return previous

    def prune(self, keep: int) -> list[Path]:
        """Delete all but the newest `keep` versions, the current and the previous one; returns what is gone."""
        with self._changing() as states:
            kept = {*self.versions()[-keep:], self.current, self.previous}
            gone = [path for path in self.versions() if path not in kept]
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

    def _save(self, states: _States) -> None:
        write_file(self.directory / _STATE_NAME, msgspec.json.encode(states, order="deterministic"))

    @contextmanager
    def _changing(self) -> Iterator[_States]:
        """Give the states to change; one process at a time."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot write to store {self.directory}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield self._states()
        except OSError as error:
            raise StorageError(
                f"cannot write to store {self.directory}: {error.strerror}", "free some space"
            ) from error
        finally:
            os.close(fd)
