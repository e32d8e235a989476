"""Where the layers of a described perceptron are among the tensors of a foreign file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from torch import Tensor, nn

from policyloop.convert.mlp_description import MlpDescription
from policyloop.convert.pt_file import PtFile
from policyloop.errors import IncompatibleError, VerificationError

__all__ = ["MlpLayers", "find_layers"]

_SHOWN = 3
_TRUNKS_AND_HEADS = (("mlp_extractor.policy_net", "action_net"), ("actor.latent_pi", "actor.mu"))
"""Where stable-baselines3 has the hidden layers and the last one: PPO and A2C, SAC."""


@dataclass(frozen=True)
class MlpLayers:
    """Tensors that make a perceptron.

    Attributes:
        prefix: What their names begin with, up to and with the last dot; may be empty.
        weights: Names of the weights, first layer first.
    """

    prefix: str
    weights: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of weights and biases, layer by layer."""
        return tuple(name for weight in self.weights for name in (weight, _bias(weight)))

    def copy_into(self, sequence: nn.Sequential, tensors: dict[str, Tensor]) -> None:
        """Give these weights to the linear layers of `sequence`, in order, as float32."""
        linear = [layer for layer in sequence if isinstance(layer, nn.Linear)]
        for layer, weight in zip(linear, self.weights, strict=True):
            layer.load_state_dict({"weight": tensors[weight].float(), "bias": tensors[_bias(weight)].float()})


def find_layers(file: PtFile, source: str, wanted: MlpDescription, *, strict: bool) -> MlpLayers:
    """Find the layers of `wanted` by the order and the shapes of the linear layers below a common prefix.

    Args:
        file: What was read.
        source: Where from, for errors.
        wanted: The description.
        strict: Refuse a file that holds anything else.

    Raises:
        IncompatibleError: A tensor is missing, has another shape or is left over; it is named. Or two networks fit.
        VerificationError: A weight is no number.
    """
    candidates = _candidates(file.tensors, wanted.prefix)
    misfits = {layers: _misfit(layers, file.tensors, wanted) for layers in candidates}
    fitting = [layers for layers, problem in misfits.items() if not problem]
    if not misfits:
        raise IncompatibleError(
            f"{source} holds no linear layers{f' below {wanted.prefix}' if wanted.prefix else ''}: {_listed(file)}",
            "give the state dict of a multi-layer perceptron",
        )
    if not fitting:
        nearest = min(misfits, key=lambda layers: _distance(layers, file.tensors, wanted))
        raise IncompatibleError(f"{source}: {misfits[nearest]}", "correct the description, or give the file it is of")
    if len(fitting) > 1:
        both = " and ".join(f"'{layers.prefix.rstrip('.')}'" for layers in fitting[:2])
        raise IncompatibleError(f"{source}: {both} both fit the description", "say which one it is: prefix: ...")
    _check_left_over(fitting[0], file, source, strict=strict)
    _check_numbers(fitting[0], file.tensors, source)
    return fitting[0]


def _candidates(tensors: dict[str, Tensor], prefix: str) -> list[MlpLayers]:
    """Return the linear layers below each prefix; of prefixes with the same layers, the longest."""
    weights = [name for name, tensor in tensors.items() if _is_weight(name) and tensor.ndim == 2]
    root = f"{prefix.rstrip('.')}." if prefix else ""
    prefixes = {root: None}  # a set that keeps the order of the file
    for name in weights:
        parts = name.split(".")[:-1]
        prefixes |= {".".join(parts[:count]) + ".": None for count in range(1, len(parts))}
    found: dict[frozenset[str], MlpLayers] = {}
    for trunk, head in _TRUNKS_AND_HEADS:
        below = [name for name in weights if name.startswith(f"{trunk}.")]
        if below and f"{head}.weight" in weights and trunk.startswith(prefix):
            found[frozenset({*below, head})] = MlpLayers(f"{trunk}.", (*_ordered(below, f"{trunk}."), f"{head}.weight"))
    for begin in sorted(prefixes, key=len):
        below = [name for name in weights if name.startswith(begin)]
        if below and begin.startswith(root):
            found[frozenset(below)] = MlpLayers(begin, _ordered(below, begin))
    return list(found.values())


def _is_weight(name: str) -> bool:
    return name.rpartition(".")[2] == "weight"


def _bias(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _ordered(weights: list[str], prefix: str) -> tuple[str, ...]:
    """Order numbered layers by their numbers, named ones as in the file."""
    numbers = [name.removeprefix(prefix).split(".")[0] for name in weights]
    if all(number.isdecimal() for number in numbers):
        weights = [name for _, name in sorted(zip(map(int, numbers), weights, strict=True))]
    return tuple(weights)


def _misfit(layers: MlpLayers, tensors: dict[str, Tensor], wanted: MlpDescription) -> str:
    """Return the first thing that does not fit, naming the tensor; empty if nothing."""
    expected = wanted.weight_shapes
    for index, shape in enumerate(expected):
        if index == len(layers.weights):
            return (
                f"layer {index + 1} of {len(expected)}, weight {shape}, is missing: "
                f"'{layers.prefix}*' ends with {layers.weights[-1]}"
            )
        weight = layers.weights[index]
        for name, size in ((weight, shape), (_bias(weight), shape[:1])):
            if name not in tensors:
                return f"{name} is missing, the description wants {size}"
            if tuple(tensors[name].shape) != size:
                return f"{name} has shape {tuple(tensors[name].shape)}, the description wants {size}"
    if len(layers.weights) > len(expected):
        extra = layers.weights[len(expected)]
        return f"{extra} {tuple(tensors[extra].shape)} is one layer more than the {len(expected)} of the description"
    return ""


def _distance(layers: MlpLayers, tensors: dict[str, Tensor], wanted: MlpDescription) -> int:
    """Return how many layers do not fit."""
    shapes = [tuple(tensors[name].shape) for name in layers.weights]
    return sum(found != shape for found, shape in zip_longest(shapes, wanted.weight_shapes))


def _check_left_over(layers: MlpLayers, file: PtFile, source: str, *, strict: bool) -> None:
    """Refuse what the description leaves out; between the layers even if it may be left out elsewhere."""
    left = [name for name in file.tensors if name not in layers.names]
    between = [name for name in left if name.startswith(layers.prefix) and name.rpartition(".")[0] != ""]
    between = [name for name in between if name.rpartition(".")[2] in ("weight", "bias", "running_mean")]
    if between:
        raise IncompatibleError(
            f"{source}: {between[0]} {tuple(file.tensors[between[0]].shape)} stands among the layers, "
            "and the description has no such layer",
            "only plain perceptrons can be described; export others as ONNX",
        )
    if strict and (left or file.others):
        raise IncompatibleError(
            f"{source} holds more than the description: {_listed(file, left)}",
            "leave that out: --no-strict; but statistics of observations belong into --obs-stats",
        )


def _check_numbers(layers: MlpLayers, tensors: dict[str, Tensor], source: str) -> None:
    for name in layers.names:
        tensor = tensors[name]
        if not tensor.is_floating_point():
            raise VerificationError(f"{source}: {name} is of {tensor.dtype}, not of floating-point numbers")
        if not tensor.float().isfinite().all():
            raise VerificationError(f"{source}: {name} is not finite", "take an older checkpoint")


def _listed(file: PtFile, names: list[str] | None = None) -> str:
    chosen = list(file.tensors) if names is None else names
    found = [f"{name} {tuple(file.tensors[name].shape)}" for name in chosen] + list(file.others)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (", ".join(found[:_SHOWN]) or "nothing") + more
