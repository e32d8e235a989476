from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.bundle.archive import pack
from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import MANIFEST_NAME, NETWORK_NAME
from policyloop.bundle.signing import SIGNATURE_NAME, KeyRing, Signer, create_signer, sign_manifest


@pytest.fixture
def write_bundle(exported: Bundle) -> Callable[[Path, bytes, bytes], Path]:
    """Write `exported` into a directory, with another manifest's bytes and another network's."""

    def write(directory: Path, manifest: bytes, network: bytes) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in {**exported.files, MANIFEST_NAME: manifest, NETWORK_NAME: network}.items():
            (directory / name).write_bytes(data)
        return directory

    return write


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """An operator's key pair."""
    return create_signer(tmp_path_factory.mktemp("operator"), "operator")


@pytest.fixture
def ring(signer: Signer, tmp_path: Path) -> KeyRing:
    """A robot's, which trusts the operator."""
    ring = KeyRing(tmp_path / "robot")
    ring.allow("operator", signer.public)
    return ring


@pytest.fixture
def pack_signed(signer: Signer) -> Callable[[Bundle], bytes]:
    """Return `pack_signed(bundle)`: its archive, signed by the operator."""

    def packed(bundle: Bundle) -> bytes:
        return pack({**bundle.contents, SIGNATURE_NAME: sign_manifest(bundle.manifest.encode(), signer)})

    return packed
