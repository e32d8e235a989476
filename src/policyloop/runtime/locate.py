"""What to drive with behind a path that a person gave."""

from __future__ import annotations

from pathlib import Path

from policyloop.bundle.store import Store
from policyloop.bundle.verify import read_manifest
from policyloop.errors import StorageError

__all__ = ["bundle_directory", "find_policy", "profile_name"]


def find_policy(path: Path) -> Path:
    """Return what to drive with behind a path: an `.onnx` file, a bundle, a store, a checkpoint, a demo's folder.

    Raises:
        StorageError: There is nothing to drive with at `path`.
    """
    if path.suffix == ".onnx" and path.is_file():
        return path
    for candidate in (path, path / "bundle", path / "best", path / "store"):
        if (candidate / "manifest.json").is_file() or (candidate / "versions").is_dir():
            return candidate
    bundles = sorted([*path.glob("checkpoints/[0-9]*/bundle"), *path.glob("[0-9]*/bundle")])
    if bundles:
        return bundles[-1]
    raise StorageError(
        f"no policy at {path}", "give a bundle, a checkpoint, a store, a demo's folder, or a driver's name"
    )


def bundle_directory(source: Path) -> Path:
    """Return `source` if it is a bundle, or the current bundle if it is a store.

    Raises:
        StorageError: The store holds no bundle yet.
    """
    if not (source / "versions").is_dir():
        return source
    current = Store(source).current
    if current is None:
        raise StorageError(f"store {source} has no current bundle", "activate one, or wait for the trainer")
    return current


def profile_name(path: Path) -> str:
    """Return the profile that a bundle or an ONNX file was made for; empty if an ONNX file does not say.

    Raises:
        StorageError: It cannot be read.
        VerificationError: It is damaged.
        IncompatibleError: It is of a newer format.
    """
    if path.suffix != ".onnx":
        return read_manifest(path)[1].profile_name
    from policyloop.runtime.onnx_backend import read_metadata

    try:
        return read_metadata(path.read_bytes()).get("profile_name", "")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", "give the path of an .onnx file") from error
