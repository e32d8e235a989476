"""Each layer as ONNX against the same layer in torch."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from policyloop.convert.onnx_graph import OPSET, GraphWriter
from policyloop.convert.operators import unsupported
from policyloop.errors import ConfigError
from policyloop.learn.networks import ACTIVATIONS


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def as_onnx(module: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Return a graph of `module` on one input of `shape`, flattened."""
    with torch.no_grad():
        size = module(torch.zeros(1, *shape)).numel()
    graph = GraphWriter("test")
    output = graph.module(module, graph.input("x", shape), "layer")
    return graph.finish(graph.node("Flatten", [output], axis=1), "y", size, {})


def worst_difference(module: nn.Module, shape: tuple[int, ...]) -> float:
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(as_onnx(module, shape), providers=["CPUExecutionProvider"])
    (ours,) = session.run(None, {"x": x.numpy()})
    with torch.no_grad():
        return float(np.abs(ours - module(x).flatten(1).numpy()).max())


PICTURE = (4, 17, 23)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        pytest.param(nn.Conv2d(4, 6, 3), PICTURE, id="convolution"),
        pytest.param(nn.Conv2d(4, 6, 5, 3, 2), PICTURE, id="strided and padded"),
        pytest.param(nn.Conv2d(4, 6, (3, 5), (1, 2), (0, 2)), PICTURE, id="not square"),
        pytest.param(nn.Conv2d(4, 6, 3, dilation=2), PICTURE, id="dilated"),
        pytest.param(nn.Conv2d(4, 6, 3, groups=2), PICTURE, id="grouped"),
        pytest.param(nn.Conv2d(4, 6, 3, bias=False), PICTURE, id="convolution without bias"),
        pytest.param(nn.Linear(9, 5), (9,), id="linear"),
        pytest.param(nn.ReLU(), (9,), id="relu"),
        pytest.param(nn.Tanh(), (9,), id="tanh"),
        pytest.param(nn.Sigmoid(), (9,), id="sigmoid"),
        pytest.param(nn.ELU(), (9,), id="elu"),
        pytest.param(nn.GELU(), (9,), id="gelu"),
        pytest.param(nn.SELU(), (9,), id="selu"),
        pytest.param(nn.SiLU(), (9,), id="silu"),
        pytest.param(nn.LeakyReLU(), (9,), id="leaky relu"),
        pytest.param(nn.Flatten(), PICTURE, id="flatten"),
        pytest.param(nn.AdaptiveAvgPool2d(1), PICTURE, id="pool"),
        pytest.param(nn.AdaptiveAvgPool2d((1, 1)), PICTURE, id="pool given as a pair"),
        pytest.param(
            nn.Sequential(nn.Conv2d(4, 3, 3, 2), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(264, 2)), nn.Tanh()),
            PICTURE,
            id="nested sequence",
        ),
    ],
)
def test_a_layer_computes_what_torch_computes(module: nn.Module, shape: tuple[int, ...]) -> None:
    assert worst_difference(module, shape) < 1e-5


@pytest.mark.parametrize(
    ("module", "named"),
    [
        pytest.param(nn.Sequential(nn.Linear(9, 9), nn.Mish()), r"layer\.1 \(Mish\)", id="mish"),
        pytest.param(nn.BatchNorm1d(9), r"layer \(BatchNorm1d\)", id="batch norm"),
        pytest.param(nn.AdaptiveAvgPool2d(2), "AdaptiveAvgPool2d to 2", id="pool to a map"),
    ],
)
def test_a_layer_without_onnx_form_is_refused_by_name(module: nn.Module, named: str) -> None:
    graph = GraphWriter("test")
    with pytest.raises(ConfigError, match=named) as caught:
        graph.module(module, graph.input("x", (9,)), "layer")
    assert caught.value.exit_code == 3


def test_the_refusal_names_the_layers_that_can_be_exported() -> None:
    graph = GraphWriter("test")
    with pytest.raises(ConfigError) as caught:
        graph.module(nn.Mish(), graph.input("x", (9,)), "layer")
    for name in ("ReLU", "Tanh", "Conv2d", "Linear"):
        assert name in caught.value.remedy


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        pytest.param(nn.ELU(alpha=0.5), (9,), id="elu of another slope"),
        pytest.param(nn.LeakyReLU(0.3), (9,), id="leaky relu of another slope"),
        pytest.param(nn.GELU(approximate="tanh"), (9,), id="gelu approximated"),
        pytest.param(nn.Linear(9, 5, bias=False), (9,), id="linear without bias"),
        pytest.param(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), PICTURE, id="reflecting padding"),
        pytest.param(nn.Conv2d(4, 6, 3, padding="same"), PICTURE, id="padding by name"),
    ],
)
def test_an_option_is_exported_or_refused_but_never_dropped(module: nn.Module, shape: tuple[int, ...]) -> None:
    try:
        difference = worst_difference(module, shape)
    except ConfigError:
        return
    assert difference < 1e-5


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_every_activation_of_a_perceptron_agrees_far_out_and_runs_on_the_npu(activation: type[nn.Module]) -> None:
    x = torch.cat([torch.linspace(-30, 30, 601), torch.tensor([0.0, 1e-6, -1e-6, 1e4, -1e4])])
    network = as_onnx(activation(), (len(x),))
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    (ours,) = session.run(None, {"x": x[None].numpy()})
    np.testing.assert_allclose(ours[0], activation()(x).numpy(), rtol=2e-6, atol=2e-6)
    assert unsupported(node.op_type for node in onnx.load_from_string(network).graph.node) == []


def test_the_graph_is_of_the_promised_opset_and_has_static_shapes() -> None:
    model = onnx.load_model_from_string(as_onnx(nn.Conv2d(4, 6, 3), PICTURE))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert OPSET <= 19
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"x": [1, 4, 17, 23], "y": [1, 6 * 15 * 21]}


def test_equal_layers_give_equal_bytes_and_other_weights_others() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(9, 5), nn.Linear(9, 5)
    assert as_onnx(first, (9,)) != as_onnx(second, (9,))
    second.load_state_dict(first.state_dict())
    assert as_onnx(first, (9,)) == as_onnx(second, (9,))
