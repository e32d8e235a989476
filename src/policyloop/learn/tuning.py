"""How an update runs on this machine: in which precision and layout, and how many steps at once.

None of it changes what is learned beyond rounding, and none of it is taken on trust: eight-bit-mantissa arithmetic is
twice as fast on one processor and ten times slower on another, so the real network is tried when the learner starts.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor

from policyloop.core.features import feature_specs
from policyloop.core.profile import RobotProfile
from policyloop.learn.networks import SCAN_COLUMNS, ActorCritic, Features

__all__ = ["Execution", "choose_execution", "made_up_features"]

log = logging.getLogger(__name__)

_ACTIVATION_BYTES = {"cpu": 256 << 20}
_GPU_ACTIVATION_BYTES = 2 << 30
"""What the gradient of one part of a minibatch may need; more makes nothing faster."""
_ROUNDS = 5
_GAIN = 0.85
"""A faster way is taken only if it needs less than this share of the time: what is chosen must not hang on noise."""
_HOPELESS = 2
"""A way that takes so many times as long as another is not tried again."""
_GRADIENT_ERROR = 0.1
"""The gradient of convolutions in bfloat16 may differ from that in float32 by this share of its length."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Execution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to run an update."""

    device: str = "cpu"
    """The kind of device that it was chosen on."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of convolutions; weights, and all that is no picture, are float32."""
    channels_last: bool = False
    """Weights of convolutions lie in memory pixel by pixel instead of plane by plane."""
    rows_at_once: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Steps whose gradient is computed at once; a minibatch is their sum. 0 = the whole minibatch."""

    def lay_out(self, network: ActorCritic) -> None:
        """Arrange the weights; before there is an optimiser, whose moments lie as they do."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)

    @contextmanager
    def applied_to(self, network: ActorCritic) -> Iterator[None]:
        """Compute in this precision for the moment; outside, as for export, everything is float32."""
        network.convolution_dtype = _DTYPES[self.precision]
        try:
            yield
        finally:
            network.convolution_dtype = torch.float32


def choose_execution(network: ActorCritic, profile: RobotProfile, minibatch: int, device: torch.device) -> Execution:
    """Try the ways to run an update and return the fastest.

    A network without convolutions has but one, so that nothing is tried. Weights and random state stay as they are.

    Args:
        network: As it will be trained, on its device.
        profile: Gives the shapes of what it sees.
        minibatch: Steps per minibatch.
        device: Where it trains.
    """
    plain = Execution(device=device.type)
    if profile.camera is None or not any(parameter.dim() == 4 for parameter in network.parameters()):
        return plain
    started_s = time.perf_counter()
    fitting = _fitting_rows(network, profile, device)
    features = made_up_features(profile, max(1, min(minibatch, fitting // 4)), device)
    ways = [
        msgspec.structs.replace(plain, channels_last=True),
        msgspec.structs.replace(plain, channels_last=True, precision="bfloat16"),
    ]
    trials = [_Trial(plain, network, features), *_possible(ways, network, features)]
    for _ in range(_ROUNDS):
        for trial in trials:
            trial.run()
        quickest_s = min(trial.seconds for trial in trials)
        trials = [trial for trial in trials if trial is trials[0] or trial.seconds < _HOPELESS * quickest_s]
    best = trials[0]
    for trial in trials[1:]:
        if trial.seconds < _GAIN * best.seconds and trial.distance_to(trials[0]) < _GRADIENT_ERROR:
            best = trial
    log.info(
        "updates on %s: %s, at most %d steps at once; %d steps took %s; tried for %.1f s",
        device.type,
        best.name,
        min(fitting, minibatch),
        len(features["proprio"]),
        ", ".join(f"{1e3 * trial.seconds:.1f} ms in {trial.name}" for trial in trials),
        time.perf_counter() - started_s,
    )
    return msgspec.structs.replace(best.way, rows_at_once=0 if fitting >= minibatch else fitting)


def made_up_features(profile: RobotProfile, rows: int, device: torch.device) -> Features:
    """Return random network inputs."""
    generator = torch.Generator().manual_seed(0)
    features: Features = {}
    if profile.camera is not None:
        features["scan"] = torch.rand((rows, SCAN_COLUMNS), generator=generator)
    for name, spec in feature_specs(profile).items():
        shape = (rows, *spec.shape)
        if spec.dtype == "uint8":
            features[name] = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        else:
            features[name] = torch.randn(shape, generator=generator)
    return {name: tensor.to(device) for name, tensor in features.items()}


def _fitting_rows(network: ActorCritic, profile: RobotProfile, device: torch.device) -> int:
    """Return the power of two of steps whose activations fit the budget."""
    needed = [_saved_bytes(network, made_up_features(profile, rows, device)) for rows in (1, 2)]
    rows = _ACTIVATION_BYTES.get(device.type, _GPU_ACTIVATION_BYTES) // max(1, needed[1] - needed[0])
    return 1 << max(0, rows.bit_length() - 1)


class _Trial:
    """One way, tried on a copy of the network; `seconds` is the least that a gradient took."""

    def __init__(self, way: Execution, network: ActorCritic, features: Features) -> None:
        self.way = way
        self.name = f"{way.precision}, channels {'last' if way.channels_last else 'first'}"
        self.seconds = math.inf
        self._network, self._features = copy.deepcopy(network), features
        way.lay_out(self._network)
        self._gradient()  # the first one is slower

    def run(self) -> None:
        now_s = time.process_time if self.way.device == "cpu" else time.perf_counter  # others may use the processor too
        started_s = now_s()
        self._gradient()
        self.seconds = min(self.seconds, now_s() - started_s)

    def distance_to(self, other: _Trial) -> float:
        """Return how far the gradients are apart, as a share of the other's length."""
        ours, theirs = self._gradient(), other._gradient()
        return float((ours - theirs).norm() / theirs.norm())

    def _gradient(self) -> Tensor:
        self._network.zero_grad(set_to_none=True)
        with self.way.applied_to(self._network):
            _some_loss(self._network, self._features).backward()
        gradients = [p.grad.flatten() for p in self._network.parameters() if p.dim() == 4 and p.grad is not None]
        result = torch.cat(gradients)
        result.norm().item()  # waits for the device
        return result


def _possible(ways: Sequence[Execution], network: ActorCritic, features: Features) -> Iterator[_Trial]:
    """Yield the ways that this device can go at all."""
    for way in ways:
        try:
            yield _Trial(way, network, features)
        except torch.AcceleratorError:
            raise
        except RuntimeError as error:
            log.info("updates on %s: no %s: %s", way.device, way.precision, str(error).partition("\n")[0])


def _some_loss(network: ActorCritic, features: Features) -> Tensor:
    mean, value = network.mean_and_value(features)
    return (mean.sum() + value.sum()) / len(value)


def _saved_bytes(network: ActorCritic, features: Features) -> int:
    """Return what a gradient keeps in memory until it is computed, weights included."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _some_loss(network, features)
    return sum(kept.values())
