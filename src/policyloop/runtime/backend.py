"""The backend protocol: whatever runs a network. Under 60 lines each."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from policyloop.bundle.manifest import VerifiedBundle
from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError

__all__ = ["Backend", "BackendName", "open_backend"]

BackendName = Literal["auto", "onnx", "rknn", "numpy"]


class Backend(Protocol):
    """A network, ready to run."""

    name: str

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        """Run once on inputs without batch axis; returns the mean before tanh, (actions,)."""

    def close(self) -> None:
        """Release everything."""


def open_backend(name: str, bundle: VerifiedBundle, inputs: dict[str, ArraySpec], actions: int) -> Backend:
    """Open a verified bundle's network with the named backend.

    Args:
        name: `rknn` for the NPU, `onnx` for the CPU, `numpy` for the reference, or `auto`: the NPU
            where there is one and the bundle has a network for it.
        bundle: Already verified.
        inputs: Specs of the network's inputs, in order.
        actions: Length of its output.

    Raises:
        VerificationError: The network does not have these inputs and this output.
        ConfigError: The backend cannot run here.
        IncompatibleError: The board's runtime is older than the converter.
    """
    from policyloop.runtime.rknn_backend import RknnBackend, npu_present

    if name == "rknn" or (name == "auto" and bundle.rknn is not None and npu_present()):
        if bundle.rknn is None or bundle.manifest.conversion is None:
            raise ConfigError("this bundle has no network for the NPU", "make one: `policyloop convert`")
        return RknnBackend(bundle.rknn, inputs, actions, toolkit=bundle.manifest.conversion.toolkit)
    if name in ("auto", "onnx"):
        from policyloop.runtime.onnx_backend import OnnxBackend

        return OnnxBackend(bundle.network, inputs, actions)
    if name == "numpy":
        from policyloop.runtime.numpy_backend import NumpyBackend

        return NumpyBackend(bundle.network, inputs, actions)
    raise ConfigError(f"no backend '{name}'", "use auto, onnx, rknn or numpy")
