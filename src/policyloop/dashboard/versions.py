"""The store as the page shows it: every version, what it is, who signed it, what became of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from policyloop.bundle.manifest import Manifest
from policyloop.bundle.signing import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, KeyRing, verify_manifest
from policyloop.bundle.store import State, Store
from policyloop.bundle.verify import read_manifest
from policyloop.core.files import read_file
from policyloop.errors import PolicyloopError, UsageError

__all__ = ["StoreShown", "StoreView", "VersionShown"]

_NEWEST = 50


class VersionShown(msgspec.Struct, frozen=True, kw_only=True):
    """One version.

    Attributes:
        name: Of its directory.
        note: Why it is bad, or what it has shown.
        signature: Who vouches for it, in words.
        trusted: That somebody on the key ring signed it.
        report: What its manifest says, by title.
        problem: Why it cannot be read.
    """

    name: str
    version: int
    state: State
    current: bool
    note: str
    signature: str = ""
    trusted: bool = False
    created: str = ""
    report: dict[str, str] = {}
    problem: str = ""


class StoreShown(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, newest first; `previous` is where a roll-back goes."""

    directory: str
    current: str
    previous: str
    versions: list[VersionShown]
    problem: str = ""


class StoreView:
    """Reads a store, and changes it as `policyloop store` does.

    Args:
        directory: Of the store.
        ring: Whose signatures count.

    Attributes:
        revision: Grows whenever something changed.
        shown: As of the last `read`.
    """

    def __init__(self, directory: Path, ring: KeyRing) -> None:
        self.revision = 0
        self.shown = StoreShown(directory=str(directory), current="", previous="", versions=[])
        self._store, self._ring = Store(directory), ring

    def read(self) -> None:
        """Look at it again."""
        try:
            shown = self._read()
        except (PolicyloopError, OSError) as error:
            shown = msgspec.structs.replace(self.shown, problem=str(error))
        self.revision += shown != self.shown
        self.shown = shown

    def _read(self) -> StoreShown:
        current, previous = self._store.current, self._store.previous
        return StoreShown(
            directory=str(self._store.directory),
            current=current.name if current else "",
            previous=previous.name if previous else "",
            versions=[self._version(path, current) for path in reversed(self._store.versions()[-_NEWEST:])],
        )

    def _version(self, path: Path, current: Path | None) -> VersionShown:
        about = self._store.about(path)
        found = VersionShown(
            name=path.name,
            version=int(path.name.partition("-")[0]),
            state=about.state,
            current=path == current,
            note=about.note,
        )
        try:
            data, manifest = read_manifest(path)
        except PolicyloopError as error:
            return msgspec.structs.replace(found, problem=str(error))
        signature, trusted = self._signature(path, data)
        return msgspec.structs.replace(
            found, signature=signature, trusted=trusted, created=manifest.created, report=_report(manifest)
        )

    def _signature(self, path: Path, manifest: bytes) -> tuple[str, bool]:
        """Return who vouches for a version, in words, and whether that counts here."""
        if not (path / SIGNATURE_NAME).exists():
            return "not signed", False
        try:
            signer = verify_manifest(manifest, read_file(path / SIGNATURE_NAME, MAX_SIGNATURE_BYTES), self._ring)
        except PolicyloopError as error:
            return error.message, False
        return f"signed by {signer}", True

    def activate(self, name: str) -> None:
        """Make a version the current one.

        Raises:
            UsageError: There is none of that name.
            SafetyRefusal: It is marked bad.
            StorageError: The disk refuses.
        """
        found = [path for path in self._store.versions() if path.name == name]
        if not found:
            raise UsageError(f"the store has no version {name[:64]}", "load the page again")
        self._store.activate(found[0])

    def rollback(self, current: str) -> None:
        """Mark `current` bad and go back to the version before it.

        Raises:
            UsageError: Another one is current by now, or there is none to go back to.
            StorageError: The disk refuses.
        """
        found = self._store.current
        if found is None or found.name != current:
            raise UsageError(f"{found.name if found else 'no version'} is current by now", "look again, then decide")
        self._store.rollback("rolled back from the dashboard")


def _report(manifest: Manifest) -> dict[str, str]:
    parity = manifest.parity
    report = {
        "profile": f"{manifest.profile_name} {manifest.profile_digest[:12]}",
        "network": f"{manifest.network}, {sum(entry.size for entry in manifest.files.values()) / 1e6:.2f} MB",
        "parity with torch": f"worst {parity.max_abs_error:.1e} of {parity.observations} observations, before tanh",
    }
    if manifest.conversion is not None:
        conversion = manifest.conversion
        report["for the NPU"] = f"{conversion.target}, {conversion.precision}: {conversion.reason}"
        for name, (mean, p99, worst) in conversion.errors.items():
            report[f"error of {name}"] = f"mean {mean:.4f}, p99 {p99:.4f}, worst {worst:.4f}, in its unit"
    if manifest.expires:
        report["expires"] = manifest.expires
    training = ", ".join(f"{name} {value}" for name, value in list(manifest.training.items())[:12])
    return {**report, "training": training[:400]}
