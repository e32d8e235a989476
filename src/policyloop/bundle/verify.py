"""Open a bundle: signature, size, hash and fit are verified before anything in it is used."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from policyloop import __version__
from policyloop.bundle.golden import Golden
from policyloop.bundle.manifest import (
    GOLDEN_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    NETWORK_NAME,
    RKNN_NAME,
    FileEntry,
    Manifest,
    decode_manifest,
)
from policyloop.bundle.signing import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, KeyRing, verify_manifest
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, StorageError, VerificationError

__all__ = ["VerifiedBundle", "check_file", "check_fits", "open_bundle", "read_manifest"]


class VerifiedBundle(msgspec.Struct, frozen=True):
    """A manifest and the bytes it vouches for.

    The bytes are read once and checked; nothing reads the files again, so nobody can change them in between.

    Attributes:
        digest: SHA-256 of the manifest's bytes: it names this policy in every step it drives.
        files: By name; all that the manifest names.
        signer: Who vouches for it, by the name in the key ring; empty = nobody was asked.
    """

    manifest: Manifest
    digest: str
    files: dict[str, bytes]
    signer: str = ""

    @property
    def network(self) -> bytes:
        """The network as ONNX."""
        return self.files[NETWORK_NAME]

    @property
    def rknn(self) -> bytes | None:
        """The same network for the NPU; None = the bundle holds none."""
        return self.files.get(RKNN_NAME)

    @property
    def golden(self) -> Golden | None:
        """What the network must answer; VerificationError if that file is damaged, None if there is none."""
        data = self.files.get(GOLDEN_NAME)
        return None if data is None else Golden.decode(data)


def open_bundle(path: Path, profile: RobotProfile, ring: KeyRing | None = None) -> VerifiedBundle:
    """Read a bundle directory and verify all of it.

    Args:
        path: The bundle.
        profile: The robot's.
        ring: Whose signatures count; None = unsigned bundles are taken too, as in simulation.

    Raises:
        StorageError: There is no bundle at `path`.
        VerificationError: It is not signed by anybody in `ring`; or a file is missing, too large or not
            what the manifest says.
        IncompatibleError: It is of a newer format, needs a newer policyloop, or was made for another profile.
    """
    data = _read(path / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    signer = "" if ring is None else _check_signature(path, data, ring)
    manifest = decode_manifest(data, str(path / MANIFEST_NAME))
    check_fits(manifest, profile, f"bundle {path}")
    files = {name: _read_entry(path, name, entry) for name, entry in manifest.files.items()}
    return VerifiedBundle(manifest, hashlib.sha256(data).hexdigest(), files, signer)


def check_fits(manifest: Manifest, profile: RobotProfile, source: str) -> None:
    """Check that a robot with this profile, and this policyloop, can drive a policy.

    Raises:
        IncompatibleError: It cannot.
        VerificationError: The manifest contradicts itself.
    """
    if _numbers(manifest.minimum_runtime, source) > _numbers(__version__, source):
        raise IncompatibleError(
            f"{source} needs policyloop {manifest.minimum_runtime}, this is {__version__}", "upgrade this machine"
        )
    if manifest.profile_digest != profile.digest:
        raise IncompatibleError(
            f"{source} is for profile '{manifest.profile_name}' ({manifest.profile_digest[:12]}), "
            f"this robot is '{profile.name}' ({profile.digest[:12]})",
            "train with this robot's profile, or start the robot with the bundle's",
        )
    if len(manifest.log_std) != len(profile.action) or len(manifest.normalizer.mean) != profile.proprio_size:
        raise VerificationError(f"{source}: the manifest's vectors do not fit its own profile")


def _numbers(version: str, source: str) -> tuple[int, ...]:
    found = re.match(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})", version)  # what follows, as in 1.2.0.dev3, does not count
    if found is None:
        raise VerificationError(f"{source}: '{version[:64]}' is no version of policyloop")
    return tuple(map(int, found.groups()))


def check_file(name: str, data: bytes, entry: FileEntry, source: str) -> bytes:
    """Return `data` if it is what the manifest says; VerificationError if not."""
    if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise VerificationError(f"{source}: {name} is not the file that the manifest names", "copy the bundle again")
    return data


def read_manifest(path: Path, ring: KeyRing | None = None) -> tuple[bytes, Manifest]:
    """Return a bundle's manifest, as bytes and decoded; nothing but the signature is verified, if it counts.

    Raises:
        StorageError: There is no bundle at `path`.
        VerificationError: It is none, or damaged, or nobody on `ring` has signed it.
        IncompatibleError: It is of a newer format.
    """
    data = _read(path / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    if ring is not None:
        _check_signature(path, data, ring)
    return data, decode_manifest(data, str(path / MANIFEST_NAME))


def _check_signature(path: Path, manifest: bytes, ring: KeyRing) -> str:
    if not (path / SIGNATURE_NAME).exists():
        raise VerificationError(f"bundle {path} is not signed", "sign it where it was made: policyloop bundle sign")
    return verify_manifest(manifest, _read(path / SIGNATURE_NAME, MAX_SIGNATURE_BYTES), ring)


def _read_entry(path: Path, name: str, entry: FileEntry) -> bytes:
    if not (path / name).exists():
        raise VerificationError(f"bundle {path} has lost its {name}", "copy the bundle again")
    return check_file(name, _read(path / name, entry.size), entry, f"bundle {path}")


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", "give the path of a bundle directory") from error
    if len(data) > limit:
        raise VerificationError(f"{path} is larger than {limit} bytes")
    return data
