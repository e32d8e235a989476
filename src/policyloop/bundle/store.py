"""A store of bundles: numbered immutable versions and an atomic `current`.

STORE/versions/000007-3f2a91c04d5e/manifest.json, policy.onnx
STORE/current -> versions/000007-3f2a91c04d5e
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from policyloop.bundle.manifest import MANIFEST_NAME, NETWORK_NAME, Manifest
from policyloop.core.files import sync_directory, write_directory
from policyloop.errors import StorageError

__all__ = ["Store"]


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
    def newest_version(self) -> int:
        """The highest version ever added, 0 if there is none."""
        return max((int(path.name.partition("-")[0]) for path in self.versions()), default=0)

    def versions(self) -> list[Path]:
        """Return every bundle's directory, oldest first."""
        return sorted((self.directory / "versions").glob("[0-9]*-*"))

    def add(self, manifest: Manifest, network: bytes) -> Path:
        """Write a bundle completely, then give it its name; returns its directory."""
        data = manifest.encode()
        name = f"{manifest.version:06d}-{hashlib.sha256(data).hexdigest()[:12]}"
        final = self.directory / "versions" / name
        if final.exists():
            return final
        try:
            write_directory(final, {NETWORK_NAME: network, MANIFEST_NAME: data})
        except OSError as error:
            raise StorageError(f"cannot write bundle {final}: {error.strerror}", "free some space") from error
        return final

    def activate(self, bundle: Path) -> None:
        """Make `bundle` the current one, atomically: a reader sees the old or the new, never neither."""
        link = self.directory / "current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(bundle.relative_to(self.directory))
        link.replace(self.directory / "current")
        sync_directory(self.directory)
