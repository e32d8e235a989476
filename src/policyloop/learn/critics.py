"""An ensemble of action values with layer normalisation, evaluated at once (RLPD, Ball et al., 2302.02948)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from policyloop.learn.networks import Features

__all__ = ["Critics", "critic_state"]


def critic_state(features: Features) -> Tensor:
    """Return what critics see of a state: the scan where there is a camera, and the proprioception, (n, size).

    No pictures: critics are asked many times for each step, and are never deployed.
    """
    return torch.cat([features[name] for name in ("scan", "proprio") if name in features], dim=1)


class Critics(nn.Module):
    """Independent critics Q(s, a), their weights stacked.

    Args:
        inputs: Length of state and action together.
        count: How many critics.
        width: Of their two hidden layers.
    """

    def __init__(self, inputs: int, count: int, width: int = 128) -> None:
        super().__init__()
        sizes = (inputs, width, width, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            bound = 1 / math.sqrt(fan_in)
            self.weights.append(nn.Parameter(torch.empty(count, fan_in, fan_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(count, 1, fan_out).uniform_(-bound, bound)))
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(count, 1, width)) for _ in range(2)])
        self.shifts = nn.ParameterList([nn.Parameter(torch.zeros(count, 1, width)) for _ in range(2)])

    def forward(self, state: Tensor, shares: Tensor) -> Tensor:
        """Return every critic's value of each action in its state, (critics, n)."""
        count = self.weights[0].shape[0]
        x = torch.cat([state, shares], dim=1).expand(count, -1, -1)
        for layer in range(2):
            x = torch.baddbmm(self.biases[layer], x, self.weights[layer])
            x = functional.layer_norm(x, x.shape[-1:]) * self.scales[layer] + self.shifts[layer]
            x = functional.relu(x)
        return torch.baddbmm(self.biases[2], x, self.weights[2])[:, :, 0]
