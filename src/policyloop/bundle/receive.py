"""Take in a bundle from whoever sends one: signature first, then fit, then bytes, one by one into staging.

Whatever is wrong with it, or with the connection, or with the disk: the store's versions are what they were.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from policyloop.bundle.archive import ArchiveReader
from policyloop.bundle.manifest import (
    GOLDEN_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    decode_manifest,
)
from policyloop.bundle.signing import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, KeyRing, verify_manifest
from policyloop.bundle.store import Store
from policyloop.bundle.verify import check_fits, open_bundle
from policyloop.core.clock import utc
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, StorageError, VerificationError

__all__ = ["Recipient", "check_bundle", "receive_bundle"]

_SOURCE = "the bundle"


class Recipient(msgspec.Struct, frozen=True):
    """The robot that a bundle is for.

    Attributes:
        ring: Whose signatures count.
        board: Its NPU, such as `rk3588`; empty = not known, or none.
    """

    store: Store
    profile: RobotProfile
    ring: KeyRing
    board: str = ""


def receive_bundle(stream: BinaryIO, recipient: Recipient) -> Path:
    """Read an archive and add it to the store as a candidate; returns its directory.

    One that the store has already is verified where it is, and nothing more is read.

    Raises:
        VerificationError: It is signed by nobody who is trusted, expired, older than what the robot has had, damaged,
            or holds something else than its manifest says.
        IncompatibleError: It is for another profile, NPU, or a newer policyloop.
        ConnectionFailed: The stream ends early.
        SafetyRefusal: Somebody else is sending a bundle at this moment.
        StorageError: The disk refuses.
    """
    reader, store = ArchiveReader(stream), recipient.store
    data, signature, manifest, name = _open(reader, recipient)
    with store.receiving(sum(entry.size for entry in manifest.files.values())) as staging:
        present = store.directory / "versions" / name
        if _is_whole(present, recipient):
            return present
        try:
            for file, entry in sorted(manifest.files.items()):
                _copy(reader, file, entry, staging / file)
            reader.end()
            _write(staging / MANIFEST_NAME, data)
            _write(staging / SIGNATURE_NAME, signature)
        except OSError as error:
            raise StorageError.cannot_write(staging, error) from error
        return store.adopt(staging, name)


def check_bundle(stream: BinaryIO, recipient: Recipient) -> str:
    """Check everything that manifest and signature tell, and change nothing; returns the version's name.

    Args:
        stream: An archive; nothing behind its first two members is read.
        recipient: The robot.

    Raises:
        PolicyloopError: As `receive_bundle`, as far as it can be known.
    """
    return _open(ArchiveReader(stream), recipient)[-1]


def _open(reader: ArchiveReader, recipient: Recipient) -> tuple[bytes, bytes, Manifest, str]:
    """Return a manifest that is signed and fits this robot: its bytes, its signature, decoded, and its name."""
    data = reader.take(MANIFEST_NAME, MAX_MANIFEST_BYTES)
    signature = reader.take(SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
    verify_manifest(data, signature, recipient.ring)
    manifest = decode_manifest(data, f"{_SOURCE}'s manifest")
    name = recipient.store.name_of(manifest.version, hashlib.sha256(data).hexdigest())
    _check(manifest, name, recipient)
    return data, signature, manifest, name


def _check(manifest: Manifest, name: str, recipient: Recipient) -> None:
    """Check everything about a bundle that its manifest tells."""
    check_fits(manifest, recipient.profile, _SOURCE)
    if GOLDEN_NAME not in manifest.files:
        raise VerificationError(f"{_SOURCE} holds no golden vectors", "export it again")
    _check_expiry(manifest)
    conversion = manifest.conversion
    if conversion is not None and recipient.board and conversion.target != recipient.board:
        raise IncompatibleError(
            f"{_SOURCE} holds a network for the NPU of a {conversion.target}, this is a {recipient.board}",
            f"convert it with --target {recipient.board}",
        )
    recipient.store.check_newer(manifest.version, name)
    recipient.store.check_not_bad(name)


def _check_expiry(manifest: Manifest) -> None:
    if not manifest.expires:
        return
    now = utc(time.time())  # in the manifest's format, so that text compares as time does
    if now < manifest.created:
        raise VerificationError(
            f"{_SOURCE} was made at {manifest.created}, and this machine's clock says {now}", "set the clock"
        )
    if now >= manifest.expires:
        raise VerificationError(
            f"{_SOURCE} expired at {manifest.expires}; this machine's clock says {now}", "sign and send a newer one"
        )


def _is_whole(present: Path, recipient: Recipient) -> bool:
    if not present.exists():
        return False
    try:
        open_bundle(present, recipient.profile, recipient.ring)
    except (StorageError, VerificationError):  # the disk has eaten something: take it in again
        return False
    return True


def _copy(reader: ArchiveReader, name: str, entry: FileEntry, path: Path) -> None:
    digest = hashlib.sha256()
    with _create(path) as file:
        for part in reader.copy(name, entry.size):
            digest.update(part)
            file.write(part)
        _sync(file)
    if digest.hexdigest() != entry.sha256:
        raise VerificationError(f"{_SOURCE}'s {name} is not the file that the manifest names", "send it again")


def _write(path: Path, data: bytes) -> None:
    with _create(path) as file:
        file.write(data)
        _sync(file)


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "wb")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
