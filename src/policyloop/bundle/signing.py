"""Who vouches for a bundle: Ed25519 signatures over the manifest's bytes, and the keys that a robot trusts.

    KEYS/signing.json         name, public and secret key of whoever signs; mode 0600
    KEYS/trusted/NAME.json    name and public key of somebody whose bundles may drive here
    BUNDLE/manifest.sig       {"signatures": [{"public": ..., "signature": ...}]}

The manifest names every other file by size and SHA-256, so its signature covers the whole bundle.
Checked before anything is parsed. Keys and signatures are base64.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from policyloop.core.files import write_file
from policyloop.core.keyfiles import KeyPair, NamedKeys, check_name, read_secret, write_secret
from policyloop.errors import ConfigError, StorageError, UsageError, VerificationError

__all__ = [
    "MAX_SIGNATURE_BYTES",
    "SIGNATURE_NAME",
    "SIGNER_NAME",
    "KeyRing",
    "Signer",
    "create_signer",
    "load_signer",
    "sign_bundle",
    "sign_manifest",
    "verify_manifest",
]

SIGNATURE_NAME = "manifest.sig"
MAX_SIGNATURE_BYTES = 16 << 10
SIGNER_NAME = "signing.json"
_CONTEXT = b"policyloop bundle manifest\x00"
"""Goes before what is signed: a signature for anything else can never pass for one of a manifest."""


class Signer(KeyPair, frozen=True, forbid_unknown_fields=True):
    """A key pair to sign with, and whose it is."""


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    public: str
    signature: str


class _Signatures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signatures: tuple[_Signature, ...]


def _bytes_of(text: str, size: int) -> bytes:
    """Return what base64 holds; ValueError if it is not `size` bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")
    return data


def check_signing_key(key: str) -> str:
    """Return `key` if it is a public key to verify with; UsageError if not."""
    try:
        _bytes_of(key, 32)
    except ValueError as error:
        raise UsageError(
            f"that is no public key of a signer: {error}",
            "copy the 44 characters that `policyloop keys show --signing` prints",
        ) from error
    return key


class KeyRing(NamedKeys):
    """Those whose bundles may drive here.

    Args:
        directory: The keys' directory.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "trusted", check_signing_key)
        self.directory = directory


def create_signer(directory: Path, name: str) -> Signer:
    """Make a new key pair to sign with, readable by its owner only.

    Raises:
        UsageError: There is one already, or `name` cannot be a name.
        StorageError: The disk refuses.
    """
    key = SigningKey.generate()
    public, secret = (base64.b64encode(part).decode() for part in (bytes(key.verify_key), bytes(key)))
    signer = Signer(check_name(name), public, secret)
    write_secret(directory / SIGNER_NAME, signer)
    return signer


def load_signer(directory: Path) -> Signer:
    """Read the key pair to sign with.

    Raises:
        ConfigError: There is none, or the file is not one.
        SafetyRefusal: Others than its owner can read it.
    """
    path = directory / SIGNER_NAME
    make_one = "policyloop keys new NAME --signing"
    data = read_secret(path, make_one)
    try:
        signer = msgspec.json.decode(data, type=Signer)
        if bytes(SigningKey(_bytes_of(signer.secret, 32)).verify_key) != _bytes_of(signer.public, 32):
            raise ValueError("the public key is not the secret key's")
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(
            f"{path} is no signing key: {error}", f"move it away and make a new one: {make_one}"
        ) from error
    return signer


def sign_manifest(manifest: bytes, signer: Signer, earlier: bytes = b"") -> bytes:
    """Return the signature file's bytes, with the signatures in `earlier` kept (key rotation).

    Raises:
        VerificationError: `earlier` is no signature file.
    """
    kept = [entry for entry in _decode(earlier) if entry.public != signer.public] if earlier else []
    signature = SigningKey(_bytes_of(signer.secret, 32)).sign(_CONTEXT + manifest).signature
    entry = _Signature(signer.public, base64.b64encode(signature).decode())
    return msgspec.json.encode(_Signatures((*kept, entry)), order="deterministic")


def verify_manifest(manifest: bytes, signatures: bytes, ring: KeyRing) -> str:
    """Return the name of a trusted signer.

    Raises:
        VerificationError: No signature is both valid and by somebody trusted.
    """
    trusted = {public: name for name, public in ring.entries().items()}
    entries = _decode(signatures)
    known = [entry for entry in entries if entry.public in trusted]
    for entry in known:
        try:
            VerifyKey(_bytes_of(entry.public, 32)).verify(_CONTEXT + manifest, _bytes_of(entry.signature, 64))
        except (BadSignatureError, ValueError):
            continue
        return trusted[entry.public]
    if known:
        raise VerificationError(
            f"the signature of '{trusted[known[0].public]}' does not fit the manifest", "copy or sign the bundle again"
        )
    raise VerificationError(
        "the bundle is signed by nobody who is trusted here",
        f"trusted are: {', '.join(trusted.values()) or 'none'}; policyloop keys allow NAME KEY --signing",
    )


def _decode(data: bytes) -> tuple[_Signature, ...]:
    try:
        return msgspec.json.decode(data, type=_Signatures).signatures
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError(f"{SIGNATURE_NAME} is damaged: {error}", "sign the bundle again") from error


def sign_bundle(bundle: Path, manifest: bytes, signer: Signer) -> None:
    """Write a bundle's signature file, or add to it.

    Raises:
        StorageError: The disk refuses.
        VerificationError: The file that is there is no signature file.
    """
    path = bundle / SIGNATURE_NAME
    try:
        earlier = path.read_bytes() if path.exists() else b""
        write_file(path, sign_manifest(manifest, signer, earlier))
    except OSError as error:
        raise StorageError.cannot_write(path, error) from error
