"""The squashed Gaussian: a = center + half_range * tanh(u), u ~ N(mean, std)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["entropy", "gaussian_kl", "gaussian_log_prob", "squash_correction", "unsquash"]


def gaussian_log_prob(sample: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return log N(sample; mean, exp(log_std)) summed over the last axis."""
    z = (sample - mean) * torch.exp(-log_std)
    return (-0.5 * z * z - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def squash_correction(sample: Tensor) -> Tensor:
    """Return log |d tanh(u) / du| summed over the last axis, stable for large u (SAC, 1812.05905 appendix C)."""
    return (2 * (math.log(2) - sample - functional.softplus(-2 * sample))).sum(-1)


def entropy(log_std: Tensor) -> Tensor:
    """Return the entropy of the Gaussian before tanh."""
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def unsquash(actions: Tensor, center: Tensor, half_range: Tensor, limit: float = 0.95) -> Tensor:
    """Return the shares of the action range, -limit..limit: the target of tanh(mean) when cloning.

    The edge of the range is infinitely far before tanh; targets stop short of it.
    """
    return ((actions - center) / half_range).clamp(-limit, limit)


def gaussian_kl(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """Return KL(N(mean, std) || N(other_mean, other_std)) of diagonal Gaussians, summed over the last axis."""
    squared = (mean - other_mean) ** 2 + torch.exp(2 * log_std)
    return (other_log_std - log_std + 0.5 * squared * torch.exp(-2 * other_log_std) - 0.5).sum(-1)
