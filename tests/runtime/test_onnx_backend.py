from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from policyloop.bundle.manifest import NETWORK_NAME, Manifest, Parity
from policyloop.bundle.verify import VerifiedBundle
from policyloop.convert.export import export_onnx, probe_features
from policyloop.core.features import feature_specs
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.spec import ArraySpec
from policyloop.errors import ConfigError, VerificationError
from policyloop.learn.networks import ActorCritic, make_network
from policyloop.runtime.backend import open_backend
from policyloop.runtime.onnx_backend import OnnxBackend


@pytest.fixture(scope="session")
def onnx_bytes(mini: RobotProfile, network: ActorCritic) -> bytes:
    return export_onnx(network, mini)


def slice_of_proprio(mini: RobotProfile, element: int, *, dynamic: bool = False) -> bytes:
    """Return a network that answers with the first two readings, its tensors of type `element`."""
    batch = "n" if dynamic else 1
    inputs = [
        helper.make_tensor_value_info(name, element, (batch, *spec.shape)) for name, spec in feature_specs(mini).items()
    ]
    bounds = [helper.make_tensor(name, TensorProto.INT64, [1], [at]) for name, at in (("a", 0), ("b", 2), ("axis", 1))]
    graph = helper.make_graph(
        [helper.make_node("Slice", ["proprio", "a", "b", "axis"], ["mean"])],
        "slice",
        inputs,
        [helper.make_tensor_value_info("mean", element, (batch, 2))],
        bounds,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_it_answers_what_the_trained_network_answers(
    mini: RobotProfile, network: ActorCritic, onnx_bytes: bytes
) -> None:
    backend = OnnxBackend(onnx_bytes, feature_specs(mini), 2)
    for probe in probe_features(mini, 5, seed=7):
        with torch.no_grad():
            expected = network.mean({name: torch.from_numpy(array)[None] for name, array in probe.items()})[0].numpy()
        answer = backend.infer(probe)
        assert answer.shape == (2,)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected, atol=1e-5)
    backend.close()


def test_it_runs_a_network_without_pictures(mini: RobotProfile) -> None:
    profile = msgspec.structs.replace(mini, camera=None)
    torch.manual_seed(1)
    network = make_network("mlp", profile)
    backend = OnnxBackend(export_onnx(network, profile), feature_specs(profile), 2)
    readings = np.array([0.5, -1.0, 0.0, 0.1, 0.2, 2.0], np.float32)
    with torch.no_grad():
        expected = network.mean({"proprio": torch.from_numpy(readings)[None]})[0].numpy()
    np.testing.assert_allclose(backend.infer({"proprio": readings}), expected, atol=1e-6)


def test_the_inputs_are_found_by_name_not_by_position(mini: RobotProfile, onnx_bytes: bytes) -> None:
    backend = OnnxBackend(onnx_bytes, feature_specs(mini), 2)
    (probe,) = probe_features(mini, 1)
    np.testing.assert_array_equal(backend.infer(probe), backend.infer(dict(reversed(probe.items()))))


@pytest.mark.parametrize("name", ["auto", "onnx"])
def test_the_backend_is_opened_by_name(mini: RobotProfile, onnx_bytes: bytes, name: str) -> None:
    backend = open_backend(name, bundle_of(onnx_bytes), feature_specs(mini), 2)
    assert backend.name == "onnxruntime"
    backend.close()


def bundle_of(network: bytes) -> VerifiedBundle:
    manifest = Manifest(
        format=1,
        version=1,
        created="",
        profile_name="",
        profile_digest="",
        network="",
        inputs=(),
        normalizer=Normalizer(mean=(), std=()),
        log_std=(),
        noise_hold_ticks=1,
        parity=Parity(observations=0, max_abs_error=0.0, mean_abs_error=0.0),
        files={},
    )
    return VerifiedBundle(manifest, "", {NETWORK_NAME: network})


def test_an_unknown_backend_is_a_configuration_error(mini: RobotProfile, onnx_bytes: bytes) -> None:
    with pytest.raises(ConfigError, match="abacus") as caught:
        open_backend("abacus", bundle_of(onnx_bytes), feature_specs(mini), 2)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_truncated_network_is_refused(mini: RobotProfile, onnx_bytes: bytes, share: float) -> None:
    with pytest.raises(VerificationError) as caught:
        OnnxBackend(onnx_bytes[: int(share * len(onnx_bytes))], feature_specs(mini), 2)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("junk", [b"garbage", b"\x00" * 1000, np.random.default_rng(0).bytes(5000)])
def test_garbage_is_refused(mini: RobotProfile, junk: bytes) -> None:
    with pytest.raises(VerificationError):
        OnnxBackend(junk, feature_specs(mini), 2)


def test_a_network_for_another_camera_is_refused(onnx_bytes: bytes) -> None:
    with pytest.raises(VerificationError, match="takes"):
        OnnxBackend(onnx_bytes, feature_specs(load_profile("rover")), 2)


def test_a_missing_and_a_surplus_input_are_refused(mini: RobotProfile, onnx_bytes: bytes) -> None:
    specs = feature_specs(mini)
    fewer = {name: spec for name, spec in specs.items() if name != "depth"}
    more = {**specs, "scan": ArraySpec(name="scan", shape=(32,), dtype="float32")}
    for wrong in (fewer, more):
        with pytest.raises(VerificationError):
            OnnxBackend(onnx_bytes, wrong, 2)


@pytest.mark.parametrize("actions", [1, 3, 12])
def test_another_number_of_actions_is_refused(mini: RobotProfile, onnx_bytes: bytes, actions: int) -> None:
    with pytest.raises(VerificationError, match="gives"):
        OnnxBackend(onnx_bytes, feature_specs(mini), actions)


def test_a_network_with_a_free_batch_size_is_refused(mini: RobotProfile) -> None:
    with pytest.raises(VerificationError):
        OnnxBackend(slice_of_proprio(mini, TensorProto.FLOAT, dynamic=True), feature_specs(mini), 2)


def test_a_foreign_network_with_the_right_inputs_runs(mini: RobotProfile) -> None:
    backend = OnnxBackend(slice_of_proprio(mini, TensorProto.FLOAT), feature_specs(mini), 2)
    (probe,) = probe_features(mini, 1)
    np.testing.assert_array_equal(backend.infer(probe), probe["proprio"][:2])


def test_a_network_with_inputs_of_another_type_is_refused(mini: RobotProfile) -> None:
    with pytest.raises(VerificationError):
        OnnxBackend(slice_of_proprio(mini, TensorProto.DOUBLE), feature_specs(mini), 2)


def test_onnxruntime_reports_to_nobody(tmp_path: Path) -> None:
    code = "from policyloop.runtime.onnx_backend import load_onnxruntime; print(load_onnxruntime().__name__)"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "onnxruntime\n"
    assert list(tmp_path.iterdir()) == []  # it keeps what it will report, and an identity, in the cache folder
