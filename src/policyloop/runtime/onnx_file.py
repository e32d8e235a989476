"""A bare `.onnx` file as a policy, by the metadata that our export writes into it.

It carries no hash and no signature, so it is for looking at a policy, not for shipping one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from policyloop.bundle.manifest import NETWORK_NAME, FileEntry, Manifest, Parity
from policyloop.bundle.verify import VerifiedBundle
from policyloop.core.features import feature_specs
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, StorageError, VerificationError
from policyloop.runtime.onnx_backend import read_metadata

__all__ = ["open_onnx"]


def open_onnx(path: Path, profile: RobotProfile) -> VerifiedBundle:
    """Read an ONNX file that `policyloop export` wrote.

    Raises:
        StorageError: It cannot be read.
        VerificationError: It is not ONNX, or lacks our metadata.
        IncompatibleError: It was made for another profile.
    """
    try:
        network = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    metadata = read_metadata(network)
    try:
        digest, version = metadata["profile_digest"], int(metadata["version"])
        inputs = tuple(metadata["inputs"].split(","))
        normalizer = msgspec.json.decode(metadata["normalizer"], type=Normalizer)
    except (KeyError, ValueError) as error:
        raise VerificationError(f"{path} was not exported by policyloop: {error}", "use `policyloop export`") from error
    if digest != profile.digest:
        raise IncompatibleError(
            f"{path} is for profile '{metadata.get('profile_name', '?')}' ({digest[:12]}), "
            f"this robot is '{profile.name}' ({profile.digest[:12]})",
            "give the profile that it was trained with: --profile",
        )
    if len(normalizer.mean) != profile.proprio_size:
        raise VerificationError(f"{path}: its normalizer does not fit its own profile")
    sha256 = hashlib.sha256(network).hexdigest()
    manifest = Manifest(
        version=version,
        created="",
        profile_name=profile.name,
        profile_digest=digest,
        network="",
        inputs=tuple(feature_specs(profile, inputs)),
        normalizer=normalizer,
        log_std=tuple(-5.0 for _ in profile.action),
        noise_hold_ticks=1,
        parity=Parity(observations=0, max_abs_error=0.0, mean_abs_error=0.0),
        files={NETWORK_NAME: FileEntry(sha256=sha256, size=len(network))},
    )
    return VerifiedBundle(manifest, sha256, {NETWORK_NAME: network})
