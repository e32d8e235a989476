"""The backend protocol: whatever runs a network. Under 60 lines each."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError

__all__ = ["Backend", "BackendName", "open_backend"]

BackendName = Literal["auto", "onnx"]


class Backend(Protocol):
    """A network, ready to run."""

    name: str

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        """Run once on inputs without batch axis; returns the mean before tanh, (actions,)."""

    def close(self) -> None:
        """Release everything."""


def open_backend(name: str, network: bytes, inputs: dict[str, ArraySpec], actions: int) -> Backend:
    """Open verified network bytes with the named backend.

    Args:
        name: `onnx`, or `auto` for the best one here.
        network: The ONNX file's bytes, already verified.
        inputs: Specs of the network's inputs, in order.
        actions: Length of its output.

    Raises:
        VerificationError: The network does not have these inputs and this output.
    """
    if name in ("auto", "onnx"):
        from policyloop.runtime.onnx_backend import OnnxBackend

        return OnnxBackend(network, inputs, actions)
    raise ConfigError(f"no backend '{name}'", "use auto or onnx")
