"""Which ONNX operators an RK3588 runs, as rknn-toolkit2 2.5.0 itself places them.

Every entry was found by converting a small graph (`bench/operators.py`) and reading the compiler's own layer
table; no vendor list says the same in all places. An operator on the board's CPU costs a trip out
of the NPU and back, twice a tick, so it is refused by name as well, unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["CPU_OPERATORS", "MAX_OPSET", "NPU_OPERATORS", "REMEDIES", "remedy", "unsupported"]

MAX_OPSET = 19
"""Newest operator set that the converter takes."""

_NPU = """
    Abs Add AveragePool BatchNormalization Clip Concat Conv ConvTranspose CumSum DepthToSpace Div Dropout Einsum Elu
    Expand Flatten GRU Gather Gemm GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish Identity
    InstanceNormalization LSTM LayerNormalization LeakyRelu LpNormalization MatMul Max MaxPool Mul Neg PRelu Pad Pow
    ReduceL2 ReduceMean ReduceSum Relu Reshape Resize Sigmoid Slice Softmax Softplus Sqrt Squeeze Sub Tanh
    ThresholdedRelu Tile Transpose Unsqueeze Constant
"""
NPU_OPERATORS = frozenset(_NPU.split())

_CPU = """
    Ceil Celu Cos Erf Exp Floor GridSample LRN Log LogSoftmax Min Mish Mod RNN Reciprocal ReduceMax ReduceMin Round
    Selu Shrink Sign Sin Softsign SpaceToDepth Tan
"""
CPU_OPERATORS = frozenset(_CPU.split())

REMEDIES = {
    "Celu": "use ELU",
    "Selu": "use ELU",
    "Softsign": "use Tanh",
    "Gelu": "use SiLU, or export at opset 17, where GELU is written as a pattern that the converter knows",
    "Mish": "use SiLU, or export at opset 17, where Mish is written as a pattern that the converter knows",
    "RNN": "use GRU",
    "ReduceMax": "use GlobalMaxPool",
    "ReduceMin": "use GlobalMaxPool of the negated tensor",
    "Min": "use Clip",
    "Reciprocal": "use Div, or move the division out of the network",
    "LogSoftmax": "use Softmax",
    "SpaceToDepth": "use a convolution with that stride",
    "LRN": "use BatchNormalization",
    "Exp": "move it out of the network",
    "Log": "move it out of the network",
    "Sin": "compute it before the network and pass it in",
    "Cos": "compute it before the network and pass it in",
}

_PATTERNS = {"Erf": ("Div", "Erf", "Add", "Mul")}
"""Operators that the converter fuses when they stand among these: here GELU as exporters write it."""


def unsupported(operators: Iterable[str]) -> list[str]:
    """Return the operators, each once, that would not run on the NPU; in their order."""
    found = list(dict.fromkeys(operators))
    return [name for name in found if name not in NPU_OPERATORS and not _fused(name, found)]


def _fused(name: str, operators: list[str]) -> bool:
    pattern = _PATTERNS.get(name)
    return pattern is not None and all(part in operators for part in pattern)


def remedy(operator: str) -> str:
    """Return what to use instead."""
    return REMEDIES.get(operator, "use Relu, Elu, SiLU, Tanh, Conv, Gemm and the like instead")
