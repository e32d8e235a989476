"""Networks that are broken on purpose, as real ONNX files: each breaks where the first number of `proprio` says so."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from policyloop.core.features import feature_specs
from policyloop.core.profile import RobotProfile

Defect = Literal["none", "nan", "loop", "shape", "raise"]
DTYPES = {"uint8": TensorProto.FLOAT, "float32": TensorProto.FLOAT}


def constant(name: str, value: object, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def network(
    profile: RobotProfile,
    defect: Defect = "none",
    *,
    mean: tuple[float, float] = (0.1, -0.1),
    above: float = -1e9,
    iterations: int = 1,
) -> bytes:
    """Return a network that answers `mean`, with a defect where proprio[0] (normalised) is above a threshold.

    `loop` does so many iterations there; `raise` gathers an element that does not exist.
    """
    specs = feature_specs(profile)
    inputs = [helper.make_tensor_value_info(name, DTYPES[s.dtype], (1, *s.shape)) for name, s in specs.items()]
    used = [name for name in specs if name != "proprio"]
    nodes = [helper.make_node("ReduceMean", [name], [f"{name}_mean"], keepdims=0) for name in used]
    nodes += [
        helper.make_node("Gather", ["proprio", "zero"], ["first"], axis=1),
        helper.make_node("Greater", ["first", "above"], ["is_bad"]),
        helper.make_node("Cast", ["is_bad"], ["bad"], to=TensorProto.FLOAT),
    ]
    terms = ["mean", *(f"{name}_nothing" for name in used)]
    nodes += [helper.make_node("Mul", [f"{name}_mean", "tiny"], [f"{name}_nothing"]) for name in used]
    weights = [
        constant("zero", [0], np.int64),
        constant("above", [[above]]),
        constant("mean", [mean]),
        constant("tiny", 0.0),
    ]
    if defect == "nan":
        nodes += [helper.make_node("Neg", ["bad"], ["minus"]), helper.make_node("Sqrt", ["minus"], ["harm"])]
        terms.append("harm")
    elif defect == "loop":
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go_on"]),
                helper.make_node("Add", ["x", "tiny"], ["x_out"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, ()),
                helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
                helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1)),
            ],
            [
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, ()),
                helper.make_tensor_value_info("x_out", TensorProto.FLOAT, (1, 1)),
            ],
        )
        nodes += [
            helper.make_node("Cast", ["is_bad"], ["bad_int"], to=TensorProto.INT64),
            helper.make_node("Mul", ["bad_int", "iterations"], ["times_2d"]),
            helper.make_node("Squeeze", ["times_2d"], ["times"]),
            helper.make_node("Loop", ["times", "yes", "harmless"], ["harm"], body=body),
        ]
        weights += [
            constant("iterations", [[iterations]], np.int64),
            constant("yes", True, np.bool_),
            constant("harmless", [[0.0]]),
        ]
        terms.append("harm")
    elif defect == "raise":
        nodes += [
            helper.make_node("Cast", ["is_bad"], ["bad_int"], to=TensorProto.INT64),
            helper.make_node("Mul", ["bad_int", "far"], ["index_2d"]),
            helper.make_node("Gather", ["nothing", "index_2d"], ["harm"], axis=0),
        ]
        weights += [constant("far", [[99]], np.int64), constant("nothing", [0.0])]
        terms.append("harm")
    nodes.append(helper.make_node("Sum", terms, ["sum"]))
    outputs = 3 if defect == "shape" else 2
    if defect == "shape":
        nodes.append(helper.make_node("Concat", ["sum", "first"], ["action"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", ["sum"], ["action"]))
    graph = helper.make_graph(
        nodes, "policy", inputs, [helper.make_tensor_value_info("action", TensorProto.FLOAT, (1, outputs))], weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
