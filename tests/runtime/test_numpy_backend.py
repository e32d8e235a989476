"""The reference backend: it knows no library, so it can be asked when two of them disagree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policyloop.convert.export import export_onnx
from policyloop.core.features import feature_specs
from policyloop.core.profile import RobotProfile
from policyloop.core.spec import ArraySpec
from policyloop.errors import ConfigError, PolicyloopError, VerificationError
from policyloop.learn.networks import make_network
from policyloop.runtime.numpy_backend import NumpyBackend
from policyloop.runtime.onnx_backend import OnnxBackend

SPECS = {"obs": ArraySpec(name="obs", shape=(8,), dtype="float32")}
MakeOnnx = Callable[..., bytes]


@pytest.mark.parametrize("operator", ["Relu", "Elu", "LeakyRelu", "Tanh", "Sigmoid", "Identity"])
def test_it_agrees_with_onnxruntime(operator: str, make_onnx: MakeOnnx) -> None:
    attributes = {"alpha": 0.3} if operator in ("Elu", "LeakyRelu") else {}
    data = make_onnx(operator, **attributes)
    reference, runtime = NumpyBackend(data, SPECS, 3), OnnxBackend(data, SPECS, 3)
    rng = np.random.default_rng(0)
    for _ in range(20):
        inputs = {"obs": rng.normal(size=8).astype(np.float32)}
        np.testing.assert_allclose(reference.infer(inputs), runtime.infer(inputs), atol=1e-5)


def test_a_policy_of_ours_runs_on_it(mini: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network("mlp", mini)
    specs = {"proprio": feature_specs(mini)["proprio"]}
    proprio = np.array([0.5, -1.0, 0.0, 0.1, 0.2, 2.0], np.float32)
    data = export_onnx(network, mini)
    with torch.no_grad():
        expected = network.mean({"proprio": torch.from_numpy(proprio)[None]})[0].numpy()
    np.testing.assert_allclose(NumpyBackend(data, specs, 2).infer({"proprio": proprio}), expected, atol=1e-6)


def test_a_convolution_is_refused_by_name(mini: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="no Conv") as caught:
        NumpyBackend(export_onnx(make_network("spatial", mini), mini), feature_specs(mini), 2)
    assert caught.value.remedy == "use --backend onnx"


def test_other_inputs_and_outputs_are_refused(make_onnx: MakeOnnx) -> None:
    for specs, actions in (
        ({"state": SPECS["obs"]}, 3),
        ({"obs": ArraySpec(name="obs", shape=(9,), dtype="float32")}, 3),
        (SPECS, 4),
    ):
        with pytest.raises(VerificationError):
            NumpyBackend(make_onnx(), specs, actions)


@given(st.data())
def test_hostile_bytes_are_refused_or_still_a_network(make_onnx: MakeOnnx, data: st.DataObject) -> None:
    whole = make_onnx()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from([whole[:at], whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]])
    )
    try:
        NumpyBackend(damaged, SPECS, 3)
    except PolicyloopError as error:
        assert error.exit_code in (3, 5)
