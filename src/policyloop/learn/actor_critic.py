"""What every network is: an actor, whose weights are deployed, and a critic that only training needs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn

__all__ = [
    "LOG_STD_BOUNDS",
    "SCAN_COLUMNS",
    "ActorCritic",
    "Features",
    "NetworkSettings",
    "new_critic",
    "start_near_zero",
    "unit_range",
]

Features = dict[str, Tensor]
"""Network inputs by name, batched: see `policyloop.core.features`, plus `scan` for the critic."""

SCAN_COLUMNS = 32
"""Length of the critic's scan: nearest obstacle per sector of the picture, as inverse distance."""

LOG_STD_BOUNDS = (-5.0, 1.0)

_Width = Annotated[int, msgspec.Meta(ge=1, le=8192)]


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a network's name leaves open; with name and profile it builds the network of a checkpoint again."""

    hidden_sizes: Annotated[tuple[_Width, ...], msgspec.Meta(max_length=16)] = (256, 128)
    """Width of each hidden layer of an `mlp`'s actor."""
    activation: str = "relu"
    """What stands between them: a name in `networks.ACTIVATIONS`."""
    privileged_size: Annotated[int, msgspec.Meta(ge=0, le=8192)] = 0
    """Length of the feature `privileged`, which only the critic sees; 0 = there is none."""


class ActorCritic(nn.Module):
    """A policy and its value function.

    Attributes:
        actor: Modules whose weights are deployed.
        log_std: Exploration of each action before tanh; the robot draws with it.
        inputs: The features that the actor looks at, in the order of the exported network's inputs.
        settings: Rebuild it, with its name and profile.
        convolution_dtype: What pictures are computed in; see `policyloop.learn.tuning`.
    """

    inputs: tuple[str, ...]
    settings: NetworkSettings = NetworkSettings()
    actor: nn.ModuleDict
    log_std: nn.Parameter
    convolution_dtype: torch.dtype = torch.float32

    def mean(self, features: Features) -> Tensor:
        """Return the mean of the Gaussian before tanh, (n, actions)."""
        raise NotImplementedError

    def mean_and_value(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return `mean` and the value of each state, (n, actions) and (n,)."""
        raise NotImplementedError

    def value(self, features: Features) -> Tensor:
        """Return the value of each state, (n,)."""
        return self.mean_and_value(features)[1]

    def critic_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that only the value function uses."""
        raise NotImplementedError

    def actor_parameters(self) -> list[nn.Parameter]:
        """Return all the others."""
        critic = {id(parameter) for parameter in self.critic_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in critic]

    def convolving(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which pictures are computed in `convolution_dtype`."""
        if self.convolution_dtype is torch.float32:
            return nullcontext()
        return torch.autocast(device.type, self.convolution_dtype)


def unit_range(picture: Tensor) -> Tensor:
    """Map uint8 picture planes to float in 0..1."""
    return picture.float() * (1 / 255)


def new_critic(inputs: int) -> nn.Sequential:
    """Return the value function of a vector of so many numbers."""
    return nn.Sequential(nn.Linear(inputs, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 1))


def start_near_zero(head: nn.Module) -> None:
    """Shrink the last layer, so that an untrained policy starts at the middle of every action range."""
    assert isinstance(head, nn.Sequential)
    last = head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight *= 0.1
        last.bias.zero_()
