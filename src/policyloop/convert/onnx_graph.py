"""Writes a torch module as an ONNX graph, layer by layer.

Our networks are a handful of layer types, so the graph is written directly: static shapes, one
opset, readable names, byte-equal for equal weights, and in milliseconds, because the loop exports
after every update. A layer that is not in the table is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from policyloop.errors import ConfigError

__all__ = ["OPSET", "GraphWriter"]

OPSET = 19
"""Newest operator set that the RK3588 converter takes."""

_IR_VERSION = 9


class GraphWriter:
    """Collects nodes and weights of one graph.

    Args:
        name: Name of the graph.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        """Declare a float32 input with a batch axis of 1."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, *shape)))
        return name

    def constant(self, value: NDArray[np.float32], name: str) -> str:
        """Add a constant tensor."""
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add one operator; returns the name of its output."""
        output = f"{operator.lower()}_{self._count}"
        self._count += 1
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def module(self, module: nn.Module, x: str, prefix: str) -> str:
        """Add a layer or a sequence of layers; returns the name of its output.

        Raises:
            ConfigError: There is no ONNX form here for a layer; it is named.
        """
        if isinstance(module, nn.Sequential):
            for index, layer in enumerate(module):
                x = self.module(layer, x, f"{prefix}.{index}")
            return x
        if isinstance(module, nn.Conv2d):
            return self._convolution(module, x, prefix)
        if isinstance(module, nn.Linear):
            weights = [self._tensor(module.weight, f"{prefix}.weight")]
            if module.bias is not None:
                weights.append(self._tensor(module.bias, f"{prefix}.bias"))
            return self.node("Gemm", [x, *weights], transB=1)
        if isinstance(module, nn.AdaptiveAvgPool2d):
            if module.output_size not in (1, (1, 1)):
                raise ConfigError(f"{prefix}: AdaptiveAvgPool2d to {module.output_size} has no static ONNX form")
            return self.node("GlobalAveragePool", [x])
        simple = _SIMPLE.get(type(module))
        if simple is None:
            raise ConfigError(
                f"layer {prefix} ({type(module).__name__}) cannot be exported",
                f"use one of {', '.join(sorted(t.__name__ for t in _SIMPLE))}, Conv2d, Linear, AdaptiveAvgPool2d(1)",
            )
        return simple(self, module, x)

    def _convolution(self, layer: nn.Conv2d, x: str, prefix: str) -> str:
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise ConfigError(f"{prefix}: padding {layer.padding} ({layer.padding_mode}) has no ONNX form here")
        weights = [self._tensor(layer.weight, f"{prefix}.weight")]
        if layer.bias is not None:
            weights.append(self._tensor(layer.bias, f"{prefix}.bias"))
        return self.node(
            "Conv",
            [x, *weights],
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[*layer.padding, *layer.padding],
            dilations=list(layer.dilation),
            group=layer.groups,
        )

    def _tensor(self, parameter: Tensor, name: str) -> str:
        return self.constant(parameter.detach().cpu().numpy(), name)

    def finish(self, output: str, name: str, size: int, metadata: dict[str, str]) -> bytes:
        """Return the checked model's bytes, with `output` under `name` as (1, size)."""
        self._nodes.append(helper.make_node("Identity", [output], [name], name=name))
        graph = helper.make_graph(
            self._nodes,
            self._name,
            self._inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, size))],
            self._weights,
        )
        model = helper.make_model(
            graph, producer_name="policyloop", ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def _gelu(graph: GraphWriter, layer: Any, x: str) -> str:
    """Write x / 2 * (1 + erf(x / sqrt 2)) as exporters do: the NPU's compiler knows that pattern (operators.py)."""
    if layer.approximate != "none":
        raise ConfigError(f"GELU approximated by {layer.approximate} has no ONNX form here", "use nn.GELU()")
    half = graph.node("Erf", [graph.node("Div", [x, _number(graph, math.sqrt(2), f"sqrt2_{x}")])])
    raised = graph.node("Add", [half, _number(graph, 1.0, f"one_{x}")])
    return graph.node("Mul", [graph.node("Mul", [x, raised]), _number(graph, 0.5, f"half_{x}")])


def _selu(graph: GraphWriter, layer: Any, x: str) -> str:
    """Write a scaled Elu, which runs on the NPU where Selu does not; constants of Klambauer et al., 1706.02515."""
    elu = graph.node("Elu", [x], alpha=1.6732632423543772)
    return graph.node("Mul", [elu, _number(graph, 1.0507009873554805, f"scale_{x}")])


def _number(graph: GraphWriter, value: float, name: str) -> str:
    return graph.constant(np.array(value, np.float32), name)


_SIMPLE: dict[type[nn.Module], Callable[[GraphWriter, Any, str], str]] = {
    nn.ReLU: lambda graph, layer, x: graph.node("Relu", [x]),
    nn.Tanh: lambda graph, layer, x: graph.node("Tanh", [x]),
    nn.Sigmoid: lambda graph, layer, x: graph.node("Sigmoid", [x]),
    nn.ELU: lambda graph, layer, x: graph.node("Elu", [x], alpha=layer.alpha),
    nn.LeakyReLU: lambda graph, layer, x: graph.node("LeakyRelu", [x], alpha=layer.negative_slope),
    nn.SiLU: lambda graph, layer, x: graph.node("Mul", [x, graph.node("Sigmoid", [x])]),
    nn.GELU: _gelu,
    nn.SELU: _selu,
    nn.Flatten: lambda graph, layer, x: graph.node("Flatten", [x], axis=1),
}
