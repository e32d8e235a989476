"""Where recordings and policies are: room on the disk, damage, gaps, and what would drive."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from policyloop.bundle.signing import KeyRing
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle, read_manifest
from policyloop.core.profile import load_profile
from policyloop.doctor.finding import Check, Finding
from policyloop.doctor.npu import LIBRARIES, runtime_version
from policyloop.doctor.scope import Scope
from policyloop.errors import IncompatibleError, StorageError, VerificationError, WireError
from policyloop.link.journal import Journal
from policyloop.link.uplink import UplinkSettings

__all__ = ["checks"]

_SCARCE_BYTES, _EMPTY_BYTES = 4 << 30, 256 << 20
_SCARCE_FILES = 1000
_READ_S = 1.0
"""How long a journal is read; `policyloop journal verify` reads all of it."""
_NEWEST = 2000
_GAPS = 0.01
_FLEETING = ("tmpfs", "ramfs")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p")
_MOUNTS, _LOCKS = Path("/proc/self/mountinfo"), Path("/proc/locks")

T = TypeVar("T")
StatVfs = Callable[[Path], os.statvfs_result]


def checks(scope: Scope) -> list[Check]:
    """Return the questions about the directories that were named."""
    found: list[Check] = []
    journal, store, spool = (scope.path(name) for name in ("journal", "store", "spool"))
    if journal is not None:
        found.append(Check("disk of the journal", partial(room, "disk of the journal", journal)))
        found.append(Check("journal", partial(recorded, journal)))
    if spool is not None:
        found.append(Check("disk of the spool", partial(spooled, spool)))
    if store is not None:
        found.append(Check("disk of the store", partial(room, "disk of the store", store)))
        found.append(Check("store", partial(versions, store, scope)))
    return found


def room(
    what: str, path: Path, budget_bytes: int = _SCARCE_BYTES, statvfs: StatVfs = os.statvfs, mounts: Path = _MOUNTS
) -> Finding:
    """Tell how much fits on the disk of `path`, whether it can be written, and whether it outlasts a power cut."""
    if path.exists() and not path.is_dir():
        raise StorageError(f"{path} is no folder", "name the directory itself")
    place = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not os.access(place, os.W_OK):
        raise StorageError(f"this user cannot write to {place}", f"sudo chown --recursive $USER {place}")
    disk = statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    kind = _filesystem(place, mounts)
    found = f"{free / 2**30:.1f} GB free in {place} ({kind})"
    if free < _EMPTY_BYTES or (disk.f_files and disk.f_favail < _SCARCE_FILES):
        raise StorageError(f"{found}, {disk.f_favail} more files fit: the disk is full", "free some space")
    remedy = ""
    if free < budget_bytes:
        remedy = f"up to {budget_bytes / 2**30:.0f} GB may be written: free some space, or use another disk"
    elif kind in _FLEETING:
        remedy = "what is there is gone after a restart: use a directory on a disk"
    elif kind in _REMOTE:
        remedy = "locks and syncs of a network disk cannot be relied on: use a local one"
    return Finding(what=what, state="doubtful" if remedy else "fine", found=found, remedy=remedy)


def spooled(path: Path, budget_bytes: int = UplinkSettings().spool_bytes) -> Finding:
    """Tell whether the rest of a spool's budget fits on its disk."""
    used_bytes = sum(segment.stat().st_size for segment in path.glob("*.seg"))
    return room("disk of the spool", path, max(0, budget_bytes - used_bytes))


def _filesystem(place: Path, mounts: Path) -> str:
    """Return the kind of file system that holds `place`; see proc(5)."""
    best, kind = "", "unknown"
    for line in mounts.read_text().splitlines():
        fields = line.split()
        where = fields[4].replace("\\040", " ")
        if place.is_relative_to(where) and len(where) >= len(best):
            best, kind = where, fields[fields.index("-") + 1]
    return kind


def recorded(path: Path) -> list[Finding]:
    """Look for damage and gaps in a journal; the newest steps, and others spread over all of it."""
    journal = Journal(path)
    try:
        busy = _is_written(path)
        damaged, read = _damage(journal)
        gaps, missing, headers = _gaps(journal)
        steps, unreadable = journal.next - journal.first, journal.unreadable_bytes
    finally:
        journal.close()
    if damaged or (unreadable and not busy):  # the tail of one that is being written is only half there
        raise VerificationError(
            f"{path}: {damaged} of {read} steps that were read are damaged, {unreadable} bytes belong to none",
            "policyloop journal verify names them; training leaves them out",
        )
    found = f"{steps} steps of '{journal.profile.name}', {read} of them read, all intact"
    about = Finding(what="journal", state="fine", found=found + (", being written" if busy else ""))
    if not missing or missing <= _GAPS * headers:
        return [about]
    found = f"{missing} steps are missing in {gaps} places among the newest {headers}"
    remedy = "the robot lost them: a larger spool (--spool on a disk), or fewer steps per second"
    return [about, Finding(what="gaps", state="doubtful", found=found, remedy=remedy)]


def _is_written(journal: Path) -> bool:
    """Ask the kernel whether somebody holds the writer's lock; trying to take it could keep a gateway from starting."""
    try:
        inode = (journal / "lock").stat().st_ino
        held = _LOCKS.read_text().splitlines()
    except OSError:
        return False  # copied from elsewhere; or nobody tells
    return any("FLOCK" in line and f":{inode} " in line for line in held)


def _damage(journal: Journal) -> tuple[int, int]:
    """Return how many of the steps that could be read in time are damaged, and how many that were."""
    first, behind = journal.first, journal.next
    spread = range(first, behind, max(1, (behind - first) // _NEWEST))
    damaged = read = 0
    for position in _in_time(chain(range(behind - 1, max(first, behind - 100) - 1, -1), spread)):
        read += 1
        try:
            journal.read(position)
        except (StorageError, WireError):
            damaged += 1
    return damaged, read


def _gaps(journal: Journal) -> tuple[int, int, int]:
    """Return places where steps are missing, how many are missing there, and how many steps were looked at."""
    gaps = missing = looked = 0
    last: dict[tuple[str, str], int] = {}
    for record in _in_time(journal.headers(max(journal.first, journal.next - _NEWEST))):
        looked += 1
        before = last.get((record.robot, record.boot))
        jump = 0 if before is None else record.sequence - before - 1
        gaps += jump > 0
        missing += max(jump, 0)
        last[record.robot, record.boot] = record.sequence
    return gaps, missing, looked


def _in_time(items: Iterable[T]) -> Iterator[T]:
    deadline_s = time.monotonic() + _READ_S
    for item in items:
        yield item
        if time.monotonic() > deadline_s:
            return


def versions(path: Path, scope: Scope, libraries: tuple[Path, ...] = LIBRARIES) -> Finding:
    """Verify the version that would drive, and compare it with this board's runtime."""
    what, store = "store", Store(path)
    known, current = store.versions(), store.current
    if current is None and not known:
        return Finding(what=what, state="absent", found=f"no versions in {path}")
    if current is None:
        remedy = f"policyloop store activate {path} VERSION"
        return Finding(what=what, state="doubtful", found=f"{len(known)} versions, none is current", remedy=remedy)
    if not current.is_dir():
        raise StorageError(
            f"{path}: 'current' leads to {current.name}, which is not there", "policyloop store rollback"
        )
    keys = scope.path("keys")
    ring = KeyRing(keys) if keys is not None and (keys / "trusted").is_dir() else None
    _, manifest = read_manifest(current)
    open_bundle(current, load_profile(scope.profile or manifest.profile_name), ring)
    about = store.about(current)
    if about.state == "bad":
        remedy = f"policyloop store rollback {path}"
        return Finding(
            what=what, state="wrong", found=f"{current.name} is marked bad: {about.note}", remedy=remedy, exit_code=6
        )
    installed = {version for library in libraries if library.exists() and (version := runtime_version(library))}
    if manifest.conversion is not None and installed and installed != {manifest.conversion.toolkit}:
        raise IncompatibleError(
            f"{current.name} was converted with toolkit {manifest.conversion.toolkit}, "
            f"this board has librknnrt {', '.join(installed)}",
            "convert it again with that version, or install the board's runtime of this one",
        )
    signed = "" if ring is None else ", signed by somebody trusted"
    return Finding(
        what=what, state="fine", found=f"{current.name} is current ({about.state}), whole{signed}; {len(known)} in all"
    )
