"""The ensemble against one critic at a time, written out."""

from __future__ import annotations

import torch
from torch.nn import functional

from policyloop.learn.critics import Critics, critic_state


def test_critics_see_the_scan_and_the_proprioception_but_no_pictures() -> None:
    features = {"rgb": torch.zeros(2, 3, 4, 4), "scan": torch.ones(2, 3), "proprio": torch.full((2, 2), 2.0)}
    assert critic_state(features).tolist() == [[1, 1, 1, 2, 2]] * 2


def test_every_critic_is_a_network_of_its_own() -> None:
    torch.manual_seed(0)
    critics = Critics(inputs=5, count=3, width=8)
    with torch.no_grad():
        for scale, shift in zip(critics.scales, critics.shifts, strict=True):
            scale.normal_(1, 0.1)
            shift.normal_(0, 0.1)
    state, shares = torch.randn(7, 3), torch.randn(7, 2)
    together = critics(state, shares)
    assert together.shape == (3, 7)
    for index in range(3):
        x = torch.cat([state, shares], dim=1)
        for layer in range(2):
            x = x @ critics.weights[layer][index] + critics.biases[layer][index]
            x = functional.layer_norm(x, (8,), critics.scales[layer][index, 0], critics.shifts[layer][index, 0])
            x = x.relu()
        alone = (x @ critics.weights[2][index] + critics.biases[2][index])[:, 0]
        assert torch.allclose(together[index], alone, atol=1e-6)


def test_values_stay_bounded_far_away_from_what_was_seen() -> None:
    """Layer normalisation: actions that nobody ever took cannot look better and better the further they are."""
    torch.manual_seed(0)
    critics, state = Critics(inputs=5, count=4, width=16), torch.zeros(1, 3)
    with torch.no_grad():
        near, far = critics(state, torch.full((1, 2), 10.0)), critics(state, torch.full((1, 2), 10_000.0))
    assert torch.allclose(near, far, atol=0.05)
