"""Actor-critic networks. All end in the mean of a Gaussian before tanh; tanh and scaling live outside the graph.

`original` is the network of the original documents, layer by layer. `spatial`, the default, keeps
*where* in the picture things are: pooling a picture to one vector, as `original` does, forgets it
and drives half as well (docs/benchmarks.md).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError

__all__ = [
    "ACTIVATIONS",
    "LOG_STD_BOUNDS",
    "SCAN_COLUMNS",
    "ActorCritic",
    "Features",
    "MlpNetwork",
    "OriginalNetwork",
    "SpatialNetwork",
    "make_network",
]

Features = dict[str, Tensor]
"""Network inputs by name, batched: see `policyloop.core.features`, plus `scan` for the critic."""

SCAN_COLUMNS = 32
"""Length of the critic's scan: nearest obstacle per sector of the picture, as inverse distance."""

LOG_STD_BOUNDS = (-5.0, 1.0)

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}
"""What may stand between the layers of an `MlpNetwork`, each as torch makes it without arguments."""


class ActorCritic(nn.Module):
    """A policy and its value function.

    Attributes:
        actor: Modules whose weights are deployed.
        log_std: Exploration of each action before tanh; the robot draws with it.
        convolution_dtype: What pictures are computed in; see `policyloop.learn.tuning`.
    """

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


class OriginalNetwork(ActorCritic):
    """The original network: two convolutional branches, fused and pooled to 128 numbers.

    RGB Conv(3,32,5,s2) Conv(32,64,3,s2); depth Conv(1,16,5,s2) Conv(16,32,3,s2); concat 96;
    Conv(96,128,3,s2) Conv(128,128,3,s2) AdaptiveAvgPool(1); proprio 6-64-64; concat 192-128-64-2
    and a value head 192-128-64-1. 321,986 parameters are deployed.
    """

    def __init__(self, profile: RobotProfile, *, initial_log_std: float) -> None:
        super().__init__()
        self.actor = nn.ModuleDict(
            {
                "rgb": nn.Sequential(nn.Conv2d(3, 32, 5, 2), nn.ReLU(), nn.Conv2d(32, 64, 3, 2), nn.ReLU()),
                "depth": nn.Sequential(nn.Conv2d(1, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU()),
                "fusion": nn.Sequential(
                    nn.Conv2d(96, 128, 3, 2), nn.ReLU(), nn.Conv2d(128, 128, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
                ),
                "proprio": nn.Sequential(nn.Linear(profile.proprio_size, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()),
                "head": nn.Sequential(
                    nn.Linear(192, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, len(profile.action))
                ),
            }
        )
        self.critic = nn.Sequential(nn.Linear(192, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.full((len(profile.action),), float(initial_log_std)))
        _start_near_zero(self.actor["head"])

    def _encode(self, features: Features) -> Tensor:
        actor = self.actor
        with self.convolving(features["rgb"].device):
            planes = torch.cat(
                [actor["rgb"](unit_range(features["rgb"])), actor["depth"](unit_range(features["depth"]))], dim=1
            )
            pooled = actor["fusion"](planes).flatten(1)
        return torch.cat([pooled.float(), actor["proprio"](features["proprio"])], dim=1)

    def mean(self, features: Features) -> Tensor:
        """See `ActorCritic.mean`."""
        mean: Tensor = self.actor["head"](self._encode(features))
        return mean

    def mean_and_value(self, features: Features) -> tuple[Tensor, Tensor]:
        """See `ActorCritic.mean_and_value`."""
        encoded = self._encode(features)
        return self.actor["head"](encoded), self.critic(encoded)[:, 0]

    def critic_parameters(self) -> list[nn.Parameter]:
        """See `ActorCritic.critic_parameters`."""
        return list(self.critic.parameters())


class SpatialNetwork(ActorCritic):
    """One convolutional trunk over RGB and depth, flattened without pooling; a critic of its own.

    Strided convolutions shrink any picture to a map at most 9 wide, so that a 64x36 and a 424x240
    camera get networks of the same kind. The critic sees a scan and the proprioception instead of
    pictures: it is cheap, and never deployed.
    """

    def __init__(self, profile: RobotProfile, *, initial_log_std: float) -> None:
        super().__init__()
        camera = profile.camera
        if camera is None:
            raise ConfigError(f"network 'spatial' needs a camera, profile '{profile.name}' has none", "use 'mlp'")
        layers: list[nn.Module] = [nn.Conv2d(4, 16, 5, 3, 2), nn.ReLU()]
        height, width = _strided(camera.height, 3), _strided(camera.width, 3)
        channels = 16
        while width > 9 or channels < 64:
            wider = min(64, channels * 2)
            layers += [nn.Conv2d(channels, wider, 3, 2, 1), nn.ReLU()]
            height, width, channels = _strided(height, 2), _strided(width, 2), wider
        self.actor = nn.ModuleDict(
            {
                "trunk": nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, 96), nn.ReLU()),
                "proprio": nn.Sequential(nn.Linear(profile.proprio_size, 32), nn.ReLU()),
                "head": nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, len(profile.action))),
            }
        )
        self.critic = _critic(SCAN_COLUMNS + profile.proprio_size)
        self.log_std = nn.Parameter(torch.full((len(profile.action),), float(initial_log_std)))
        _start_near_zero(self.actor["head"])

    def mean(self, features: Features) -> Tensor:
        """See `ActorCritic.mean`."""
        with self.convolving(features["rgb"].device):
            planes = unit_range(torch.cat([features["rgb"], features["depth"]], dim=1)) - 0.25
            seen = self.actor["trunk"](planes)
        encoded = [seen.float(), self.actor["proprio"](features["proprio"])]
        mean: Tensor = self.actor["head"](torch.cat(encoded, dim=1))
        return mean

    def value(self, features: Features) -> Tensor:
        """See `ActorCritic.value`."""
        value: Tensor = self.critic(torch.cat([features["scan"], features["proprio"]], dim=1))[:, 0]
        return value

    def mean_and_value(self, features: Features) -> tuple[Tensor, Tensor]:
        """See `ActorCritic.mean_and_value`."""
        return self.mean(features), self.value(features)

    def critic_parameters(self) -> list[nn.Parameter]:
        """See `ActorCritic.critic_parameters`."""
        return list(self.critic.parameters())


class MlpNetwork(ActorCritic):
    """A multi-layer perceptron on the proprioception vector, for robots without a camera.

    Args:
        profile: Lengths of observation and action.
        initial_log_std: Exploration at first.
        hidden_sizes: Width of each hidden layer of the actor.
        activation: A name in `ACTIVATIONS`.
        privileged_size: Length of the feature `privileged`, which only the critic sees; 0 = there is none.
    """

    def __init__(
        self,
        profile: RobotProfile,
        *,
        initial_log_std: float,
        hidden_sizes: tuple[int, ...] = (256, 128),
        activation: str = "relu",
        privileged_size: int = 0,
    ) -> None:
        super().__init__()
        sizes = (profile.proprio_size, *hidden_sizes)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
        self.actor = nn.ModuleDict({"head": nn.Sequential(*layers, nn.Linear(sizes[-1], len(profile.action)))})
        self.critic = _critic(profile.proprio_size + privileged_size)
        self._privileged = privileged_size > 0
        self.log_std = nn.Parameter(torch.full((len(profile.action),), float(initial_log_std)))
        _start_near_zero(self.actor["head"])

    def mean(self, features: Features) -> Tensor:
        """See `ActorCritic.mean`."""
        mean: Tensor = self.actor["head"](features["proprio"])
        return mean

    def value(self, features: Features) -> Tensor:
        """See `ActorCritic.value`."""
        seen = [features["proprio"], features["privileged"]] if self._privileged else [features["proprio"]]
        value: Tensor = self.critic(torch.cat(seen, dim=1))[:, 0]
        return value

    def mean_and_value(self, features: Features) -> tuple[Tensor, Tensor]:
        """See `ActorCritic.mean_and_value`."""
        return self.mean(features), self.value(features)

    def critic_parameters(self) -> list[nn.Parameter]:
        """See `ActorCritic.critic_parameters`."""
        return list(self.critic.parameters())


def _strided(size: int, stride: int) -> int:
    """Return the output size of a convolution padded by half its kernel."""
    return math.ceil(size / stride)


def _critic(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 1))


def _start_near_zero(head: nn.Module) -> None:
    """Shrink the last layer, so that an untrained policy starts at the middle of every action range."""
    assert isinstance(head, nn.Sequential)
    last = head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight *= 0.1
        last.bias.zero_()


def make_network(name: str, profile: RobotProfile, *, initial_log_std: float = -0.5) -> ActorCritic:
    """Build a network by name for a profile; weights come from torch's current random state."""
    if name == "spatial":
        return SpatialNetwork(profile, initial_log_std=initial_log_std)
    if name == "mlp":
        return MlpNetwork(profile, initial_log_std=initial_log_std)
    if name == "original":
        if profile.camera is None:
            raise ConfigError(f"network 'original' needs a camera, profile '{profile.name}' has none", "use 'mlp'")
        if min(profile.camera.width, profile.camera.height) < 33:  # four convolutions of stride 2 need this much
            raise ConfigError("network 'original' needs a picture of at least 33x33 pixels", "use 'spatial'")
        return OriginalNetwork(profile, initial_log_std=initial_log_std)
    raise ConfigError(f"no network '{name}'", "use spatial, original or mlp")
