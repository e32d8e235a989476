"""What a network should cost on the NPU, on paper. Estimated, not measured: there is no board here."""

from __future__ import annotations

import msgspec

from policyloop.convert.graph import PreparedNetwork
from policyloop.convert.rknn import LayerCost

__all__ = ["Estimate", "estimate"]

_NPU_HZ = 1.0e9
_MACS_PER_CYCLE = {"int8": 1024, "float16": 512}
"""Of one core of three: 6 TOPS INT8 in all, half of it in float16."""

_UTILISATION = 0.3
_BYTES_PER_S = 10e9
"""Share of the board's memory that the NPU may hope for."""

_LAYER_S = 20e-6
_CALL_S = 400e-6
"""Inputs in, outputs out, through the driver; users report 1 to 2 ms for pictures of 224x224."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A paper estimate.

    Attributes:
        milliseconds: From multiplications, bytes, layers and an assumed cost of a call.
        compiler_ms: From the compiler's own cycle count at 1 GHz; layers that it does not count are free there.
        bound: What it would spend most time on.
        cpu_layers: Layers that the compiler puts on the board's CPU.
        label: Says that this is no measurement.
    """

    milliseconds: float
    compiler_ms: float
    bound: str
    cpu_layers: list[str]
    label: str = "estimated, not measured"


def estimate(network: PreparedNetwork, precision: str, layers: list[LayerCost]) -> Estimate:
    """Add up what arithmetic, memory, layers and the call itself should take on one core."""
    rate = _MACS_PER_CYCLE["float16" if precision == "float16" else "int8"]
    parts = {
        "arithmetic": network.macs / (rate * _NPU_HZ * _UTILISATION),
        "memory": sum(layer.kilobytes for layer in layers) * 1024 / _BYTES_PER_S,
        "layers": len(layers) * _LAYER_S,
        "the call": _CALL_S,
    }
    seconds = max(parts["arithmetic"], parts["memory"]) + parts["layers"] + parts["the call"]
    return Estimate(
        milliseconds=1e3 * seconds,
        compiler_ms=1e3 * sum(layer.cycles for layer in layers) / _NPU_HZ,
        bound=max(parts, key=lambda name: parts[name]),
        # The last reshape of a vector is where the compiler hands the output over.
        cpu_layers=[layer.name for layer in layers[:-1] if layer.place == "CPU"],
    )
