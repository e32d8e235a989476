"""A foreign ONNX file under our names: the inputs of a profile, the mean before tanh, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from policyloop.convert.graph import drop_unused, prepare
from policyloop.core.features import feature_specs
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, UsageError, VerificationError

__all__ = ["AdoptedNetwork", "adopt_onnx"]

_MEAN = "mean"


@dataclass(frozen=True)
class AdoptedNetwork:
    """A network that a robot of some profile can run.

    Attributes:
        network: ONNX: the profile's features in, the mean before tanh out.
        inputs: The file's own names of its inputs, by the features' names.
        ended_in_tanh: The file applied tanh at its end; the runtime does that now.
    """

    network: bytes
    inputs: dict[str, str]
    ended_in_tanh: bool


def adopt_onnx(data: bytes, source: str, profile: RobotProfile, metadata: dict[str, str]) -> AdoptedNetwork:
    """Rename the input and the output of a network, and leave out a tanh at its end if the robot applies it.

    Args:
        data: The file.
        source: Where it comes from, for errors.
        profile: Of the robot.
        metadata: What the network shall say about itself, instead of what it says.

    Raises:
        VerificationError: It is not ONNX, or a weight is no number.
        IncompatibleError: It takes or gives something else than the profile; both are named. Or see `prepare`.
        UsageError: It was written by policyloop.
    """
    if "profile_digest" in prepare(data, allow_cpu=True).metadata:
        raise UsageError(f"{source} was exported by policyloop", "drive with it as it is: --policy FILE.onnx")
    model = shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True)
    graph = model.graph
    _check_numbers(graph, source)
    names = _match(graph, source, profile)
    ended_in_tanh = profile.action_map == "tanh" and _drop_last_tanh(graph)
    for ours, theirs in names.items():
        _rename(graph, theirs, ours)
    _name_output(graph, len(profile.action))
    del graph.value_info[:], model.metadata_props[:]
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return AdoptedNetwork(model.SerializeToString(deterministic=True), names, ended_in_tanh)


def _check_numbers(graph: onnx.GraphProto, source: str) -> None:
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise VerificationError(f"{source}: {tensor.name} holds NaN", "take an older checkpoint")


def _match(graph: onnx.GraphProto, source: str, profile: RobotProfile) -> dict[str, str]:
    """Return the file's names of the profile's features; a single input may have any name."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {info.name: _described(info) for info in graph.input if info.name not in constants}
    specs = {name: ("float32", (1, *spec.shape)) for name, spec in feature_specs(profile).items()}
    names = dict(zip(specs, inputs, strict=True)) if len(inputs) == len(specs) == 1 else {name: name for name in specs}
    output = _described(graph.output[0])
    actions = ("float32", (1, len(profile.action)))
    if {ours: inputs.get(theirs) for ours, theirs in names.items()} != specs or len(inputs) != len(specs):
        raise IncompatibleError(
            f"{source} takes {_listed(inputs)}; a robot of profile '{profile.name}' gives {_listed(specs)}",
            "export the network with these inputs, or give the profile that it was trained for",
        )
    if output != actions:
        raise IncompatibleError(
            f"{source} gives {_listed({graph.output[0].name: output})}; profile '{profile.name}' wants {actions[1]}",
            "give the profile that it was trained for",
        )
    return names


def _described(info: onnx.ValueInfoProto) -> tuple[str, tuple[int, ...]]:
    kind = info.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else "no tensor"
    return dtype, tuple(dim.dim_value for dim in kind.shape.dim)


def _listed(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"'{name}' {dtype} {shape}" for name, (dtype, shape) in tensors.items()) or "nothing"


def _drop_last_tanh(graph: onnx.GraphProto) -> bool:
    """Let the output be what the tanh at the end sees; False if there is none."""
    makers = {name: node for node in graph.node for name in node.output}
    last = makers.get(graph.output[0].name)
    while last is not None and last.op_type == "Identity":
        last = makers.get(last.input[0])
    if last is None or last.op_type != "Tanh":
        return False
    graph.output[0].name = last.input[0]
    drop_unused(graph)
    return True


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Call a tensor by another name; one that has that name already gets a longer one."""
    if old == new:
        return
    if new in _names(graph):
        longer = new + "_"
        while longer in _names(graph):
            longer += "_"
        _rename(graph, new, longer)
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for named in (*graph.input, *graph.output, *graph.initializer):
        if named.name == old:
            named.name = new


def _names(graph: onnx.GraphProto) -> set[str]:
    tensors = {name for node in graph.node for name in (*node.input, *node.output)}
    return tensors | {named.name for named in (*graph.input, *graph.output, *graph.initializer)}


def _name_output(graph: onnx.GraphProto, actions: int) -> None:
    """Hand the output out as `mean`."""
    if _MEAN in _names(graph):
        _rename(graph, _MEAN, "network_mean")
    inner = graph.output[0].name
    graph.node.append(helper.make_node("Identity", [inner], [_MEAN], name=_MEAN))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(_MEAN, TensorProto.FLOAT, (1, actions)))
