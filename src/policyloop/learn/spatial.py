"""Networks that keep *where* in the picture things are: the last map is flattened, not pooled.

`spatial` sees RGB and depth; `depth` sees depth alone; `gray` sees brightness and depth.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError
from policyloop.learn.actor_critic import SCAN_COLUMNS, ActorCritic, Features, new_critic, start_near_zero, unit_range

__all__ = ["DepthNetwork", "GrayNetwork", "SpatialNetwork"]

_LUMA = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue: Y' of ITU-R BT.601, as in every JPEG. They add up to 1."""


class SpatialNetwork(ActorCritic):
    """One convolutional trunk over the pictures, flattened without pooling; a critic of its own.

    Strided convolutions shrink any picture to a map at most 9 wide, so that a 64x36 and a 424x240
    camera get networks of the same kind. The critic sees a scan and the proprioception instead of
    pictures: it is cheap, and never deployed.
    """

    inputs: tuple[str, ...] = ("rgb", "depth", "proprio")
    name = "spatial"
    planes = 4

    def __init__(self, profile: RobotProfile, *, initial_log_std: float) -> None:
        super().__init__()
        camera = profile.camera
        if camera is None:
            raise ConfigError(f"network '{self.name}' needs a camera, profile '{profile.name}' has none", "use 'mlp'")
        layers: list[nn.Module] = [nn.Conv2d(self.planes, 16, 5, 3, 2), nn.ReLU()]
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
        self.critic = new_critic(SCAN_COLUMNS + profile.proprio_size)
        self.log_std = nn.Parameter(torch.full((len(profile.action),), float(initial_log_std)))
        start_near_zero(self.actor["head"])

    def mean(self, features: Features) -> Tensor:
        """See `ActorCritic.mean`."""
        with self.convolving(features["depth"].device):
            trunk = self.actor["trunk"](unit_range(self._seen(features)) - 0.25)
        encoded = [trunk.float(), self.actor["proprio"](features["proprio"])]
        mean: Tensor = self.actor["head"](torch.cat(encoded, dim=1))
        return mean

    def _seen(self, features: Features) -> Tensor:
        """Return the planes that the trunk looks at, 0..255, (n, planes, H, W)."""
        return torch.cat([features["rgb"], features["depth"]], dim=1)

    def deployed_trunk(self) -> nn.Sequential:
        """Return the trunk as it is exported: it takes the pictures in `inputs` as they are."""
        trunk = self.actor["trunk"]
        assert isinstance(trunk, nn.Sequential)
        return trunk

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


class DepthNetwork(SpatialNetwork):
    """Sees depth alone: no colour of a floor or a lamp can mislead it."""

    inputs = ("depth", "proprio")
    name = "depth"
    planes = 1

    def _seen(self, features: Features) -> Tensor:
        return features["depth"]


class GrayNetwork(SpatialNetwork):
    """Sees brightness and depth: edges and shadows, but no colour.

    A robot still feeds it RGB. Brightness is linear, so the deployed network has its weights inside the
    first convolution: no layer more, and nothing more to round in INT8, than `spatial`.
    """

    name = "gray"
    planes = 2

    def _seen(self, features: Features) -> Tensor:
        rgb = features["rgb"].float()
        luma = (rgb * rgb.new_tensor(_LUMA).reshape(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        return torch.cat([luma, features["depth"].float()], dim=1)

    def deployed_trunk(self) -> nn.Sequential:
        """See `SpatialNetwork.deployed_trunk`."""
        trunk = copy.deepcopy(super().deployed_trunk())
        first = trunk[0]
        assert isinstance(first, nn.Conv2d)
        luma = first.weight.new_tensor(_LUMA).reshape(1, 3, 1, 1)
        first.weight = nn.Parameter(torch.cat([first.weight[:, :1] * luma, first.weight[:, 1:]], dim=1))
        return trunk


def _strided(size: int, stride: int) -> int:
    """Return the output size of a convolution padded by half its kernel."""
    return math.ceil(size / stride)
