"""The squashed Gaussian against torch's own distributions and against paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from policyloop.learn.distribution import entropy, gaussian_log_prob, squash_correction, unsquash


def test_log_density_is_that_of_a_diagonal_normal() -> None:
    torch.manual_seed(0)
    sample, mean, log_std = torch.randn(50, 3), torch.randn(50, 3), torch.rand(3) * 4 - 3
    expected = Normal(mean, log_std.exp()).log_prob(sample).sum(-1)
    assert torch.allclose(gaussian_log_prob(sample, mean, log_std), expected, rtol=1e-5, atol=1e-5)


def test_log_density_at_the_mean_of_a_unit_normal() -> None:
    zero = torch.zeros(1, 2)
    assert gaussian_log_prob(zero, zero, torch.zeros(2)).item() == pytest.approx(-math.log(2 * math.pi))


def test_squash_correction_is_the_jacobian_of_tanh() -> None:
    sample = torch.linspace(-8, 8, 41, dtype=torch.float64)[:, None]
    expected = TanhTransform().log_abs_det_jacobian(sample, torch.tanh(sample)).sum(-1)
    assert torch.allclose(squash_correction(sample), expected)


def test_squash_correction_sums_over_the_actions() -> None:
    # d tanh(0)/du = 1; d tanh(1)/du = 1 - tanh(1)^2
    expected = math.log(1 - math.tanh(1) ** 2)
    assert squash_correction(torch.tensor([0.0, 1.0])).item() == pytest.approx(expected, abs=1e-6)


def test_squash_correction_stays_finite_where_tanh_saturates() -> None:
    # for large |u|: log(1 - tanh(u)^2) -> 2 log 2 - 2 |u|
    assert squash_correction(torch.tensor([[50.0], [-50.0]])).tolist() == pytest.approx([2 * math.log(2) - 100] * 2)


def test_density_of_the_action_is_that_of_the_transformed_distribution() -> None:
    torch.manual_seed(1)
    mean, log_std = torch.randn(20, 2).double(), torch.tensor([-0.5, 0.2]).double()
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    sample = mean + log_std.exp() * torch.randn(20, 2).double()
    ours = gaussian_log_prob(sample, mean, log_std) - squash_correction(sample)
    assert torch.allclose(ours, squashed.log_prob(torch.tanh(sample)).sum(-1), atol=1e-6)


def test_entropy_by_hand() -> None:
    # 0.5 log(2 pi e) = 1.4189385 for a unit normal; a log deviation adds itself
    assert entropy(torch.zeros(1)).item() == pytest.approx(1.4189385)
    assert entropy(torch.tensor([-0.5, 0.25])).item() == pytest.approx(2 * 1.4189385 - 0.25)


def test_entropy_is_torchs() -> None:
    log_std = torch.tensor([-1.2, 0.3, 0.0])
    assert entropy(log_std).item() == pytest.approx(Normal(torch.zeros(3), log_std.exp()).entropy().sum().item())


def test_unsquash_returns_shares_of_the_range_and_stops_short_of_the_edge() -> None:
    center, half_range = torch.tensor([0.25, 0.0]), torch.tensor([0.35, 1.2])
    actions = torch.tensor([[0.25, 0.6], [0.6, -1.2], [-0.1, 5.0], [0.425, 0.0]])
    expected = torch.tensor([[0.0, 0.5], [0.95, -0.95], [-0.95, 0.95], [0.5, 0.0]])
    assert torch.allclose(unsquash(actions, center, half_range), expected, atol=1e-6)
    assert torch.allclose(unsquash(actions, center, half_range, limit=0.4).abs().max(), torch.tensor(0.4))
