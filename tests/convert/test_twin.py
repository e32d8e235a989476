"""The network for a CPU: the same with bytes as inputs, and nearly the same in INT8."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policyloop.convert.export import export_onnx, probe_features
from policyloop.convert.graph import PreparedNetwork, prepare
from policyloop.convert.samples import Samples
from policyloop.convert.twin import int8_twin, uint8_graph
from policyloop.core.features import feature_specs
from policyloop.core.profile import RobotProfile
from policyloop.learn.networks import make_network
from policyloop.runtime.onnx_backend import OnnxBackend


@pytest.fixture(scope="module")
def network(mini: RobotProfile) -> PreparedNetwork:
    torch.manual_seed(0)
    return prepare(export_onnx(make_network("spatial", mini), mini))


@pytest.fixture(scope="module")
def samples(mini: RobotProfile) -> Samples:
    probes = probe_features(mini, 40)
    return Samples({name: np.stack([probe[name] for probe in probes]) for name in probes[0]}, None, "probes")


def answers(data: bytes, profile: RobotProfile, samples: Samples) -> np.ndarray:
    backend = OnnxBackend(data, feature_specs(profile), 2)
    rows = [{name: array[i] for name, array in samples.inputs.items()} for i in range(len(samples))]
    return np.stack([backend.infer(row) for row in rows])


def test_bytes_as_inputs_change_nothing(network: PreparedNetwork, samples: Samples, mini: RobotProfile) -> None:
    whole = uint8_graph(network.original, ("rgb", "depth"))
    np.testing.assert_array_equal(answers(whole, mini, samples), answers(network.original, mini, samples))
    types = OnnxBackend(whole, feature_specs(mini), 2)._types
    assert types == {"rgb": "uint8", "depth": "uint8", "proprio": "float32"}


@pytest.mark.parametrize("name", ["depth", "gray"])
def test_a_network_that_looks_at_less_has_a_twin_too(name: str, samples: Samples, mini: RobotProfile) -> None:
    torch.manual_seed(0)
    made = make_network(name, mini)
    twin = OnnxBackend(int8_twin(prepare(export_onnx(made, mini)), samples), feature_specs(mini, made.inputs), 2)
    row = {key: samples.inputs[key][0] for key in made.inputs}
    with torch.no_grad():
        expected = made.mean({key: torch.from_numpy(array)[None] for key, array in row.items()})[0].numpy()
    assert twin._types["depth"] == "uint8"
    assert np.abs(twin.infer(row) - expected).max() < 0.2 * np.abs(expected).max()


def test_the_int8_twin_takes_bytes_and_answers_nearly_the_same(
    network: PreparedNetwork, samples: Samples, mini: RobotProfile
) -> None:
    twin = int8_twin(network, samples)
    assert len(twin) < 0.5 * len(network.original)
    assert OnnxBackend(twin, feature_specs(mini), 2)._types["rgb"] == "uint8"
    expected, found = answers(network.original, mini, samples), answers(twin, mini, samples)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.ptp(expected)
