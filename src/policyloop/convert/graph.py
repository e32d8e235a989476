"""Any ONNX file -> one that the vendor's converter can take, or an error that says why not."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from policyloop.convert.operators import CPU_OPERATORS, MAX_OPSET, remedy, unsupported
from policyloop.errors import IncompatibleError, VerificationError

__all__ = ["NetworkInput", "PreparedNetwork", "drop_unused", "prepare"]

_MAX_BYTES = 512 << 20


@dataclass(frozen=True)
class NetworkInput:
    """One input, as the converter must know it: it sees `(x - mean) / std`, channel by channel.

    Attributes:
        shape: With the batch axis, NCHW for pictures.
        mean, std: One number per channel; 0 and 1 where nothing is folded.
        dtype: What a robot feeds: pictures are uint8, vectors float32.
    """

    name: str
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str

    @property
    def is_picture(self) -> bool:
        """It has height and width."""
        return len(self.shape) == 4


@dataclass(frozen=True)
class PreparedNetwork:
    """A network that passed the checks.

    Attributes:
        original: The file as it came.
        folded: The same network with the scaling of its inputs taken out: see `NetworkInput`.
        actions: Length of its output.
        head: Outputs of the layers after the last join of branches, the least forgiving ones.
        macs: Multiplications with addition per inference.
        weights: Number of weights.
        metadata: What its exporter wrote into it.
    """

    original: bytes
    folded: bytes
    inputs: tuple[NetworkInput, ...]
    actions: int
    head: tuple[str, ...]
    macs: int
    weights: int
    metadata: dict[str, str]

    @property
    def has_pictures(self) -> bool:
        """One of its inputs is a picture."""
        return any(entry.is_picture for entry in self.inputs)


def prepare(data: bytes, *, allow_cpu: bool = False) -> PreparedNetwork:
    """Check a network and make it ready for the vendor's converter.

    Args:
        data: ONNX, one file.
        allow_cpu: Accept operators that run on the board's CPU.

    Raises:
        VerificationError: It is not ONNX.
        IncompatibleError: Operator set, shapes or an operator that RK3588 cannot take; the remedy is named.
    """
    model = _parse(data)
    _check_opset(model)
    _check_operators(model, allow_cpu)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    shapes = _shapes(model)
    folded, scaling = _fold_scaling(model)
    folded = _slim(folded)
    names = [node.name for node in model.graph.input if node.name not in {t.name for t in model.graph.initializer}]
    ours = "profile_digest" in metadata
    inputs = tuple(_input(name, shapes[name], *scaling.get(name, (None, None)), ours=ours) for name in names)
    output = model.graph.output[0].name
    return PreparedNetwork(
        original=data,
        folded=folded.SerializeToString(deterministic=True),
        inputs=inputs,
        actions=prod(shapes[output]),
        head=_head(folded),
        macs=_macs(model, shapes),
        weights=sum(prod(tensor.dims) for tensor in model.graph.initializer),
        metadata=metadata,
    )


def _parse(data: bytes) -> onnx.ModelProto:
    if len(data) > _MAX_BYTES:
        raise VerificationError(f"the network is larger than {_MAX_BYTES >> 20} MB")
    try:
        model = onnx.load_from_string(data)
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise IncompatibleError("the network keeps its weights in another file", "export with external_data=False")
        onnx.checker.check_model(model, full_check=True)
    except (DecodeError, onnx.checker.ValidationError, shape_inference.InferenceError, ValueError) as error:
        raise VerificationError(f"this is not a whole ONNX file: {_first_line(error)}", "export it again") from error
    if len(model.graph.output) != 1:
        raise IncompatibleError(f"the network has {len(model.graph.output)} outputs", "export the policy's mean alone")
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_opset(model: onnx.ModelProto) -> None:
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset > MAX_OPSET:
        raise IncompatibleError(
            f"the network is of opset {opset}, the vendor's converter takes {MAX_OPSET} at most",
            f"export it with opset_version={MAX_OPSET}; torch's default is newer, and its exporter may raise it again",
        )


def _check_operators(model: onnx.ModelProto, allow_cpu: bool) -> None:
    lacking = unsupported(node.op_type for node in model.graph.node)
    if allow_cpu:
        lacking = [name for name in lacking if name not in CPU_OPERATORS]
    if not lacking:
        return
    first = lacking[0]
    where = next(node.name or node.output[0] for node in model.graph.node if node.op_type == first)
    what = "would run on the board's CPU, not on the NPU" if first in CPU_OPERATORS else "is not known to run on RK3588"
    others = f"; also {', '.join(lacking[1:])}" if lacking[1:] else ""
    allow = ", or allow it: --allow-cpu" if first in CPU_OPERATORS else ""
    raise IncompatibleError(f"operator {first} ({where}) {what}{others}", remedy(first) + allow)


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return every tensor's shape; IncompatibleError if one is not fixed."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    graph = inferred.graph
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for info in (*graph.input, *graph.output, *graph.value_info):
        dims = info.type.tensor_type.shape.dim
        if any(not dim.HasField("dim_value") or dim.dim_value < 1 for dim in dims):
            found = ", ".join(dim.dim_param or str(dim.dim_value) for dim in dims)
            raise IncompatibleError(
                f"tensor '{info.name}' has the shape ({found}), which is not fixed",
                "export with a batch of 1 and without dynamic axes",
            )
        shapes[info.name] = tuple(dim.dim_value for dim in dims)
    for info in graph.input:
        if info.name in shapes and shapes[info.name][:1] not in ((1,), ()):
            raise IncompatibleError(f"input '{info.name}' has a batch of {shapes[info.name][0]}", "export a batch of 1")
    return shapes


def _input(name: str, shape: tuple[int, ...], scale: Any | None, offset: Any | None, *, ours: bool) -> NetworkInput:
    channels = shape[1] if len(shape) > 1 else 1
    if scale is None:
        mean, std = np.zeros(channels), np.ones(channels)
    else:
        # x * scale + offset = (x - mean) / std
        std = np.broadcast_to(1 / np.asarray(scale, np.float64).reshape(-1), (channels,))
        mean = np.broadcast_to(-np.asarray(offset, np.float64).reshape(-1), (channels,)) * std
    picture = len(shape) == 4
    return NetworkInput(
        name,
        shape,
        tuple(np.round(mean, 9).tolist()),
        tuple(np.round(std, 9).tolist()),
        "uint8" if picture and ours else "float32",
    )


def _fold_scaling(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, tuple[Any, Any]]]:
    """Take `x * scale + offset` off each picture: the NPU's input stage does that for nothing."""
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scaling: dict[str, tuple[Any, Any]] = {}
    for info in graph.input:
        if len(info.type.tensor_type.shape.dim) != 4:
            continue  # for vectors the toolkit ignores mean and std, without a word
        scale, after = _scalar_operand(graph, constants, info.name, "Mul")
        if scale is None:
            continue
        offset, end = _scalar_operand(graph, constants, after, "Add")
        scaling[info.name] = (scale, np.zeros(1) if offset is None else offset)
        _bypass(graph, info.name, end if offset is not None else after)
    drop_unused(graph)
    return folded, scaling


def _scalar_operand(
    graph: onnx.GraphProto, constants: dict[str, NDArray[Any]], tensor: str, operator: str
) -> tuple[NDArray[Any] | None, str]:
    """Return (constant, output) if the only thing done to `tensor` is `operator` with one number."""
    users = [node for node in graph.node if tensor in node.input]
    if len(users) != 1 or users[0].op_type != operator:
        return None, ""
    others = [name for name in users[0].input if name != tensor]
    if len(others) != 1 or others[0] not in constants or constants[others[0]].size != 1:
        return None, ""
    return constants[others[0]], users[0].output[0]


def _bypass(graph: onnx.GraphProto, start: str, end: str) -> None:
    """Let everybody who reads `end` read `start`."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == end:
                node.input[index] = start


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants that nothing depends on any more."""
    needed = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)


def _slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify; names of tensors that stay are kept."""
    import onnxslim

    slimmed: onnx.ModelProto = onnxslim.slim(model)
    for node in slimmed.graph.node:
        # The converter trips over a default that is not written out.
        if node.op_type == "LayerNormalization" and not any(entry.name == "epsilon" for entry in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("epsilon", 1e-5))
    return slimmed


def _head(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the outputs of what follows the last Concat; without one, of the last two layers with weights."""
    nodes = list(model.graph.node)
    joins = [index for index, node in enumerate(nodes) if node.op_type == "Concat"]
    layers = [index for index, node in enumerate(nodes) if node.op_type in ("Gemm", "MatMul", "Conv")]
    start = joins[-1] if joins else (layers[-2] if len(layers) > 1 else 0)
    return tuple(output for node in nodes[start:] for output in node.output)


def _macs(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> int:
    total = 0
    for node in model.graph.node:
        output = shapes.get(node.output[0], ())
        if node.op_type == "Conv":
            total += prod(output) * prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            transposed = any(entry.name == "transA" and entry.i for entry in node.attribute)
            total += prod(output) * shapes[node.input[0]][-2 if transposed else -1]
    return total
