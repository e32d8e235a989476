"""What the converter may be given: the checks, by name, and the scaling that the NPU's input stage takes over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from policyloop.convert.export import export_onnx
from policyloop.convert.graph import prepare
from policyloop.convert.operators import CPU_OPERATORS, NPU_OPERATORS, REMEDIES
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import IncompatibleError, PolicyloopError, VerificationError
from policyloop.learn.networks import make_network

MakeOnnx = Callable[..., bytes]


def exported(name: str, profile: RobotProfile) -> bytes:
    torch.manual_seed(0)
    return export_onnx(make_network(name, profile), profile)


def test_a_policy_of_ours_is_described_for_the_converter(mini: RobotProfile) -> None:
    network = prepare(exported("spatial", mini))
    assert [(entry.name, entry.shape, entry.dtype) for entry in network.inputs] == [
        ("rgb", (1, 3, 36, 64), "uint8"),
        ("depth", (1, 1, 36, 64), "uint8"),
        ("proprio", (1, 6), "float32"),
    ]
    assert network.actions == 2
    assert network.has_pictures
    assert network.metadata["profile_digest"] == mini.digest
    # 5x5 over 4 planes to 16 x 12x22, 3x3 over 16 to 32 x 6x11, 3x3 over 32 to 64 x 3x6, then four dense layers
    by_hand = 100 * 16 * 12 * 22 + 144 * 32 * 6 * 11 + 288 * 64 * 3 * 6 + 1152 * 96 + 6 * 32 + 128 * 128 + 128 * 2
    assert network.macs == by_hand


@pytest.mark.parametrize(
    ("name", "profile"),
    [("spatial", "rover-mini"), ("spatial", "rover"), ("gray", "rover-mini"), ("original", "rover")],
)
def test_scaling_moves_from_the_graph_to_the_input_stage_and_nothing_else_changes(name: str, profile: str) -> None:
    robot = load_profile(profile)
    network = prepare(exported(name, robot))
    rng = np.random.default_rng(1)
    whole, folded = {}, {}
    for entry in network.inputs:
        picture = entry.dtype == "uint8"
        array = rng.integers(0, 256, entry.shape) if picture else rng.normal(size=entry.shape)
        whole[entry.name] = array.astype(np.float32)
        shape = (1, -1, 1, 1) if picture else (1, -1)
        mean, std = (np.asarray(numbers, np.float32).reshape(shape) for numbers in (entry.mean, entry.std))
        folded[entry.name] = (whole[entry.name] - mean) / std
    offset = 0.0 if name == "original" else 63.75
    assert network.inputs[0].mean == pytest.approx((offset,) * 3, abs=1e-4)
    assert network.inputs[0].std == pytest.approx((255.0,) * 3, abs=1e-4)
    assert network.inputs[2].std == (1.0,) * 6
    outputs = [
        onnxruntime.InferenceSession(data).run(None, feed)[0]
        for data, feed in ((network.original, whole), (network.folded, folded))
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)
    assert "Mul" not in [node.op_type for node in onnx.load_from_string(network.folded).graph.node]


def test_the_head_is_what_follows_the_last_join(mini: RobotProfile, make_onnx: MakeOnnx) -> None:
    head = prepare(exported("spatial", mini)).head
    assert head[0].startswith("concat")
    assert head[-1] == "mean"
    assert len(head) == 4
    assert prepare(make_onnx()).head == ("a", "b", "actions")


def test_a_foreign_network_keeps_its_names_and_takes_floats(make_onnx: MakeOnnx) -> None:
    network = prepare(make_onnx("Elu", alpha=0.5))
    (entry,) = network.inputs
    assert (entry.name, entry.shape, entry.dtype) == ("obs", (1, 8), "float32")
    assert (network.actions, network.macs, network.weights) == (3, 8 * 16 + 16 * 3, 8 * 16 + 16 * 3)
    assert not network.has_pictures


def test_opset_20_is_refused_with_what_to_do(make_onnx: MakeOnnx) -> None:
    with pytest.raises(IncompatibleError, match="opset 20") as caught:
        prepare(make_onnx(opset=20))
    assert "opset_version=19" in caught.value.remedy
    assert caught.value.exit_code == 7
    prepare(make_onnx(opset=19))


def test_a_shape_that_is_not_fixed_is_refused(make_onnx: MakeOnnx) -> None:
    with pytest.raises(IncompatibleError, match=r"'obs' has the shape \(batch, 8\), which is not fixed") as caught:
        prepare(make_onnx(shape=("batch", 8)))
    assert "dynamic axes" in caught.value.remedy
    with pytest.raises(IncompatibleError, match="batch of 4"):
        prepare(make_onnx(shape=(4, 8)))


@pytest.mark.parametrize("operator", sorted({"Selu", "Celu", "Erf", "Softsign", "Sin"}))
def test_an_operator_that_would_leave_the_npu_is_refused_by_name_and_can_be_allowed(
    operator: str, make_onnx: MakeOnnx
) -> None:
    data = make_onnx(operator)
    with pytest.raises(
        IncompatibleError, match=rf"operator {operator} \(middle\) would run on the board's CPU"
    ) as caught:
        prepare(data)
    assert "--allow-cpu" in caught.value.remedy
    prepare(data, allow_cpu=True)


def test_an_unknown_operator_is_refused_even_so(make_onnx: MakeOnnx) -> None:
    with pytest.raises(IncompatibleError, match=r"operator Acosh \(middle\) is not known to run on RK3588"):
        prepare(make_onnx("Acosh"), allow_cpu=True)


def test_the_remedy_for_selu_is_elu(make_onnx: MakeOnnx) -> None:
    with pytest.raises(IncompatibleError, match="Selu") as caught:
        prepare(make_onnx("Selu"))
    assert "use ELU" in caught.value.remedy


@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.ELU(), nn.LeakyReLU(), nn.Tanh()])
def test_activations_as_torch_writes_them_pass(activation: nn.Module, tmp_path: object) -> None:
    import io

    buffer = io.BytesIO()
    network = nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 2)).eval()
    with pytest.warns(DeprecationWarning):
        torch.onnx.export(network, torch.zeros(1, 4), buffer, opset_version=17, dynamo=False)
    assert prepare(buffer.getvalue()).actions == 2


def test_a_default_that_the_converter_needs_is_written_out(make_onnx: MakeOnnx) -> None:
    model = onnx.load_from_string(make_onnx())
    scale = onnx.numpy_helper.from_array(np.ones(16, np.float32), "scale")
    model.graph.initializer.append(scale)
    model.graph.node[1].CopyFrom(onnx.helper.make_node("LayerNormalization", ["a", "scale"], ["b"], name="middle"))
    folded = onnx.load_from_string(prepare(model.SerializeToString()).folded)
    (attribute,) = [a for node in folded.graph.node for a in node.attribute if a.name == "epsilon"]
    assert attribute.f == pytest.approx(1e-5)


def test_the_table_of_operators_is_consistent() -> None:
    assert not NPU_OPERATORS & CPU_OPERATORS
    assert not set(REMEDIES) & NPU_OPERATORS


def test_two_outputs_are_refused(make_onnx: MakeOnnx) -> None:
    with pytest.raises(IncompatibleError, match="2 outputs"):
        prepare(make_onnx(outputs=2))


def test_weights_in_another_file_are_refused(make_onnx: MakeOnnx) -> None:
    model = onnx.load_from_string(make_onnx())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(IncompatibleError, match="another file") as caught:
        prepare(model.SerializeToString())
    assert "external_data=False" in caught.value.remedy


@pytest.mark.parametrize("data", [b"", b"not onnx", b"\x00" * 100])
def test_something_else_is_no_onnx_file(data: bytes) -> None:
    with pytest.raises(VerificationError, match="not a whole ONNX file"):
        prepare(data)


@given(st.data())
def test_a_damaged_file_is_refused_or_still_a_network(make_onnx: MakeOnnx, data: st.DataObject) -> None:
    whole = make_onnx()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    try:
        network = prepare(damaged)
    except PolicyloopError as error:
        assert error.exit_code in (5, 7)
    else:
        assert network.actions >= 1
