"""Statistics of observations that a trainer keeps in its checkpoint, beside the network or in it (row S29).

They are a layer of the network in all but name: left out, the policy is another one. rsl_rl has them as
`EmpiricalNormalization`, in `obs_norm_state_dict` up to version 2, as `actor_obs_normalizer` in 3, as `obs_normalizer`
since 4 and as `normalizer` in what Isaac Lab exports; it divides by the deviation plus 0.01 in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from policyloop.convert.pt_file import PtFile
from policyloop.errors import IncompatibleError

__all__ = ["TrainedStatistics", "take_trained_statistics"]

_PARTS = ("_mean", "_std", "_var", "count")
_RSL_RL_EPSILON = 1e-2
_OTHERS = ("critic", "privileged", "teacher")
"""In the names of what a critic or a teacher sees."""
_REMEDY = "write the mean and the std that it trained with into an .npz, and give it with --obs-stats"


class TrainedStatistics(msgspec.Struct, frozen=True):
    """What a normaliser in a checkpoint does: (x - mean) / std, each (n,).

    Attributes:
        name: What its tensors' names begin with.
    """

    name: str
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def take_trained_statistics(file: PtFile, source: str, size: int) -> tuple[TrainedStatistics | None, PtFile]:
    """Return the policy's statistics of observations, if the file holds any, and the file without them.

    Args:
        file: What was read.
        source: Where from, for errors.
        size: Length of the policy's observation.

    Raises:
        IncompatibleError: They are of another length, several fit, or they are of a form that is not known.
    """
    found = {name: file.tensors[f"{name}_std"] for name in _normalizers(file.tensors)}
    fitting = [name for name, std in found.items() if std.numel() == size]
    if found and not fitting:
        name, std = next(iter(found.items()))
        raise IncompatibleError(f"{source}: {name}_std has {std.numel()} numbers, the description has {size}", _REMEDY)
    if len(fitting) > 1:
        raise IncompatibleError(f"{source}: {fitting[0]}* and {fitting[1]}* may both be its statistics", _REMEDY)
    taken = {f"{name}{part}" for name in fitting for part in _PARTS}
    rest = {name: tensor for name, tensor in file.tensors.items() if name not in taken}
    _check_no_others(rest, source, size)
    if not fitting:
        return None, file
    average, deviation = (_vector(file.tensors[f"{fitting[0]}{part}"]) for part in ("_mean", "_std"))
    return TrainedStatistics(fitting[0].rstrip("."), average, deviation + _RSL_RL_EPSILON), PtFile(rest, file.others)


def _normalizers(tensors: dict[str, Tensor]) -> list[str]:
    """Return the prefixes of rsl_rl's normalisers, but for those of critics and teachers."""
    prefixes = [name.removesuffix("_mean") for name in _policys(tensors) if name.rpartition(".")[2] == "_mean"]
    return [prefix for prefix in prefixes if f"{prefix}_std" in tensors]


def _check_no_others(tensors: dict[str, Tensor], source: str, size: int) -> None:
    """Refuse a mean of as many numbers as the policy observes: something normalised them."""
    for name in _policys(tensors):
        if "mean" in name.rpartition(".")[2] and tensors[name].numel() == size:
            raise IncompatibleError(f"{source}: {name} looks like statistics of its observations", _REMEDY)


def _policys(names: Iterable[str]) -> list[str]:
    return [name for name in names if not any(other in name for other in _OTHERS)]


def _vector(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().numpy().reshape(-1)
