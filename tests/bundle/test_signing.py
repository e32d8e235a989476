"""Who may say what drives: signatures over the manifest, checked before anything is parsed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import MANIFEST_NAME, NETWORK_NAME, Manifest
from policyloop.bundle.signing import (
    SIGNATURE_NAME,
    KeyRing,
    Signer,
    create_signer,
    load_signer,
    sign_bundle,
    sign_manifest,
    verify_manifest,
)
from policyloop.bundle.verify import open_bundle
from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError, SafetyRefusal, UsageError, VerificationError

Writer = Callable[[Path, bytes, bytes], Path]
DATA = b'{"format": 1, "version": 7}'


@pytest.fixture
def bundle(exported: Bundle, write_bundle: Writer, signer: Signer, tmp_path: Path) -> Path:
    path = write_bundle(tmp_path / "bundle", exported.manifest.encode(), exported.files[NETWORK_NAME])
    sign_bundle(path, exported.manifest.encode(), signer)
    return path


def test_a_signed_bundle_opens_and_names_who_vouches_for_it(bundle: Path, mini: RobotProfile, ring: KeyRing) -> None:
    assert open_bundle(bundle, mini, ring).signer == "operator"
    assert open_bundle(bundle, mini).signer == ""


def test_every_changed_byte_of_manifest_and_signature_is_noticed(signer: Signer, ring: KeyRing) -> None:
    signature = sign_manifest(DATA, signer)
    assert verify_manifest(DATA, signature, ring) == "operator"
    for whole, check in (
        (DATA, lambda data: verify_manifest(data, signature, ring)),
        (signature, lambda data: verify_manifest(DATA, data, ring)),
    ):
        for at in range(len(whole)):
            for flip in (1, 32, 128):
                damaged = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
                with pytest.raises(VerificationError):
                    check(damaged)


def test_every_changed_byte_of_a_real_bundles_manifest_is_refused_before_it_is_parsed(
    bundle: Path, mini: RobotProfile, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(data: bytes, path: Path) -> Manifest:
        raise AssertionError("an unverified manifest was parsed")

    monkeypatch.setattr("policyloop.bundle.verify.decode_manifest", parsed)
    whole = (bundle / MANIFEST_NAME).read_bytes()
    for at in range(len(whole)):
        (bundle / MANIFEST_NAME).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(VerificationError, match="does not fit the manifest"):
            open_bundle(bundle, mini, ring)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_changed_bytes_of_the_payload_are_refused_under_a_good_signature(
    bundle: Path, mini: RobotProfile, ring: KeyRing, count: int
) -> None:
    path = bundle / NETWORK_NAME
    whole = bytearray(path.read_bytes())
    places = np.random.default_rng(0).choice(len(whole), count, replace=False)
    for at in places.tolist():
        whole[at] ^= 1
        path.write_bytes(whole)
        with pytest.raises(VerificationError, match="not the file that the manifest names"):
            open_bundle(bundle, mini, ring)
        whole[at] ^= 1


def test_an_unsigned_bundle_is_refused_where_signatures_count(bundle: Path, mini: RobotProfile, ring: KeyRing) -> None:
    (bundle / SIGNATURE_NAME).unlink()
    with pytest.raises(VerificationError, match="is not signed") as caught:
        open_bundle(bundle, mini, ring)
    assert (caught.value.remedy, caught.value.exit_code) == ("sign it where it was made: policyloop bundle sign", 5)
    open_bundle(bundle, mini)


def test_a_strangers_and_a_revoked_signature_are_refused_with_who_is_trusted(
    bundle: Path, mini: RobotProfile, ring: KeyRing, tmp_path: Path
) -> None:
    ring.revoke("operator")
    with pytest.raises(VerificationError, match="nobody who is trusted") as caught:
        open_bundle(bundle, mini, ring)
    assert "trusted are: none" in caught.value.remedy
    ring.allow("colleague", create_signer(tmp_path / "colleague", "colleague").public)
    with pytest.raises(VerificationError, match="nobody who is trusted") as caught:
        open_bundle(bundle, mini, ring)
    assert "trusted are: colleague" in caught.value.remedy


def test_a_signature_of_another_bundle_does_not_fit(bundle: Path, mini: RobotProfile, ring: KeyRing) -> None:
    other = msgspec.json.decode((bundle / MANIFEST_NAME).read_bytes(), type=Manifest)
    (bundle / MANIFEST_NAME).write_bytes(msgspec.structs.replace(other, version=8).encode())
    with pytest.raises(VerificationError, match="signature of 'operator' does not fit"):
        open_bundle(bundle, mini, ring)


def test_a_key_is_rotated_by_signing_with_both(bundle: Path, mini: RobotProfile, ring: KeyRing, tmp_path: Path) -> None:
    fresh = create_signer(tmp_path / "fresh", "operator-2027")
    sign_bundle(bundle, (bundle / MANIFEST_NAME).read_bytes(), fresh)
    assert open_bundle(bundle, mini, ring).signer == "operator"
    ring.allow("operator-2027", fresh.public)
    ring.revoke("operator")
    assert open_bundle(bundle, mini, ring).signer == "operator-2027"


def test_signing_twice_leaves_one_signature(bundle: Path, signer: Signer) -> None:
    before = (bundle / SIGNATURE_NAME).read_bytes()
    sign_bundle(bundle, (bundle / MANIFEST_NAME).read_bytes(), signer)
    assert (bundle / SIGNATURE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1]", b'{"signatures": [{"public": 1}]}', b"\xff", b'{"signatures": []}', b"[" * 9000]
)
def test_what_is_no_signature_file_is_refused(data: bytes, bundle: Path, mini: RobotProfile, ring: KeyRing) -> None:
    (bundle / SIGNATURE_NAME).write_bytes(data)
    with pytest.raises(VerificationError):
        open_bundle(bundle, mini, ring)


def test_an_endless_signature_file_is_not_read(bundle: Path, mini: RobotProfile, ring: KeyRing) -> None:
    (bundle / SIGNATURE_NAME).write_bytes(b" " * (1 << 20))
    with pytest.raises(VerificationError, match="larger than"):
        open_bundle(bundle, mini, ring)


def test_a_valid_signature_under_a_trusted_name_but_another_key_does_not_count(
    ring: KeyRing, signer: Signer, tmp_path: Path
) -> None:
    stranger = create_signer(tmp_path / "stranger", "operator")
    forged = sign_manifest(DATA, stranger).replace(stranger.public.encode(), signer.public.encode())
    with pytest.raises(VerificationError, match="does not fit"):
        verify_manifest(DATA, forged, ring)


# -- keys -------------------------------------------------------------------------------------


def test_a_signer_comes_back_is_never_overwritten_and_never_shown(tmp_path: Path) -> None:
    signer = create_signer(tmp_path, "operator")
    assert load_signer(tmp_path) == signer
    assert (tmp_path / "signing.json").stat().st_mode & 0o777 == 0o600
    assert signer.secret not in repr(signer)
    with pytest.raises(UsageError, match="exists already"):
        create_signer(tmp_path, "operator")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    create_signer(tmp_path, "operator")
    (tmp_path / "signing.json").chmod(0o640)
    with pytest.raises(SafetyRefusal, match="can be read by others"):
        load_signer(tmp_path)


def test_without_a_key_the_remedy_is_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no key at") as caught:
        load_signer(tmp_path)
    assert "policyloop keys new NAME --signing" in caught.value.remedy


@pytest.mark.parametrize("field", ["public", "secret"])
def test_a_damaged_key_is_no_key(field: str, tmp_path: Path) -> None:
    signer = create_signer(tmp_path, "operator")
    for value in ("", "AAAA", "not base64", base64.b64encode(b"x" * 32).decode()):
        content = msgspec.json.encode(msgspec.structs.replace(signer, **{field: value}))
        (tmp_path / "signing.json").write_bytes(content)
        with pytest.raises(ConfigError, match="no signing key"):
            load_signer(tmp_path)


@pytest.mark.parametrize("key", ["", "AAAA", "x" * 44, "k" * 40])
def test_what_is_no_key_is_not_trusted(key: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no public key of a signer"):
        KeyRing(tmp_path).allow("operator", key)
