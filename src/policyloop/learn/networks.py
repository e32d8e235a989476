"""Actor-critic networks. All end in the mean of a Gaussian before tanh; tanh and scaling live outside the graph.

`original` is the network of the original documents, layer by layer. `spatial`, the default, and its
kin `depth` and `gray` keep *where* in the picture things are: pooling a picture to one vector, as
`original` does, forgets it and drives half as well (docs/benchmarks.md). `mlp` sees no picture.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError
from policyloop.learn.actor_critic import (
    LOG_STD_BOUNDS,
    SCAN_COLUMNS,
    ActorCritic,
    Features,
    NetworkSettings,
    new_critic,
    start_near_zero,
    unit_range,
)
from policyloop.learn.spatial import DepthNetwork, GrayNetwork, SpatialNetwork

__all__ = [
    "ACTIVATIONS",
    "LOG_STD_BOUNDS",
    "SCAN_COLUMNS",
    "ActorCritic",
    "DepthNetwork",
    "Features",
    "GrayNetwork",
    "MlpNetwork",
    "NetworkSettings",
    "OriginalNetwork",
    "SpatialNetwork",
    "make_network",
]

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


class OriginalNetwork(ActorCritic):
    """The original network: two convolutional branches, fused and pooled to 128 numbers.

    RGB Conv(3,32,5,s2) Conv(32,64,3,s2); depth Conv(1,16,5,s2) Conv(16,32,3,s2); concat 96;
    Conv(96,128,3,s2) Conv(128,128,3,s2) AdaptiveAvgPool(1); proprio 6-64-64; concat 192-128-64-2
    and a value head 192-128-64-1. 321,986 parameters are deployed.
    """

    inputs = ("rgb", "depth", "proprio")

    def __init__(self, profile: RobotProfile, *, initial_log_std: float) -> None:
        super().__init__()
        camera = profile.camera
        if camera is None:
            raise ConfigError(f"network 'original' needs a camera, profile '{profile.name}' has none", "use 'mlp'")
        if min(camera.width, camera.height) < 33:  # four convolutions of stride 2 need this much
            raise ConfigError("network 'original' needs a picture of at least 33x33 pixels", "use 'spatial'")
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
        start_near_zero(self.actor["head"])

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


class MlpNetwork(ActorCritic):
    """A multi-layer perceptron on the proprioception vector, for robots without a camera.

    Args:
        profile: Lengths of observation and action.
        initial_log_std: Exploration at first.
        settings: Widths and activation of the actor, and what the critic sees beside the actor's input.

    Raises:
        ConfigError: There is no such activation.
    """

    inputs = ("proprio",)

    def __init__(
        self, profile: RobotProfile, *, initial_log_std: float, settings: NetworkSettings | None = None
    ) -> None:
        super().__init__()
        self.settings = settings = settings or NetworkSettings()
        activation = ACTIVATIONS.get(settings.activation)
        if activation is None:
            raise ConfigError(f"no activation '{settings.activation}'", f"use one of {', '.join(ACTIVATIONS)}")
        sizes = (profile.proprio_size, *settings.hidden_sizes)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), activation()]
        self.actor = nn.ModuleDict({"head": nn.Sequential(*layers, nn.Linear(sizes[-1], len(profile.action)))})
        self.critic = new_critic(profile.proprio_size + settings.privileged_size)
        self.log_std = nn.Parameter(torch.full((len(profile.action),), float(initial_log_std)))
        start_near_zero(self.actor["head"])

    def mean(self, features: Features) -> Tensor:
        """See `ActorCritic.mean`."""
        mean: Tensor = self.actor["head"](features["proprio"])
        return mean

    def value(self, features: Features) -> Tensor:
        """See `ActorCritic.value`."""
        seen = [features["proprio"]]
        if self.settings.privileged_size:
            seen.append(features["privileged"])
        value: Tensor = self.critic(torch.cat(seen, dim=1))[:, 0]
        return value

    def mean_and_value(self, features: Features) -> tuple[Tensor, Tensor]:
        """See `ActorCritic.mean_and_value`."""
        return self.mean(features), self.value(features)

    def critic_parameters(self) -> list[nn.Parameter]:
        """See `ActorCritic.critic_parameters`."""
        return list(self.critic.parameters())


_FOR_PICTURES: dict[str, type[SpatialNetwork | OriginalNetwork]] = {
    "spatial": SpatialNetwork,
    "depth": DepthNetwork,
    "gray": GrayNetwork,
    "original": OriginalNetwork,
}


def make_network(
    name: str, profile: RobotProfile, *, initial_log_std: float = -0.5, settings: NetworkSettings | None = None
) -> ActorCritic:
    """Build a network by name for a profile; weights come from torch's current random state.

    Args:
        name: spatial, depth, gray, original or mlp.
        profile: What the robot senses and does.
        initial_log_std: Exploration at first.
        settings: What the name leaves open; None = the defaults.

    Raises:
        ConfigError: There is no such network, or it does not go with the profile or the settings.
    """
    if name == "mlp":
        return MlpNetwork(profile, initial_log_std=initial_log_std, settings=settings)
    if name not in _FOR_PICTURES:
        raise ConfigError(f"no network '{name}'", f"use {', '.join(_FOR_PICTURES)} or mlp")
    if settings not in (None, NetworkSettings()):
        raise ConfigError(f"network '{name}' has no widths and activations to choose", "use 'mlp'")
    return _FOR_PICTURES[name](profile, initial_log_std=initial_log_std)
