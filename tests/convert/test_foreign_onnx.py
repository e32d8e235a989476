"""Foreign ONNX files under our names."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from policyloop.convert.foreign_onnx import AdoptedNetwork, adopt_onnx
from policyloop.core.features import feature_specs
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, UsageError, VerificationError
from policyloop.runtime.onnx_backend import OnnxBackend, read_metadata, run_onnx

Make = Callable[..., bytes]
X = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


def adopted(data: bytes, profile: RobotProfile) -> AdoptedNetwork:
    return adopt_onnx(data, "policy.onnx", profile, {"policy": "mine"})


def chain(*operators: str, names: tuple[str, ...], dtype: str = "float32", observed: int = 8) -> bytes:
    """Return `operators` in a row, from 8 numbers to 3; one of them is a product with `matrix`."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    matrix = numpy_helper.from_array(np.random.default_rng(0).normal(size=(observed, 3)).astype(dtype), "matrix")
    nodes = [
        helper.make_node(operator, [names[i], "matrix"] if operator == "MatMul" else [names[i]], [names[i + 1]])
        for i, operator in enumerate(operators)
    ]
    inputs = [helper.make_tensor_value_info(names[0], kind, (1, observed))]
    outputs = [helper.make_tensor_value_info(names[-1], kind, (1, 3))]
    graph = helper.make_graph(nodes, "policy", inputs, outputs, [matrix])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def test_a_network_answers_the_same_under_our_names(walker: RobotProfile, make_onnx: Make) -> None:
    data = make_onnx("Tanh")
    found = adopted(data, walker)
    assert found.inputs == {"proprio": "obs"}
    assert not found.ended_in_tanh
    np.testing.assert_array_equal(
        run_onnx(found.network, ["proprio"], {"proprio": X}), run_onnx(data, ["obs"], {"obs": X})
    )
    OnnxBackend(found.network, feature_specs(walker), 3).close()
    assert read_metadata(found.network) == {"policy": "mine"}
    assert [info.name for info in onnx.load_from_string(found.network).graph.output] == ["mean"]


@pytest.mark.parametrize("end", [(), ("Identity",), ("Identity", "Identity")], ids=len)
def test_a_tanh_at_the_end_is_left_to_the_robot(end: tuple[str, ...], walker: RobotProfile) -> None:
    operators = ("Tanh", "MatMul", "Tanh", *end)
    data = chain(*operators, names=("obs", "a", "b", "c", "d", "e")[: len(operators) + 1])
    found = adopted(data, walker)
    assert found.ended_in_tanh
    assert [node.op_type for node in onnx.load_from_string(found.network).graph.node] == ["Tanh", "MatMul", "Identity"]
    before = run_onnx(found.network, ["proprio"], {"proprio": X})
    np.testing.assert_allclose(np.tanh(before), run_onnx(data, ["obs"], {"obs": X}), atol=1e-6)


@pytest.mark.parametrize(
    "names",
    [
        ("proprio", "a", "b", "mean"),
        ("obs", "proprio", "proprio_", "mean"),
        ("mean", "proprio", "x", "y"),
        ("x", "mean", "network_mean", "proprio"),
    ],
    ids=" ".join,
)
def test_names_that_are_taken_already_do_not_collide(names: tuple[str, ...], walker: RobotProfile) -> None:
    data = chain("Sigmoid", "Relu", "MatMul", names=names)
    found = adopted(data, walker)
    OnnxBackend(found.network, feature_specs(walker), 3).close()
    expected = run_onnx(data, [names[0]], {names[0]: X})
    np.testing.assert_array_equal(run_onnx(found.network, ["proprio"], {"proprio": X}), expected)


def test_a_network_of_other_inputs_is_refused_with_both_named(
    mini: RobotProfile, walker: RobotProfile, make_onnx: Make
) -> None:
    with pytest.raises(
        IncompatibleError, match=r"takes 'obs' float32 \(1, 9\); .*'proprio' float32 \(1, 8\)"
    ) as caught:
        adopted(chain("MatMul", names=("obs", "actions"), observed=9), walker)
    assert caught.value.exit_code == 7
    with pytest.raises(IncompatibleError, match=r"takes 'obs' float32 \(1, 8\); .*'rgb' float32 \(1, 3, 36, 64\)"):
        adopted(make_onnx(), mini)
    with pytest.raises(IncompatibleError, match=r"takes 'obs' float64 \(1, 8\)"):
        adopted(chain("MatMul", names=("obs", "actions"), dtype="float64"), walker)


def test_a_network_of_other_actions_is_refused_with_both_named(walker: RobotProfile, make_onnx: Make) -> None:
    fewer = msgspec.structs.replace(walker, action=walker.action[:2])
    with pytest.raises(IncompatibleError, match=r"gives 'actions' float32 \(1, 3\); profile 'walker' wants \(1, 2\)"):
        adopted(make_onnx(), fewer)


def test_a_network_whose_weights_are_no_numbers_is_refused(walker: RobotProfile) -> None:
    model = onnx.load_from_string(chain("MatMul", "Relu", names=("obs", "a", "actions")))
    weights = np.ones((8, 3), np.float32)
    weights[2, 1] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "matrix"))
    with pytest.raises(VerificationError, match="matrix holds NaN"):
        adopted(model.SerializeToString(), walker)


def test_what_is_no_onnx_is_refused(walker: RobotProfile) -> None:
    with pytest.raises(VerificationError, match="not a whole ONNX file") as caught:
        adopted(b"junk", walker)
    assert caught.value.exit_code == 5


def test_our_own_export_needs_no_import(walker: RobotProfile, make_onnx: Make) -> None:
    model = onnx.load_from_string(make_onnx())
    helper.set_model_props(model, {"profile_digest": walker.digest})
    with pytest.raises(UsageError, match="was exported by policyloop"):
        adopted(model.SerializeToString(), walker)
