from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import MANIFEST_NAME, NETWORK_NAME, Manifest
from policyloop.bundle.verify import open_bundle
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import IncompatibleError, StorageError, VerificationError

Writer = Callable[[Path, bytes, bytes], Path]


def changed(manifest: Manifest, **fields: Any) -> bytes:
    """Return a manifest's bytes with other fields; None leaves a field out."""
    table = json.loads(manifest.encode())
    table.update(fields)
    return json.dumps({name: value for name, value in table.items() if value is not None}).encode()


def test_a_whole_bundle_opens_with_everything_it_vouches_for(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    bundle = open_bundle(write_bundle(tmp_path, manifest.encode(), network), mini)
    assert bundle.manifest == manifest
    assert bundle.network == network
    assert bundle.digest == hashlib.sha256(manifest.encode()).hexdigest()


def test_equal_manifests_have_equal_bytes(exported: Bundle) -> None:
    manifest = exported.manifest
    shuffled = msgspec.structs.replace(manifest, training=dict(reversed(manifest.training.items())))
    assert list(shuffled.training) != list(manifest.training)
    assert shuffled.encode() == manifest.encode()


def test_the_digest_names_the_manifest_not_only_the_network(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    other = msgspec.structs.replace(manifest, noise_hold_ticks=manifest.noise_hold_ticks + 1)
    digests = {
        open_bundle(write_bundle(tmp_path / str(index), entry.encode(), network), mini).digest
        for index, entry in enumerate((manifest, other))
    }
    assert len(digests) == 2


def test_a_directory_without_a_manifest_is_no_bundle(mini: RobotProfile, exported: Bundle, tmp_path: Path) -> None:
    (tmp_path / NETWORK_NAME).write_bytes(exported.files[NETWORK_NAME])
    with pytest.raises(StorageError, match=MANIFEST_NAME) as caught:
        open_bundle(tmp_path, mini)
    assert caught.value.exit_code == 1
    assert caught.value.remedy


def test_a_bundle_without_its_network_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    directory = write_bundle(tmp_path, exported.manifest.encode(), b"")
    (directory / NETWORK_NAME).unlink()
    with pytest.raises(VerificationError):
        open_bundle(directory, mini)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"not json", b"\x00\x01\x02", b"\xff\xfe{}", b"null", b"[]", b"{}", b'{"format": "1"}']
)
def test_a_manifest_that_is_none_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path, data: bytes
) -> None:
    with pytest.raises(VerificationError, match=MANIFEST_NAME) as caught:
        open_bundle(write_bundle(tmp_path, data, exported.files[NETWORK_NAME]), mini)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("format", None), ("normalizer", None), ("version", "7"), ("version", 7.5), ("log_std", [None])],
)
def test_a_missing_field_or_one_of_another_type_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path, field: str, value: Any
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    with pytest.raises(VerificationError, match=field):
        open_bundle(write_bundle(tmp_path, changed(manifest, **{field: value}), network), mini)


def test_an_unknown_field_is_refused_and_named(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    with pytest.raises(VerificationError, match="surprise") as caught:
        open_bundle(write_bundle(tmp_path, changed(manifest, surprise=1), network), mini)
    assert caught.value.exit_code == 5


def test_a_manifest_with_a_string_that_is_not_utf8_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    data = manifest.encode().replace(b"rover-mini", b"rover-\xff\xfe\xff\xfe")
    with pytest.raises(VerificationError):
        open_bundle(write_bundle(tmp_path, data, network), mini)


def test_a_manifest_nested_too_deep_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    data = changed(manifest, training="TRAINING").replace(
        b'"TRAINING"', b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    )
    with pytest.raises(VerificationError):
        open_bundle(write_bundle(tmp_path, data, network), mini)


def test_a_manifest_of_more_than_a_mebibyte_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    data = changed(manifest, training={"padding": "x" * (1 << 20)})
    with pytest.raises(VerificationError, match="larger"):
        open_bundle(write_bundle(tmp_path, data, network), mini)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_one_changed_byte_of_the_network_is_noticed_wherever_it_is(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path, share: float
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    position = int(share * len(network))
    tampered = bytearray(network)
    tampered[position] ^= 1
    with pytest.raises(VerificationError, match=NETWORK_NAME) as caught:
        open_bundle(write_bundle(tmp_path, manifest.encode(), bytes(tampered)), mini)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("length", ["empty", "shorter", "longer"])
def test_a_network_of_another_size_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path, length: str
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    wrong = {"empty": b"", "shorter": network[:-1], "longer": network + b"\0"}[length]
    with pytest.raises(VerificationError):
        open_bundle(write_bundle(tmp_path, manifest.encode(), wrong), mini)


@pytest.mark.parametrize(
    "difference",
    [
        -1,
        1,
        10**15,
        pytest.param(
            -(10**9),
        ),
    ],
)
def test_a_manifest_that_names_another_size_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path, difference: int
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    entry = {"sha256": hashlib.sha256(network).hexdigest(), "size": len(network) + difference}
    with pytest.raises(VerificationError):
        open_bundle(write_bundle(tmp_path, changed(manifest, files={NETWORK_NAME: entry}), network), mini)


def test_a_manifest_without_an_entry_for_the_network_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    with pytest.raises(VerificationError, match=NETWORK_NAME):
        open_bundle(write_bundle(tmp_path, changed(manifest, files={}), network), mini)


def test_a_bundle_for_another_profile_is_incompatible(exported: Bundle, write_bundle: Writer, tmp_path: Path) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    with pytest.raises(IncompatibleError, match=r"rover-mini.*'rover'") as caught:
        open_bundle(write_bundle(tmp_path, manifest.encode(), network), load_profile("rover"))
    assert caught.value.exit_code == 7
    assert caught.value.remedy


def test_a_tighter_limit_makes_it_another_profile_and_another_reward_does_not(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    directory = write_bundle(tmp_path, exported.manifest.encode(), exported.files[NETWORK_NAME])
    limits = msgspec.structs.replace(mini.limits, reaction_time_s=0.1)
    with pytest.raises(IncompatibleError):
        open_bundle(directory, msgspec.structs.replace(mini, limits=limits))
    assert open_bundle(directory, msgspec.structs.replace(mini, reward={"forward": 1.0})).manifest == exported.manifest


def test_a_newer_format_is_incompatible(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    with pytest.raises(IncompatibleError, match="format 2") as caught:
        open_bundle(write_bundle(tmp_path, changed(manifest, format=2), network), mini)
    assert caught.value.exit_code == 7
    assert "upgrade" in caught.value.remedy


def test_a_newer_format_with_a_field_that_nobody_here_knows_is_incompatible(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    with pytest.raises(IncompatibleError, match="format 2"):
        open_bundle(write_bundle(tmp_path, changed(manifest, format=2, precision="int8"), network), mini)


@pytest.mark.parametrize(
    "fields",
    [
        {"log_std": [0.0]},
        {"log_std": [0.0, 0.0, 0.0]},
        {"normalizer": {"mean": [0.0] * 5, "std": [1.0] * 5}},
    ],
)
def test_vectors_that_do_not_fit_the_profile_are_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path, fields: dict[str, Any]
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    with pytest.raises(VerificationError):
        open_bundle(write_bundle(tmp_path, changed(manifest, **fields), network), mini)


@pytest.mark.parametrize("std", [[1.0] * 5 + [0.0], [1.0] * 5 + [-1.0], [1.0] * 5])
def test_a_normalizer_that_cannot_divide_is_refused(
    mini: RobotProfile, exported: Bundle, write_bundle: Writer, tmp_path: Path, std: list[float]
) -> None:
    manifest, network = exported.manifest, exported.files[NETWORK_NAME]
    with pytest.raises(IncompatibleError, match="normalizer"):
        open_bundle(
            write_bundle(tmp_path, changed(manifest, normalizer={"mean": [0.0] * 6, "std": std}), network), mini
        )
