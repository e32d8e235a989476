"""onnxruntime on the CPU: the reference on every machine, and the fall-back where there is no NPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays
from policyloop.errors import VerificationError

__all__ = ["OnnxBackend", "load_onnxruntime", "read_metadata", "run_onnx"]


class OnnxBackend:
    """Runs an ONNX network with one thread: a robot's other cores have other work."""

    name = "onnxruntime"

    def __init__(self, network: bytes, inputs: dict[str, ArraySpec], actions: int) -> None:
        self._session = _open(network)
        found = {node.name: tuple(node.shape) for node in self._session.get_inputs()}
        expected = {name: (1, *spec.shape) for name, spec in inputs.items()}
        shapes = [tuple(node.shape) for node in self._session.get_outputs()]
        self._types = {node.name: _type_of(node, inputs) for node in self._session.get_inputs()}
        for node in self._session.get_outputs():
            _type_of(node, {})
        if found != expected or shapes != [(1, actions)]:
            raise VerificationError(
                f"the network takes {found} and gives {shapes}, expected {expected} and {(1, actions)}"
            )

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        """See `Backend.infer`."""
        feed = {name: inputs[name][None].astype(kind, copy=False) for name, kind in self._types.items()}
        mean: NDArray[np.float32] = self._session.run(None, feed)[0][0]
        return mean

    def close(self) -> None:
        """See `Backend.close`."""
        del self._session


def _type_of(node: Any, inputs: dict[str, ArraySpec]) -> str:
    """Return what a tensor takes: float32, or uint8 where that is what the robot has anyway."""
    if node.type == "tensor(float)":
        return "float32"
    if node.type == "tensor(uint8)" and node.name in inputs and inputs[node.name].dtype == "uint8":
        return "uint8"
    raise VerificationError(f"the network's tensor '{node.name}' is a {node.type}, expected tensor(float)")


def run_onnx(network: bytes, names: Sequence[str], inputs: Arrays) -> NDArray[np.float32]:
    """Run any network with one output over a batch, row by row; returns (n, outputs).

    Args:
        network: ONNX, verified.
        names: Of its inputs; it takes each as float32 with a batch axis of 1.
        inputs: (n, ...) each.
    """
    session = _open(network)
    count = len(inputs[names[0]])
    rows = []
    for row in range(count):
        feed = {name: inputs[name][row][None].astype(np.float32) for name in names}
        rows.append(np.asarray(session.run(None, feed)[0], np.float32).reshape(-1))
    return np.stack(rows)


def read_metadata(network: bytes) -> dict[str, str]:
    """Return the metadata of an ONNX file; VerificationError if it is not one."""
    return dict(_open(network).get_modelmeta().custom_metadata_map)


def load_onnxruntime() -> Any:
    """Import onnxruntime; it must report to nobody, and from 1.31 on it begins to when it is imported."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _open(network: bytes) -> Any:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises types of its own that share no base
        raise VerificationError(f"onnxruntime cannot open the network: {error}", "export it again") from error
