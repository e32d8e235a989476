from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from policyloop.convert.export import export_onnx
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Observation
from policyloop.errors import IncompatibleError, PolicyloopError, StorageError, VerificationError
from policyloop.learn.networks import ActorCritic
from policyloop.runtime.onnx_file import open_onnx
from policyloop.runtime.policy import Policy
from policyloop.runtime.reload import PolicySlot

NORMALIZER = Normalizer(mean=(0.1, 0.2, 0.3, 0.4, 9.0, 1.0), std=(0.5, 0.6, 0.7, 0.8, 5.0, 1.5))


@pytest.fixture
def file(tmp_path: Path, mini: RobotProfile, network: ActorCritic) -> Path:
    path = tmp_path / "policy.onnx"
    path.write_bytes(export_onnx(network, mini, NORMALIZER, version=9))
    return path


def with_metadata(path: Path, **changes: str | None) -> Path:
    """Change entries of a file's metadata; None removes one."""
    model = onnx.load(path)
    entries: dict[str, Any] = {entry.key: entry.value for entry in model.metadata_props} | changes
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: value for key, value in entries.items() if value is not None})
    onnx.save(model, path)
    return path


def test_an_exported_file_opens_with_version_normalisation_and_its_own_hash(file: Path, mini: RobotProfile) -> None:
    opened = open_onnx(file, mini)
    assert opened.manifest.version == 9
    assert opened.manifest.normalizer == NORMALIZER
    assert opened.network == file.read_bytes()
    assert opened.digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_bare_file_drives_like_the_bundle_it_was_exported_with(
    file: Path, mini: RobotProfile, network: ActorCritic, observation: Observation
) -> None:
    import torch

    from policyloop.core.features import features

    inputs = features(mini, NORMALIZER, observation.arrays)
    with torch.no_grad():
        mean = network.mean({name: torch.from_numpy(array)[None] for name, array in inputs.items()})[0].double()
    expected = mini.action_center + mini.action_half_range * np.tanh(mean.numpy())
    policy = Policy.load(file, mini)
    assert policy.act(observation).values == pytest.approx(expected.tolist(), abs=1e-5)
    policy.close()


def test_a_slot_takes_a_bare_file_and_stays_with_it(file: Path, mini: RobotProfile) -> None:
    slot = PolicySlot(file, mini)
    assert slot.policy.version == 9
    assert not slot.follow(wait=True)
    slot.close()


def test_a_file_for_another_profile_is_incompatible(file: Path) -> None:
    with pytest.raises(IncompatibleError, match="rover-mini") as caught:
        open_onnx(file, load_profile("rover"))
    assert caught.value.exit_code == 7


def test_a_missing_file_is_a_storage_error(tmp_path: Path, mini: RobotProfile) -> None:
    with pytest.raises(StorageError):
        open_onnx(tmp_path / "nothing.onnx", mini)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, mini: RobotProfile) -> None:
    (tmp_path / "policy.onnx").write_bytes(b"garbage")
    with pytest.raises(VerificationError) as caught:
        open_onnx(tmp_path / "policy.onnx", mini)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"profile_digest": None},
        {"version": None},
        {"normalizer": None},
        {"version": "nine"},
        {"normalizer": "not json"},
        {"normalizer": "{}"},
        {"normalizer": '{"mean": [0.0], "std": [1.0], "surprise": 1}'},
    ],
)
def test_a_file_without_our_metadata_is_refused(file: Path, mini: RobotProfile, changes: dict[str, str | None]) -> None:
    with pytest.raises(VerificationError, match="not exported by policyloop"):
        open_onnx(with_metadata(file, **changes), mini)


def test_a_normalizer_of_another_length_is_refused(file: Path, mini: RobotProfile) -> None:
    short = Normalizer(mean=(0.0,) * 5, std=(1.0,) * 5)
    with pytest.raises(PolicyloopError):
        PolicySlot(with_metadata(file, normalizer=msgspec.json.encode(short).decode()), mini)
