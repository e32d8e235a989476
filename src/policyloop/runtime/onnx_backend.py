"""onnxruntime on the CPU: the reference on every machine, and the fall-back where there is no NPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays
from policyloop.errors import VerificationError

__all__ = ["OnnxBackend", "read_metadata"]


class OnnxBackend:
    """Runs an ONNX network with one thread: a robot's other cores have other work."""

    name = "onnxruntime"

    def __init__(self, network: bytes, inputs: dict[str, ArraySpec], actions: int) -> None:
        self._session = _open(network)
        found = {node.name: tuple(node.shape) for node in self._session.get_inputs()}
        expected = {name: (1, *spec.shape) for name, spec in inputs.items()}
        shapes = [tuple(node.shape) for node in self._session.get_outputs()]
        types = {node.type for node in (*self._session.get_inputs(), *self._session.get_outputs())}
        if types != {"tensor(float)"}:
            raise VerificationError(f"the network's tensors are {', '.join(sorted(types))}, expected tensor(float)")
        if found != expected or shapes != [(1, actions)]:
            raise VerificationError(
                f"the network takes {found} and gives {shapes}, expected {expected} and {(1, actions)}"
            )

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        """See `Backend.infer`."""
        feed = {name: array[None].astype(np.float32) for name, array in inputs.items()}
        mean: NDArray[np.float32] = self._session.run(None, feed)[0][0]
        return mean

    def close(self) -> None:
        """See `Backend.close`."""
        del self._session


def read_metadata(network: bytes) -> dict[str, str]:
    """Return the metadata of an ONNX file; VerificationError if it is not one."""
    return dict(_open(network).get_modelmeta().custom_metadata_map)


def _open(network: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises types of its own that share no base
        raise VerificationError(f"onnxruntime cannot open the network: {error}", "export it again") from error
