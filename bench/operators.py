"""Where the vendor's compiler puts each ONNX operator: the source of `policyloop.convert.operators`.

python bench/operators.py            all of them, some minutes
python bench/operators.py Selu Elu   these
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, shape_inference

from policyloop.convert.operators import CPU_OPERATORS, NPU_OPERATORS
from policyloop.convert.rknn import read_layers
from policyloop.convert.toolkit import Toolkit, ToolkitFailed

PICTURE, VECTOR = (1, 8, 16, 16), (1, 32)
HALF, ONES = np.float32(0.5), np.ones((1, 8, 1, 1), np.float32)
EIGHT = np.ones(8, np.float32)


def floats(*shape: int) -> np.ndarray:
    """Return weights."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    """Return indices."""
    return np.array(values, np.int64)


# Further inputs and attributes of operators that need some.
CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Add": ([ONES], {}),
    "AveragePool": ([], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "BatchNormalization": ([2 * EIGHT, EIGHT, EIGHT, EIGHT], {}),
    "Clip": ([-HALF, HALF], {}),
    "Concat": (["same"], {"axis": 1}),
    "Conv": ([floats(8, 8, 3, 3)], {}),
    "ConvTranspose": ([floats(8, 8, 2, 2)], {"strides": [2, 2]}),
    "CumSum": ([np.array(1, np.int64)], {}),
    "DepthToSpace": ([], {"blocksize": 2}),
    "Div": ([2 * ONES], {}),
    "Einsum": ([], {"equation": "bchw->bhwc"}),
    "Expand": ([integers(1, 8, 16, 16)], {}),
    "Gather": ([integers(0, 2)], {"axis": 1}),
    "Gemm": ([floats(32, 16)], {}),
    "GridSample": ([np.zeros((1, 16, 16, 2), np.float32)], {}),
    "InstanceNormalization": ([EIGHT, 0 * EIGHT], {}),
    "LRN": ([], {"size": 3}),
    "LayerNormalization": ([floats(32), floats(32)], {"axis": -1, "epsilon": 1e-5}),
    "LogSoftmax": ([], {"axis": 1}),
    "LpNormalization": ([], {"axis": 1}),
    "MatMul": ([floats(32, 16)], {}),
    "Max": ([ONES], {}),
    "MaxPool": ([], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "Min": ([ONES], {}),
    "Mod": ([np.float32(2)], {"fmod": 1}),
    "Mul": ([2 * ONES], {}),
    "PRelu": ([0.2 * ONES[0]], {}),
    "Pad": ([integers(0, 0, 1, 1, 0, 0, 1, 1)], {}),
    "Pow": ([np.float32(2)], {}),
    "ReduceL2": ([integers(1)], {}),
    "ReduceMax": ([integers(2, 3)], {}),
    "ReduceMean": ([integers(2, 3)], {}),
    "ReduceMin": ([integers(2, 3)], {}),
    "ReduceSum": ([integers(2, 3)], {}),
    "Reshape": ([integers(1, -1)], {}),
    "Resize": ([None, np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest"}),
    "Slice": ([integers(0), integers(4), integers(1)], {}),
    "Softmax": ([], {"axis": 1}),
    "SpaceToDepth": ([], {"blocksize": 2}),
    "Squeeze": ([integers(0)], {}),
    "Sub": ([ONES], {}),
    "Tile": ([integers(1, 2, 1, 1)], {}),
    "Transpose": ([], {"perm": [0, 2, 3, 1]}),
    "Unsqueeze": ([integers(1)], {}),
}
ON_VECTORS = ("Gemm", "MatMul", "LayerNormalization", "Unsqueeze")
RECURRENT = {"GRU": 3, "LSTM": 4, "RNN": 1}


def graph_of(operator: str) -> bytes:
    """Return a layer with weights, then the operator; LSTM and its kind stand alone."""
    if operator in RECURRENT:
        rows = 16 * RECURRENT[operator]
        weights = [floats(1, rows, 16), floats(1, rows, 16)]
        return _model([helper.make_node(operator, ["x", "c0", "c1"], ["y"], hidden_size=16)], (4, 1, 16), weights)
    shape = VECTOR if operator in ON_VECTORS else PICTURE
    first = "Gemm" if shape == VECTOR else "Conv"
    more, attributes = CASES.get(operator, ([], {}))
    constants = [floats(32, 32) if shape == VECTOR else floats(8, 8, 1, 1)]
    names = ["z"]
    for extra in more:
        if extra is None or isinstance(extra, str):
            names.append("z" if extra else "")
        else:
            constants.append(np.asarray(extra))
            names.append(f"c{len(constants) - 1}")
    nodes = [helper.make_node(first, ["x", "c0"], ["z"]), helper.make_node(operator, names, ["y"], **attributes)]
    if operator == "LayerNormalization":  # as the very last layer the converter trips over it
        nodes[-1].output[0] = "normal"
        nodes.append(helper.make_node("Gemm", ["normal", "c0"], ["y"]))
    return _model(nodes, shape, constants)


def _model(nodes: list[Any], shape: tuple[int, ...], constants: list[np.ndarray]) -> bytes:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(value, f"c{index}") for index, value in enumerate(constants)]
    graph = helper.make_graph(nodes, "one", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    model = shape_inference.infer_shapes(model)
    return bytes(model.SerializeToString())


def place_of(operator: str, toolkit: Toolkit) -> str:
    """Convert the graph and return where the operator's layers are: NPU, CPU or refused."""
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary)
        (files / "network.onnx").write_bytes(graph_of(operator))
        size = {"GRU": (4, 1, 16), "LSTM": (4, 1, 16), "RNN": (4, 1, 16)}.get(operator, PICTURE)
        job = {
            "inputs": [{"shape": size, "dtype": "float32", "mean": None, "std": None}],
            "precision": "float16",
            "float16": [],
            "target": "rk3588",
            "algorithm": "normal",
            "method": "channel",
            "optimization_level": 3,
            "memory_bytes": 16 << 30,
            "held_out": False,
            "analyse": False,
        }
        with toolkit.worker(job, files, time_limit_s=120) as worker:
            try:
                worker.convert()
            except ToolkitFailed:
                return "refused"
        places = {layer.place for layer in read_layers((files / "toolkit.log").read_bytes(), b"")}
        return "CPU" if "CPU" in places else "NPU"


def main() -> None:
    """Print one line per operator, and whether the table says the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", default=sorted((NPU_OPERATORS | CPU_OPERATORS) - {"Constant"}))
    toolkit = Toolkit()
    for operator in parser.parse_args().operators:
        place = place_of(operator, toolkit)
        table = "NPU" if operator in NPU_OPERATORS else "CPU" if operator in CPU_OPERATORS else "unknown"
        print(f"{operator:22} {place:8} {'' if place == table else f'the table says {table}'}", flush=True)


if __name__ == "__main__":
    main()
