"""The backend protocol: whatever runs a network. Under 60 lines each."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policyloop.bundle.verify import VerifiedBundle
from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError

__all__ = ["Backend", "open_backend"]


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
        name: `onnx` for the CPU, `numpy` for the reference, `rknn` for the NPU or `rknn:CORE` for some
            of its cores; `auto`: the NPU where there is one and the bundle has a network for it.
        bundle: Already verified.
        inputs: Specs of the network's inputs, in order.
        actions: Length of its output.

    Raises:
        VerificationError: The network does not have these inputs and this output.
        ConfigError: The backend cannot run here.
        IncompatibleError: The board's runtime is older than the converter.
    """
    from policyloop.runtime.rknn_backend import npu_present

    kind, _, core = name.partition(":")
    if kind == "rknn" or (name == "auto" and bundle.rknn is not None and npu_present()):
        return _open_npu(bundle, inputs, actions, core or "0")
    if name in ("auto", "onnx"):
        from policyloop.runtime.onnx_backend import OnnxBackend

        return OnnxBackend(bundle.network, inputs, actions)
    if name == "numpy":
        from policyloop.runtime.numpy_backend import NumpyBackend

        return NumpyBackend(bundle.network, inputs, actions)
    raise ConfigError(f"no backend '{name}'", "use auto, onnx, rknn or numpy")


def _open_npu(bundle: VerifiedBundle, inputs: dict[str, ArraySpec], actions: int, core: str) -> Backend:
    from policyloop.runtime.rknn_backend import CORE_MASKS, RknnBackend

    if core not in CORE_MASKS:
        raise ConfigError(f"the NPU has no core '{core}'", f"use one of {', '.join(CORE_MASKS)}")
    if bundle.rknn is None or bundle.manifest.conversion is None:
        raise ConfigError("this bundle has no network for the NPU", "make one: `policyloop convert`")
    return RknnBackend(bundle.rknn, inputs, actions, toolkit=bundle.manifest.conversion.toolkit, core=core)
