"""The manifest of a bundle: everything a robot must know about a policy before it opens the network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from policyloop.bundle.signing import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, KeyRing, verify_manifest
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, StorageError, VerificationError

__all__ = [
    "FORMAT",
    "MANIFEST_NAME",
    "NETWORK_NAME",
    "RKNN_NAME",
    "Conversion",
    "FileEntry",
    "Manifest",
    "Parity",
    "VerifiedBundle",
    "open_bundle",
    "read_manifest",
]

FORMAT = 1
MANIFEST_NAME = "manifest.json"
NETWORK_NAME = "policy.onnx"
RKNN_NAME = "policy.rknn"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_FILE_BYTES = 512 << 20


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the bundle."""

    sha256: str
    size: Annotated[int, msgspec.Meta(ge=0)]


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well the exported network agrees with the trained one, before tanh."""

    observations: int
    max_abs_error: float
    mean_abs_error: float


class Conversion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the network for the NPU is, and what it was found to cost.

    Attributes:
        calibration_digest: SHA-256 of the samples that the INT8 scales come from; empty for float16.
        errors: Per action, in its unit, on samples held out: mean, p99 and worst.
    """

    target: str
    precision: str
    toolkit: str
    calibration_digest: str
    reason: str
    errors: dict[str, tuple[float, float, float]]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is and what it may drive.

    Attributes:
        version: Grows by one with every policy that a trainer ships.
        log_std: Exploration before tanh, which the robot adds when it is asked to explore.
        noise_hold_ticks: How many ticks one draw of that noise lasts.
        training: Where the policy comes from: algorithm, steps, journal, checkpoint.
        conversion: Describes the network for the NPU, if the bundle holds one.
    """

    format: int
    version: int
    created: str
    profile_name: str
    profile_digest: str
    network: str
    inputs: tuple[str, ...]
    normalizer: Normalizer
    log_std: tuple[float, ...]
    noise_hold_ticks: int
    parity: Parity
    files: dict[str, FileEntry]
    training: dict[str, Any] = {}
    conversion: Conversion | None = None

    def encode(self) -> bytes:
        """Return the canonical bytes; equal manifests give equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2)


class _Format(msgspec.Struct):
    """The one field that every format has; all others are passed over."""

    format: int


class VerifiedBundle(msgspec.Struct, frozen=True):
    """A manifest and the bytes it vouches for.

    The bytes are read once and checked; nothing reads the file again, so nobody can change it in between.
    """

    manifest: Manifest
    digest: str
    """SHA-256 of the manifest's bytes: it names this policy in every step it drives."""
    network: bytes
    rknn: bytes | None = None
    """The same network for the NPU; None = the bundle holds none."""
    signer: str = ""
    """Who vouches for it, by the name in the key ring; empty = nobody was asked."""


def open_bundle(path: Path, profile: RobotProfile, ring: KeyRing | None = None) -> VerifiedBundle:
    """Read a bundle directory and verify it by signature, size, hash and profile before anything in it is used.

    Args:
        path: The bundle.
        profile: The robot's.
        ring: Whose signatures count; None = unsigned bundles are taken too, as in simulation.

    Raises:
        StorageError: There is no bundle at `path`.
        VerificationError: It is not signed by anybody in `ring`; or a file is missing, too large or not
            what the manifest says.
        IncompatibleError: It is of a newer format, or made for another profile.
    """
    data = _read(path / MANIFEST_NAME, _MAX_MANIFEST_BYTES)
    signer = "" if ring is None else check_signature(path, data, ring)
    manifest = _decode(data, path)
    if manifest.profile_digest != profile.digest:
        raise IncompatibleError(
            f"bundle {path} is for profile '{manifest.profile_name}' ({manifest.profile_digest[:12]}), "
            f"this robot is '{profile.name}' ({profile.digest[:12]})",
            "train with this robot's profile, or start the robot with the bundle's",
        )
    actions = len(profile.action)
    if len(manifest.log_std) != actions or len(manifest.normalizer.mean) != profile.proprio_size:
        raise VerificationError(f"bundle {path}: the manifest's vectors do not fit its own profile")
    if NETWORK_NAME not in manifest.files:
        raise VerificationError(f"bundle {path} holds no {NETWORK_NAME}", "export the bundle again")
    network = _read_entry(path, NETWORK_NAME, manifest)
    rknn = _read_entry(path, RKNN_NAME, manifest) if RKNN_NAME in manifest.files else None
    return VerifiedBundle(manifest, hashlib.sha256(data).hexdigest(), network, rknn, signer)


def check_signature(path: Path, manifest: bytes, ring: KeyRing) -> str:
    """Return the name of who on the ring has signed these bytes of the bundle's manifest.

    Raises:
        VerificationError: Nobody has.
    """
    if not (path / SIGNATURE_NAME).exists():
        raise VerificationError(f"bundle {path} is not signed", "sign it where it was made: policyloop bundle sign")
    return verify_manifest(manifest, _read(path / SIGNATURE_NAME, MAX_SIGNATURE_BYTES), ring)


def read_manifest(path: Path, ring: KeyRing | None = None) -> tuple[bytes, Manifest]:
    """Return a bundle's manifest, as bytes and decoded; nothing but the signature is verified, if it counts.

    Raises:
        StorageError: There is no bundle at `path`.
        VerificationError: It is none, or damaged, or nobody on `ring` has signed it.
        IncompatibleError: It is of a newer format.
    """
    data = _read(path / MANIFEST_NAME, _MAX_MANIFEST_BYTES)
    if ring is not None:
        check_signature(path, data, ring)
    return data, _decode(data, path)


def _decode(data: bytes, path: Path) -> Manifest:
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found > FORMAT:
            raise IncompatibleError(f"bundle {path} has format {found}", "upgrade policyloop on this machine")
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError(f"{path / MANIFEST_NAME}: {error}", "export the bundle again") from error


def _read_entry(path: Path, name: str, manifest: Manifest) -> bytes:
    """Read a file of the bundle, if it is the one that the manifest names."""
    entry = manifest.files[name]
    if not (path / name).exists():
        raise VerificationError(f"bundle {path} has lost its {name}", "copy the bundle again")
    data = _read(path / name, min(entry.size, _MAX_FILE_BYTES))
    if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise VerificationError(f"{path / name} is not the file that the manifest names", "copy the bundle again")
    return data


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", "give the path of a bundle directory") from error
    if len(data) > limit:
        raise VerificationError(f"{path} is larger than {limit} bytes")
    return data
