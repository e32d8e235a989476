"""What is in a bundle besides the network, and that equal input gives equal bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from policyloop.bundle.build import Bundle, build_bundle, creation_time
from policyloop.bundle.golden import Golden
from policyloop.bundle.manifest import GOLDEN_NAME, NETWORK_NAME, RKNN_NAME, Conversion
from policyloop.bundle.verify import open_bundle
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.files import write_directory
from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError, IncompatibleError, VerificationError
from policyloop.learn.networks import make_network


def export(profile: RobotProfile) -> Bundle:
    torch.manual_seed(0)
    return export_bundle(
        make_network("spatial", profile),
        profile,
        profile.nominal_normalizer,
        network_name="spatial",
        version=7,
        noise_hold_ticks=3,
        observations=probe_features(profile, 6),
        training={"steps": 4000},
    )


def test_equal_input_gives_equal_bytes(mini: RobotProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = export(mini), export(mini)
    assert first.contents == second.contents
    assert first.manifest.created == "2023-11-14T22:13:20Z"


def test_a_source_date_that_is_none_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("yesterday", "", "1e9", "9" * 40):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
        with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH"):
            creation_time()


def test_model_version_names_the_files_by_their_hashes(exported: Bundle) -> None:
    conversion = Conversion(
        target="rk3588", precision="int8", toolkit="2.5.0", calibration_digest="c" * 64, reason="it passed", errors={}
    )
    plain = json.loads(exported.files["model_version.json"])
    assert plain["onnx_hash"] == hashlib.sha256(exported.files[NETWORK_NAME]).hexdigest()
    assert (plain["rknn_hash"], plain["quant_dataset"]) == ("", "")
    assert (plain["model"], plain["version"], plain["export_time"]) == ("spatial", 7, exported.manifest.created)
    assert plain["obs_stats"]["mean"] == list(exported.manifest.normalizer.mean)
    assert plain["obs_stats"]["std"] == list(exported.manifest.normalizer.std)
    about = exported.revised(conversion=conversion).manifest
    converted = json.loads(build_bundle(about, {**exported.files, RKNN_NAME: b"RKNN"}).files["model_version.json"])
    assert converted["rknn_hash"] == hashlib.sha256(b"RKNN").hexdigest()
    assert (converted["quant_dataset"], converted["quant_precision"]) == ("c" * 64, "int8")


def test_the_model_card_says_where_the_policy_comes_from_and_what_it_is_not(exported: Bundle) -> None:
    card = exported.files["MODEL_CARD.md"].decode()
    assert "# rover-mini, policy 7" in card
    assert "- steps: 4000" in card
    assert "no network for an NPU" in card
    assert "not safe by itself" in card


def test_a_revised_bundle_keeps_its_files_and_describes_itself_anew(
    exported: Bundle, mini: RobotProfile, tmp_path: Path
) -> None:
    revised = exported.revised(version=8)
    assert revised.files[NETWORK_NAME] == exported.files[NETWORK_NAME]
    assert b"policy 8" in revised.files["MODEL_CARD.md"]
    write_directory(tmp_path / "bundle", revised.contents)
    assert open_bundle(tmp_path / "bundle", mini).digest == revised.digest != exported.digest


def test_golden_vectors_are_what_onnxruntime_answered_and_come_back_unchanged(
    exported: Bundle, mini: RobotProfile
) -> None:
    golden = Golden.decode(exported.files[GOLDEN_NAME])
    assert len(golden) == 2
    assert golden.mean.shape == (2, 2)
    assert {name: array.dtype.name for name, array in golden.inputs.items()} == {
        "rgb": "uint8",
        "depth": "uint8",
        "proprio": "float32",
    }
    assert golden.encode() == exported.files[GOLDEN_NAME]
    probes = probe_features(mini, 2)
    assert np.array_equal(golden.inputs["rgb"][1], probes[1]["rgb"])


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip", b"\x00" * 100])
def test_golden_vectors_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="golden"):
        Golden.decode(data)


def test_golden_vectors_that_would_fill_the_memory_are_refused_before_they_are_unpacked() -> None:
    data = Golden({"rgb": np.zeros((1, 65 << 20), np.uint8)}, np.zeros((1, 2), np.float32)).encode()
    assert len(data) < 1 << 20
    with pytest.raises(VerificationError, match="at most"):
        Golden.decode(data)


def test_golden_vectors_of_another_count_or_holding_objects_are_refused() -> None:
    uneven = Golden({"rgb": np.zeros((3, 1), np.uint8)}, np.zeros((2, 2), np.float32)).encode()
    with pytest.raises(VerificationError, match="do not fit"):
        Golden.decode(uneven)
    missing = Golden({}, np.zeros((2, 2), np.float32)).encode().replace(b"mean.npy", b"mode.npy")
    with pytest.raises(VerificationError, match="golden"):
        Golden.decode(missing)


def test_every_truncation_of_golden_vectors_is_refused_in_order() -> None:
    data = Golden({"proprio": np.ones((2, 3), np.float32)}, np.ones((2, 2), np.float32)).encode()
    for length in range(len(data)):
        with pytest.raises(VerificationError):
            Golden.decode(data[:length])


@pytest.mark.parametrize("needed", ["0.2.0", "1.0.0", "0.1.1"])
def test_a_bundle_that_needs_a_newer_policyloop_is_refused_by_its_number(
    exported: Bundle, mini: RobotProfile, tmp_path: Path, needed: str
) -> None:
    write_directory(tmp_path / "bundle", exported.revised(minimum_runtime=needed).contents)
    with pytest.raises(IncompatibleError, match=f"needs policyloop {needed}") as caught:
        open_bundle(tmp_path / "bundle", mini)
    assert caught.value.exit_code == 7


def test_a_minimum_runtime_that_is_no_version_is_refused(exported: Bundle, mini: RobotProfile, tmp_path: Path) -> None:
    write_directory(tmp_path / "bundle", exported.revised(minimum_runtime="newest").contents)
    with pytest.raises(VerificationError, match="no version"):
        open_bundle(tmp_path / "bundle", mini)


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/b", "..", "", ".hidden", "x" * 65, "manifest.json"])
def test_a_manifest_that_names_a_file_outside_the_bundle_is_refused(
    exported: Bundle, mini: RobotProfile, tmp_path: Path, name: str
) -> None:
    files = dict(exported.manifest.files)
    files[name] = files[NETWORK_NAME]
    table = json.loads(exported.manifest.encode())
    table["files"][name] = table["files"][NETWORK_NAME]
    write_directory(tmp_path / "bundle", exported.contents)
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(table))
    with pytest.raises(VerificationError, match="names files that no bundle holds"):
        open_bundle(tmp_path / "bundle", mini)
