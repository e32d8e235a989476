"""From what a person names to what leaves this machine: found, verified, signed."""

from __future__ import annotations

import time
from pathlib import Path

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import SIGNATURE_NAME, SIGNER_NAME, load_signer, sign_manifest
from policyloop.bundle.verify import open_bundle, read_manifest
from policyloop.core.clock import utc
from policyloop.core.profile import load_profile
from policyloop.errors import ConfigError, UsageError
from policyloop.runtime.locate import bundle_directory, find_policy

__all__ = ["expiring", "find_bundle", "signed_contents"]

_DAY_S = 86_400.0


def find_bundle(policy: Path) -> tuple[Path, Bundle]:
    """Return the bundle behind a path, and where it is: a checkpoint, a bundle, a store, a demo's folder.

    Raises:
        UsageError: It is a bare `.onnx` file.
        PolicyloopError: There is none, or it is damaged.
    """
    directory = bundle_directory(find_policy(policy))
    if directory.suffix == ".onnx":
        raise UsageError(f"{policy} is a bare network", "deploy the checkpoint or bundle that it comes from")
    opened = open_bundle(directory, load_profile(read_manifest(directory)[1].profile_name))
    return directory, Bundle(opened.manifest, opened.files)


def expiring(bundle: Bundle, days: float) -> Bundle:
    """Return the bundle with a date from which on no robot takes it any more."""
    return bundle.revised(expires=utc(time.time() + days * _DAY_S))


def signed_contents(bundle: Bundle, directory: Path, keys: Path) -> dict[str, bytes]:
    """Return every file of the bundle's directory, signed with this machine's key if it has one.

    Args:
        bundle: What is sent.
        directory: Where it comes from; signatures that are there and still fit are kept.
        keys: Directory of the keys.

    Raises:
        ConfigError: Nobody has signed it, and there is no key here.
    """
    manifest = bundle.manifest.encode()
    kept = b""
    if (directory / SIGNATURE_NAME).exists() and read_manifest(directory)[0] == manifest:
        kept = (directory / SIGNATURE_NAME).read_bytes()
    if (keys / SIGNER_NAME).exists():
        kept = sign_manifest(manifest, load_signer(keys), kept)
    if not kept:
        raise ConfigError(
            f"nobody has signed this bundle, and there is no key to sign with in {keys}",
            "policyloop keys new NAME --signing; then on the robot: policyloop keys allow NAME KEY --signing",
        )
    return {**bundle.contents, SIGNATURE_NAME: kept}
