"""The reference: dense networks in plain numpy, read from the ONNX file without any library.

It depends on nothing that the others depend on, so that where they disagree there is somebody to ask.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError, VerificationError

__all__ = ["NumpyBackend"]

Array = NDArray[np.float32]
_FLOAT = 1
_DAMAGE = (IndexError, KeyError, OverflowError, StopIteration, TypeError, ValueError, struct.error)
"""What reading bytes that are no ONNX file, or running a network with other inputs, may raise."""


@dataclass
class _Node:
    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, float] = field(default_factory=dict)


def _gemm(node: _Node, x: Array, weight: Array, bias: Array | None = None) -> Array:
    if node.attributes.get("transA"):
        x = x.T
    product = x @ (weight.T if node.attributes.get("transB") else weight)
    result = np.float32(node.attributes.get("alpha", 1.0)) * product
    return result if bias is None else result + np.float32(node.attributes.get("beta", 1.0)) * bias


def _elu(node: _Node, x: Array) -> Array:
    return np.where(x > 0, x, np.float32(node.attributes.get("alpha", 1.0)) * np.expm1(np.minimum(x, 0)))


def _leaky_relu(node: _Node, x: Array) -> Array:
    return np.where(x > 0, x, np.float32(node.attributes.get("alpha", 0.01)) * x)


_OPERATORS: dict[str, Callable[..., Array]] = {
    "Gemm": _gemm,
    "MatMul": lambda node, x, y: x @ y,
    "Add": lambda node, x, y: x + y,
    "Sub": lambda node, x, y: x - y,
    "Mul": lambda node, x, y: x * y,
    "Div": lambda node, x, y: x / y,
    "Relu": lambda node, x: np.maximum(x, 0),
    "Elu": _elu,
    "LeakyRelu": _leaky_relu,
    "Tanh": lambda node, x: np.tanh(x),
    "Sigmoid": lambda node, x: 1 / (1 + np.exp(-x)),
    "Identity": lambda node, x: x,
    "Flatten": lambda node, x: x.reshape(len(x), -1),
    "Concat": lambda node, *parts: np.concatenate(parts, axis=int(node.attributes["axis"])),
}


class NumpyBackend:
    """Runs a dense network, layer by layer.

    Raises:
        ConfigError: A layer is not dense; it is named.
        VerificationError: The file is damaged, or has other inputs and another output.
    """

    name = "numpy"

    def __init__(self, network: bytes, inputs: dict[str, ArraySpec], actions: int) -> None:
        try:
            self._nodes, self._weights, self._output = _read_graph(network)
        except _DAMAGE as error:
            raise VerificationError(f"this is not a whole ONNX file: {error}", "export it again") from error
        for node in self._nodes:
            if node.operator not in _OPERATORS:
                raise ConfigError(f"the numpy backend has no {node.operator}", "use --backend onnx")
        self._actions = actions
        empty = {name: np.zeros(spec.shape, np.float32) for name, spec in inputs.items()}
        try:
            self.infer(empty)
        except _DAMAGE as error:
            raise VerificationError(f"the network does not take {', '.join(inputs)}: {error}") from error

    def infer(self, inputs: Arrays) -> Array:
        """See `Backend.infer`."""
        tensors: dict[str, Any] = {**self._weights}
        tensors.update({name: array[None].astype(np.float32) for name, array in inputs.items()})
        for node in self._nodes:
            tensors[node.outputs[0]] = _OPERATORS[node.operator](node, *(tensors[name] for name in node.inputs))
        output = np.asarray(tensors[self._output], np.float32)
        if output.shape != (1, self._actions):
            raise VerificationError(f"the network gives {output.shape}, expected {(1, self._actions)}")
        return output[0]

    def close(self) -> None:
        """See `Backend.close`."""


# -- ONNX, as far as it is needed: https://protobuf.dev/programming-guides/encoding/ ------------


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message: numbers as int, everything else as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            yield key >> 3, data[at : at + size]
            at += size
        elif kind == 2:
            size, at = _varint(data, at)
            if size > len(data) - at:
                raise ValueError("a field is longer than the file")
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"field of kind {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _text(value: memoryview) -> str:
    return bytes(value).decode()


def _read_graph(network: bytes) -> tuple[list[_Node], dict[str, Array], str]:
    """Return nodes in order, weights by name, and the output's name."""
    graph = next((value for number, value in _fields(memoryview(network)) if number == 7), None)
    if graph is None:
        raise ValueError("no graph")
    nodes, weights, output = [], {}, ""
    for number, value in _fields(graph):
        if number == 1:
            nodes.append(_read_node(value))
        elif number == 5:
            name, tensor = _read_tensor(value)
            weights[name] = tensor
        elif number == 12:
            output = next(_text(part) for at, part in _fields(value) if at == 1)
    return nodes, weights, output


def _read_node(data: memoryview) -> _Node:
    node = _Node()
    for number, value in _fields(data):
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            node.outputs.append(_text(value))
        elif number == 4:
            node.operator = _text(value)
        elif number == 5:
            parts = dict(_fields(value))
            if 2 in parts:
                node.attributes[_text(parts[1])] = struct.unpack("<f", parts[2])[0]
            elif 3 in parts:
                node.attributes[_text(parts[1])] = float(parts[3])
    return node


def _read_tensor(data: memoryview) -> tuple[str, Array]:
    shape: list[int] = []
    name, kind, raw = "", _FLOAT, memoryview(b"")
    for number, value in _fields(data):
        if number == 1:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 2:
            kind = value
        elif number == 8:
            name = _text(value)
        elif number in (4, 9):  # float_data, packed, and raw_data are the same bytes
            raw = value
    if kind != _FLOAT or len(raw) != 4 * prod(shape):
        raise ValueError(f"tensor '{name}' is not float32 of its own shape")
    return name, np.frombuffer(raw, "<f4").reshape(shape)


def _packed(data: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        numbers.append(value)
    return numbers
