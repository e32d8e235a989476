"""The network for a CPU: pictures as uint8, and an INT8 twin that stands in where the NPU's simulator is too slow.

Its arithmetic is onnxruntime's, not the NPU's: close, not equal.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from policyloop.convert.graph import PreparedNetwork
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
    """Return the network in INT8, weights per channel, with ranges from the same samples as the NPU's."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory(prefix="policyloop-twin-") as private:
        path = Path(private) / "twin.onnx"
        quantize_static(
            onnx.load_from_string(network.original),
            path,
            _reader(network, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return uint8_graph(path.read_bytes(), tuple(e.name for e in network.inputs if e.dtype == "uint8"))


def _reader(network: PreparedNetwork, calibration: Samples) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._row = 0

        def get_next(self) -> dict[str, Any] | None:
            if self._row == len(calibration):
                return None
            row, self._row = self._row, self._row + 1
            return {
                entry.name: calibration.inputs[entry.name][row][None].astype(np.float32) for entry in network.inputs
            }

    return Reader()
