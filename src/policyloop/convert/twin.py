"""The network for a CPU: pictures as uint8, and an INT8 twin that stands in where the NPU's simulator is too slow.

Its arithmetic is onnxruntime's, not the NPU's: close, not equal.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from policyloop.convert.graph import NetworkInput, PreparedNetwork
from policyloop.convert.samples import Samples

__all__ = ["int8_twin", "uint8_graph"]


def uint8_graph(data: bytes, pictures: tuple[str, ...]) -> bytes:
    """Return the network with these inputs as uint8: the cast happens inside, where it costs least."""
    model = onnx.load_from_string(data)
    for info in model.graph.input:
        if info.name not in pictures:
            continue
        info.type.tensor_type.elem_type = TensorProto.UINT8
        inside = f"{info.name}_float"
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                if name == info.name:
                    node.input[index] = inside
        model.graph.node.insert(0, helper.make_node("Cast", [info.name], [inside], name=inside, to=TensorProto.FLOAT))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def int8_twin(network: PreparedNetwork, calibration: Samples) -> bytes:
    """Return the network in INT8, weights per channel, with ranges from the same samples as the NPU's.

    A picture's bytes are its quantised form already: `(x - mean) / std` is scale 1 / std and the zero
    point nearest to the mean, as in the NPU's input stage.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory(prefix="policyloop-twin-") as private:
        path = Path(private) / "twin.onnx"
        quantize_static(
            onnx.load_from_string(network.folded),
            path,
            _reader(network, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        model = onnx.load(path)
    for entry in network.inputs:
        if entry.dtype == "uint8":
            _take_bytes(model.graph, entry)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _take_bytes(graph: onnx.GraphProto, entry: NetworkInput) -> None:
    """Let a picture's bytes go where its quantised form went."""
    (quantize,) = [node for node in graph.node if node.op_type == "QuantizeLinear" and entry.name in node.input]
    bytes_name = quantize.output[0]
    constants = {"scale": np.float32(1 / entry.std[0]), "zero": np.uint8(round(entry.mean[0]))}
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{entry.name}_byte_{name}"))
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] == bytes_name:
            node.input[:] = [entry.name, f"{entry.name}_byte_scale", f"{entry.name}_byte_zero"]
    graph.node.remove(quantize)
    info = next(info for info in graph.input if info.name == entry.name)
    info.type.tensor_type.elem_type = TensorProto.UINT8


def _scaled(entry: NetworkInput, batch: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return what the folded graph takes: the input stage's work done."""
    shape = (1, -1, *(1,) * (batch.ndim - 2))
    mean, std = (np.asarray(numbers, np.float32).reshape(shape) for numbers in (entry.mean, entry.std))
    return ((batch.astype(np.float32) - mean) / std).astype(np.float32)


def _reader(network: PreparedNetwork, calibration: Samples) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._row = 0

        def get_next(self) -> dict[str, Any] | None:
            if self._row == len(calibration):
                return None
            row, self._row = self._row, self._row + 1
            return {entry.name: _scaled(entry, calibration.inputs[entry.name][row][None]) for entry in network.inputs}

    return Reader()
