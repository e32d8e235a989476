"""The manifest of a bundle: everything a robot must know about a policy before it opens the network."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from policyloop.core.normalizer import Normalizer
from policyloop.errors import IncompatibleError, VerificationError

__all__ = [
    "FORMAT",
    "GOLDEN_NAME",
    "MANIFEST_NAME",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_MANIFEST_BYTES",
    "NETWORK_NAME",
    "RKNN_NAME",
    "Conversion",
    "FileEntry",
    "Manifest",
    "Parity",
    "decode_manifest",
]

FORMAT = 1
MANIFEST_NAME = "manifest.json"
NETWORK_NAME = "policy.onnx"
RKNN_NAME = "policy.rknn"
GOLDEN_NAME = "golden.npz"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 512 << 20
MAX_FILES = 16
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


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
        version: Grows by one with every policy that a trainer ships; a robot takes no lower one than it has had.
        created: UTC, `YYYY-MM-DDTHH:MM:SSZ`.
        expires: The same; from then on no robot installs or activates it any more. Empty = never.
        minimum_runtime: The oldest policyloop that can drive it.
        log_std: Exploration before tanh, which the robot adds when it is asked to explore.
        noise_hold_ticks: How many ticks one draw of that noise lasts.
        training: Where the policy comes from: algorithm, steps, journal, checkpoint.
        conversion: Describes the network for the NPU, if the bundle holds one.
    """

    format: int = FORMAT
    version: Annotated[int, msgspec.Meta(ge=0, le=999_999)]
    created: str
    expires: Annotated[str, msgspec.Meta(pattern=r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)?$")] = ""
    minimum_runtime: str = "0.1.0"
    profile_name: str
    profile_digest: str
    network: str
    inputs: tuple[str, ...]
    normalizer: Normalizer
    log_std: tuple[float, ...]
    noise_hold_ticks: int
    parity: Parity
    files: dict[str, FileEntry] = {}
    training: dict[str, Any] = {}
    conversion: Conversion | None = None

    def encode(self) -> bytes:
        """Return the canonical bytes; equal manifests give equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2)


class _Format(msgspec.Struct):
    """The one field that every format has; all others are passed over."""

    format: int


def decode_manifest(data: bytes, source: str) -> Manifest:
    """Decode a manifest whose signature is verified already, if signatures count.

    Args:
        data: Its bytes, at most `MAX_MANIFEST_BYTES`.
        source: Where they come from, for errors.

    Raises:
        VerificationError: It is none, or names files that no bundle may hold.
        IncompatibleError: It is of a newer format.
    """
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found > FORMAT:
            raise IncompatibleError(f"{source} has format {found}", "upgrade policyloop on this machine")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError(f"{source}: {error}", "export the bundle again") from error
    if NETWORK_NAME not in manifest.files:
        raise VerificationError(f"{source} names no {NETWORK_NAME}", "export the bundle again")
    strange = [name for name in manifest.files if not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME]
    if strange or len(manifest.files) > MAX_FILES:
        raise VerificationError(f"{source} names files that no bundle holds: {strange[:3] or len(manifest.files)}")
    if any(entry.size > MAX_FILE_BYTES for entry in manifest.files.values()):
        raise VerificationError(f"{source} names a file of more than {MAX_FILE_BYTES} bytes")
    return manifest
