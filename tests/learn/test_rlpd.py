"""Soft actor-critic on paper: targets, gradients, temperature; and that it learns from what others drove."""

from __future__ import annotations

import copy
import math

import msgspec
import pytest
import torch

from policyloop.core.profile import RobotProfile
from policyloop.learn.networks import ActorCritic, make_network
from policyloop.learn.replay import Transitions
from policyloop.learn.rlpd import Rlpd, RlpdSettings, joined

CPU = torch.device("cpu")
SMALL = RlpdSettings(critics=3, target_critics=2, minibatch=8, reward_scale=1.0, gamma=0.9, temperature=0.1)


def batch(profile: RobotProfile, count: int, seed: int = 0) -> Transitions:
    generator = torch.Generator().manual_seed(seed)

    def states() -> dict[str, torch.Tensor]:
        return {"proprio": torch.randn((count, profile.proprio_size), generator=generator)}

    return Transitions(
        states(),
        states(),
        2 * torch.rand((count, 2), generator=generator) - 1,
        torch.randn(count, generator=generator),
        torch.ones(count),
    )


@pytest.fixture
def network(blind: RobotProfile) -> ActorCritic:
    torch.manual_seed(0)
    return make_network("mlp", blind)


def test_targets_by_hand(network: ActorCritic, blind: RobotProfile) -> None:
    rlpd = Rlpd(network, SMALL, (4, 2), CPU)
    for parameter in rlpd.targets.parameters():
        parameter.zero_()
    rlpd.targets.biases[2].copy_(torch.tensor([1.0, 5.0, 3.0]).reshape(3, 1, 1))  # three constant critics
    drawn = Transitions(
        {"proprio": torch.zeros(2, 4)},
        {"proprio": torch.zeros(2, 4)},
        torch.zeros(2, 2),
        torch.tensor([2.0, 2.0]),
        torch.tensor([1.0, 0.0]),
    )
    log_prob = torch.tensor([-4.0, -4.0])
    target = rlpd.target(drawn, torch.zeros(2, 2), log_prob, torch.tensor([1, 2]))
    # 2 + 0.9 * (min(5, 3) + 0.1 * 4) where life goes on; 2 where it ended
    assert target.tolist() == pytest.approx([2 + 0.9 * 3.4, 2.0])


def test_the_density_of_a_proposal_is_that_of_the_squashed_gaussian(network: ActorCritic, blind: RobotProfile) -> None:
    rlpd = Rlpd(network, SMALL, (4, 2), CPU)
    features = {"proprio": torch.randn((6, 4), generator=torch.Generator().manual_seed(3))}
    shares, log_prob = rlpd.propose(features, torch.Generator().manual_seed(1))
    normal = torch.distributions.Normal(network.mean(features), network.log_std.exp())
    squashed = torch.distributions.TransformedDistribution(
        normal, [torch.distributions.transforms.TanhTransform(cache_size=1)]
    )
    assert torch.allclose(log_prob, squashed.log_prob(shares).sum(-1), atol=1e-3)
    assert shares.abs().max() < 1


def test_the_target_critics_follow_slowly(network: ActorCritic, blind: RobotProfile) -> None:
    rlpd = Rlpd(network, msgspec.structs.replace(SMALL, target_rate=0.25), (4, 2), CPU)
    before = copy.deepcopy(rlpd.targets)
    rlpd.fit_critics(batch(blind, 8), torch.Generator().manual_seed(0))
    for was, slow, fast in zip(before.parameters(), rlpd.targets.parameters(), rlpd.critics.parameters(), strict=True):
        assert torch.allclose(slow, 0.75 * was + 0.25 * fast, atol=1e-7)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), rlpd.targets.parameters(), strict=True))


def test_fitting_the_critics_leaves_the_actor_alone_and_the_other_way_round(
    network: ActorCritic, blind: RobotProfile
) -> None:
    rlpd, drawn, generator = Rlpd(network, SMALL, (4, 2), CPU), batch(blind, 8), torch.Generator().manual_seed(0)
    actor = copy.deepcopy(network.state_dict())
    rlpd.fit_critics(drawn, generator)
    assert all(torch.equal(tensor, actor[name]) for name, tensor in network.state_dict().items())
    critics = copy.deepcopy(rlpd.critics.state_dict())
    rlpd.improve_actor(drawn, generator, None)
    assert all(torch.equal(tensor, critics[name]) for name, tensor in rlpd.critics.state_dict().items())
    moved = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, actor[name])]
    assert "log_std" in moved
    assert not any(name.startswith("critic") for name in moved)


@pytest.mark.parametrize(("target_entropy", "rises"), [(5.0, True), (-50.0, False)])
def test_the_temperature_rises_while_entropy_is_short(
    target_entropy: float, rises: bool, network: ActorCritic, blind: RobotProfile
) -> None:
    rlpd = Rlpd(network, msgspec.structs.replace(SMALL, target_entropy=target_entropy), (4, 2), CPU)
    rlpd.improve_actor(batch(blind, 8), torch.Generator().manual_seed(0), None)
    assert (rlpd.log_temperature.item() > math.log(0.1)) is rises


def test_the_auxiliary_loss_pulls_the_actor(network: ActorCritic, blind: RobotProfile) -> None:
    rlpd, drawn = Rlpd(network, msgspec.structs.replace(SMALL, learning_rate=3e-3), (4, 2), CPU), batch(blind, 32)

    def distance() -> torch.Tensor:
        return 10 * (network.mean(drawn.features) - 0.5).square().mean()

    before = distance().item()
    for _ in range(60):
        rlpd.improve_actor(drawn, torch.Generator().manual_seed(0), distance)
    assert distance().item() < 0.2 * before


def test_batches_are_joined_row_by_row(blind: RobotProfile) -> None:
    first, second = batch(blind, 3, seed=1), batch(blind, 2, seed=2)
    both = joined([first, second], CPU)
    assert torch.equal(both.reward, torch.cat([first.reward, second.reward]))
    assert torch.equal(both.next_features["proprio"][3:], second.next_features["proprio"])
    assert torch.equal(both.shares[:3], first.shares)


def test_the_best_action_is_learned_from_what_a_random_driver_did(network: ActorCritic, blind: RobotProfile) -> None:
    """One step per episode; the best action is half the first input, which nobody ever showed."""
    settings = msgspec.structs.replace(
        SMALL, learning_rate=3e-3, critic_learning_rate=3e-3, temperature=0.01, target_entropy=-2.0
    )
    rlpd, generator = Rlpd(network, settings, (4, 2), CPU), torch.Generator().manual_seed(0)
    for step in range(600):
        drawn = batch(blind, 64, seed=step)
        wanted = 0.5 * drawn.features["proprio"][:, :1].clamp(-1.5, 1.5)
        drawn = Transitions(
            drawn.features,
            drawn.next_features,
            drawn.shares,
            -(drawn.shares - wanted).square().sum(dim=1),
            torch.zeros(64),
        )
        rlpd.fit_critics(drawn, generator)
        if step >= 100:
            rlpd.improve_actor(drawn, generator, None)
    test = {"proprio": torch.randn((200, 4), generator=generator)}
    wanted = 0.5 * test["proprio"][:, :1].clamp(-1.5, 1.5)
    with torch.no_grad():
        error = (torch.tanh(network.mean(test)) - wanted).square().sum(dim=1).mean()
    assert error < 0.03  # always the middle would be 0.4
