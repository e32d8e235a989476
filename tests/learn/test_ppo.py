"""PPO's arithmetic on paper, its safeguards, and that it learns."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.learn.distribution import entropy, gaussian_log_prob
from policyloop.learn.feed import Feed
from policyloop.learn.networks import LOG_STD_BOUNDS, SCAN_COLUMNS, ActorCritic, make_network
from policyloop.learn.ppo import PpoSettings, effective_share, make_optimizer, ppo_update
from policyloop.learn.rollout import Rollout, Trace
from policyloop.link.journal import Journal

ONE_STEP = PpoSettings(epochs=1, minibatch=10_000, entropy_weight=0.0)


def on_policy(network: ActorCritic, profile: RobotProfile, count: int, seed: int = 0) -> Rollout:
    """Return steps that `network` itself drew, with random advantages."""
    generator = torch.Generator().manual_seed(seed)
    features = {"proprio": torch.randn((count, profile.proprio_size), generator=generator)}
    if profile.camera is not None:
        height, width = profile.camera.height, profile.camera.width
        features["rgb"] = torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
        features["depth"] = torch.randint(0, 256, (count, 1, height, width), generator=generator, dtype=torch.uint8)
        features["scan"] = torch.rand((count, SCAN_COLUMNS), generator=generator)
    with torch.no_grad():
        mean, value = network.mean_and_value(features)
        log_std = network.log_std.expand_as(mean)
        sample = mean + log_std.exp() * torch.randn(mean.shape, generator=generator)
        advantage = torch.randn(count, generator=generator)
        return Rollout(
            features,
            sample,
            gaussian_log_prob(sample, mean, log_std),
            mean,
            log_std.clone(),
            mean,
            gaussian_log_prob(sample, mean, log_std),
            advantage,
            value + advantage,
        )


def with_changes(rollout: Rollout, **changes: Tensor) -> Rollout:
    fields = {name: getattr(rollout, name) for name in Rollout.__dataclass_fields__}
    return Rollout(**{**fields, **changes})


def update(
    network: ActorCritic, rollout: Rollout, settings: PpoSettings, *, learn_policy: bool = True, seed: int = 0
) -> dict[str, float]:
    return ppo_update(
        network,
        make_optimizer(network, settings),
        rollout,
        settings,
        generator=torch.Generator().manual_seed(seed),
        learn_policy=learn_policy,
    )


@pytest.fixture
def network(blind: RobotProfile) -> ActorCritic:
    torch.manual_seed(0)
    return make_network("mlp", blind)


def test_at_lag_zero_the_ratio_is_one_before_the_first_step(network: ActorCritic, blind: RobotProfile) -> None:
    statistics = update(network, on_policy(network, blind, 64), ONE_STEP)
    assert statistics["clipfrac"] == 0.0
    assert statistics["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert statistics["policy_loss"] == pytest.approx(0.0, abs=1e-6)  # minus the mean of normalised advantages


def test_clipped_surrogate_of_four_samples_by_hand(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 4)
    ratio = torch.tensor([1.5, 0.5, 0.5, 1.5])
    rollout = with_changes(
        rollout,
        start_log_prob=rollout.log_prob - ratio.log(),
        log_prob=rollout.log_prob - ratio.log(),
        advantage=torch.tensor([1.0, -1.0, 1.0, -1.0]),
    )
    statistics = update(network, rollout, ONE_STEP)
    # Normalised by the sample deviation sqrt(4/3) the advantages are +-0.866025. Clip 0.2:
    #   A > 0, ratio 1.5: 1.2 A;  A < 0, ratio 0.5: 0.8 A;  A > 0, ratio 0.5: 0.5 A;  A < 0, ratio 1.5: 1.5 A
    # loss = -(1.2 - 0.8 + 0.5 - 1.5) * 0.866025 / 4
    assert statistics["policy_loss"] == pytest.approx(0.6 * 0.8660254 / 4, rel=1e-4)
    assert statistics["clipfrac"] == 1.0


def test_steps_of_an_older_policy_are_weighed_by_how_likely_they_are_now(
    network: ActorCritic, blind: RobotProfile
) -> None:
    rollout = on_policy(network, blind, 4)
    ratio = torch.tensor([0.5, 1.0, 4.0, 1.0])
    rollout = with_changes(
        rollout, log_prob=rollout.log_prob - ratio.log(), advantage=torch.tensor([1.0, -1.0, 1.0, -1.0])
    )
    statistics = update(network, rollout, msgspec.structs.replace(ONE_STEP, max_weight=2.0))
    # the policy has not moved, so each ratio within the objective is 1; weights 0.5, 1, 2 (4 is too much), 1
    # loss = -(0.5 - 1 + 2 - 1) * 0.866025 / 4
    assert statistics["policy_loss"] == pytest.approx(-0.5 * 0.8660254 / 4, rel=1e-4)
    assert statistics["clipfrac"] == 0.0
    # (0.5 + 1 + 4 + 1)^2 / (4 * (0.25 + 1 + 16 + 1))
    assert statistics["effective_share"] == pytest.approx(42.25 / 73)


def test_effective_share_by_hand() -> None:
    assert effective_share(torch.tensor([3.0, 3.0, 3.0])) == pytest.approx(1.0)
    assert effective_share(torch.tensor([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)


def test_steps_that_are_too_far_off_teach_only_the_value_function(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 16)
    far = torch.zeros(16)
    far[0] = 5.0  # one step counts for 148, the others for 1: an effective share of 0.08
    before = actor_weights(network)
    statistics = update(network, with_changes(rollout, log_prob=rollout.log_prob - far), ONE_STEP)
    assert statistics["effective_share"] == pytest.approx((148.41 + 15) ** 2 / (16 * (148.41**2 + 15)), rel=1e-3)
    assert "policy_loss" not in statistics
    assert statistics["value_loss"] > 0
    assert all(torch.equal(a, b) for a, b in zip(before, network.actor_parameters(), strict=True))


def test_no_further_epoch_begins_once_the_policy_has_moved_far(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 64)
    calls = []

    def count() -> Tensor:
        calls.append(1)
        return torch.zeros((), requires_grad=True)

    settings = PpoSettings(epochs=10, minibatch=16, learning_rate=1e-2, desired_kl=1e9, max_kl=1e-4)
    ppo_update(
        network,
        make_optimizer(network, settings),
        rollout,
        settings,
        generator=torch.Generator().manual_seed(0),
        auxiliary_loss=count,
    )
    assert len(calls) == 4


def test_inside_the_clip_range_the_loss_is_ratio_times_advantage(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 2)
    ratio = torch.tensor([1.1, 0.9])
    rollout = with_changes(
        rollout,
        start_log_prob=rollout.log_prob - ratio.log(),
        log_prob=rollout.log_prob - ratio.log(),
        advantage=torch.tensor([3.0, 1.0]),
    )
    statistics = update(network, rollout, ONE_STEP)
    # normalised: (3 - 2) / sqrt(2) = 0.707107 and its negative; loss = -(1.1 - 0.9) * 0.707107 / 2
    assert statistics["policy_loss"] == pytest.approx(-0.1 * 0.7071068, rel=1e-4)
    assert statistics["clipfrac"] == 0.0


def actor_weights(network: ActorCritic) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.actor_parameters()]


def test_samples_beyond_the_clip_on_the_side_of_improvement_give_no_gradient(
    network: ActorCritic, blind: RobotProfile
) -> None:
    rollout = on_policy(network, blind, 4)
    ratio = torch.tensor([1.5, 1.3, 0.5, 0.7])
    rollout = with_changes(
        rollout,
        start_log_prob=rollout.log_prob - ratio.log(),
        log_prob=rollout.log_prob - ratio.log(),
        advantage=torch.tensor([1.0, 1.0, -1.0, -1.0]),
    )
    before = actor_weights(network)
    update(network, rollout, ONE_STEP)
    assert all(torch.equal(a, b) for a, b in zip(before, network.actor_parameters(), strict=True))


def test_samples_beyond_the_clip_on_the_wrong_side_are_pulled_back(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 4)
    ratio, advantage = torch.tensor([0.5, 0.7, 1.5, 1.3]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    rollout = with_changes(
        rollout,
        start_log_prob=rollout.log_prob - ratio.log(),
        log_prob=rollout.log_prob - ratio.log(),
        advantage=advantage,
    )
    update(network, rollout, ONE_STEP)
    with torch.no_grad():
        density = gaussian_log_prob(rollout.sample, network.mean(rollout.features), network.log_std)
        moved = (density - rollout.start_log_prob).exp() - ratio
    assert (advantage * moved).sum() > 0


def test_advantages_are_normalised(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 32)
    shifted = with_changes(rollout, advantage=5.0 + 100.0 * rollout.advantage)
    twin = copy.deepcopy(network)
    update(network, rollout, ONE_STEP)
    update(twin, shifted, ONE_STEP)
    for ours, theirs in zip(network.actor_parameters(), twin.actor_parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "spatial",
        "mlp",
        pytest.param(
            "original",
        ),
    ],
)
def test_a_critic_only_update_leaves_the_policy_bit_identical(name: str, mini: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network(name, mini)
    rollout = on_policy(network, mini, 16)
    policy = {key: tensor.clone() for key, tensor in network.state_dict().items() if not key.startswith("critic")}
    critic = {key: tensor.clone() for key, tensor in network.state_dict().items() if key.startswith("critic")}
    statistics = update(
        network, rollout, msgspec.structs.replace(ONE_STEP, epochs=2, max_log_std=-2.0), learn_policy=False
    )
    now = network.state_dict()
    assert "log_std" in policy
    assert any(not torch.equal(now[key], tensor) for key, tensor in critic.items())
    assert "policy_loss" not in statistics
    assert all(torch.equal(now[key], tensor) for key, tensor in policy.items())


def test_kl_by_hand(network: ActorCritic, blind: RobotProfile) -> None:
    with torch.no_grad():
        network.log_std.zero_()
    rollout = on_policy(network, blind, 8)
    narrow = torch.full_like(rollout.mean, math.log(0.5))
    rollout = with_changes(rollout, mean=rollout.mean + 0.2, log_std=narrow)
    # KL(N(m + 0.2, 0.5) || N(m, 1)) = log 2 + (0.25 + 0.04) / 2 - 0.5 = 0.3381472, for each of two actions
    assert update(network, rollout, ONE_STEP)["approx_kl"] == pytest.approx(2 * 0.3381472, rel=1e-4)


def test_kl_is_torchs(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 32)
    torch.manual_seed(5)
    rollout = with_changes(
        rollout, mean=rollout.mean + 0.3 * torch.randn(32, 2), log_std=rollout.log_std + 0.2 * torch.randn(32, 2)
    )
    with torch.no_grad():
        policy = Normal(network.mean(rollout.features), network.log_std.exp())
        expected = kl_divergence(Normal(rollout.mean, rollout.log_std.exp()), policy).sum(-1).mean()
    assert update(network, rollout, ONE_STEP)["approx_kl"] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("share_of_desired", "factor"),
    [
        pytest.param(0.01, 1.5, id="far too small a step: up"),
        pytest.param(0.49, 1.5, id="just below half: up"),
        pytest.param(0.51, 1.0, id="just above half: unchanged"),
        pytest.param(1.99, 1.0, id="just below twice: unchanged"),
        pytest.param(2.01, 1 / 1.5, id="just above twice: down"),
        pytest.param(100.0, 1 / 1.5, id="far too large a step: down"),
    ],
)
def test_the_learning_rate_follows_how_far_the_policy_moved(
    network: ActorCritic, blind: RobotProfile, share_of_desired: float, factor: float
) -> None:
    rollout = on_policy(network, blind, 64)
    # Two steps: before the first the policy has not moved, so the rate grows from 1e-4 to 1.5e-4.
    settings = PpoSettings(epochs=2, minibatch=10_000, learning_rate=1e-3, desired_kl=1.0)
    moved = 2 * update(copy.deepcopy(network), rollout, settings)["step_kl"]  # the mean of 0 and this
    assert moved > 1e-7
    settings = msgspec.structs.replace(settings, desired_kl=moved / share_of_desired)
    assert update(network, rollout, settings)["learning_rate"] == pytest.approx(1.5e-4 * factor)


def test_recorded_means_far_from_the_policy_do_not_steer_the_learning_rate(
    network: ActorCritic, blind: RobotProfile
) -> None:
    rollout = on_policy(network, blind, 16)
    far = with_changes(rollout, mean=rollout.mean + 3)
    statistics = update(network, far, msgspec.structs.replace(ONE_STEP, learning_rate=1e-3))
    assert statistics["approx_kl"] > 1
    assert statistics["learning_rate"] == pytest.approx(1.5e-4)


def test_the_learning_rate_does_not_fall_below_its_floor(network: ActorCritic, blind: RobotProfile) -> None:
    settings = PpoSettings(epochs=30, minibatch=10_000, learning_rate=1e-3, desired_kl=1e-12)
    assert update(network, on_policy(network, blind, 16), settings)["learning_rate"] == pytest.approx(1e-5)


def test_an_update_without_movement_raises_the_rate_to_its_maximum(network: ActorCritic, blind: RobotProfile) -> None:
    settings = PpoSettings(epochs=20, minibatch=10_000, learning_rate=1e-3, entropy_weight=0.0)
    rollout = with_changes(on_policy(network, blind, 16), advantage=torch.zeros(16))
    assert update(network, rollout, settings)["learning_rate"] == pytest.approx(1e-3)


def test_the_critic_keeps_its_own_learning_rate(network: ActorCritic, blind: RobotProfile) -> None:
    optimizer = make_optimizer(network, PpoSettings(critic_learning_rate=2e-3))
    rollout = on_policy(network, blind, 16)
    ppo_update(network, optimizer, rollout, ONE_STEP, generator=torch.Generator().manual_seed(0))
    assert optimizer.param_groups[1]["lr"] == 2e-3
    assert optimizer.param_groups[0]["lr"] != 2e-3


def test_the_entropy_bonus_widens_the_exploration(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = with_changes(on_policy(network, blind, 16), advantage=torch.zeros(16))
    before = network.log_std.detach().clone()
    statistics = update(network, rollout, PpoSettings(epochs=1, minibatch=10_000, entropy_weight=0.1))
    assert (network.log_std > before).all()
    assert statistics["entropy"] == pytest.approx(entropy(network.log_std.detach()).item())


def test_the_exploration_stays_within_its_bounds(network: ActorCritic, blind: RobotProfile) -> None:
    low, high = LOG_STD_BOUNDS
    with torch.no_grad():
        network.log_std.copy_(torch.tensor([low, high]))
    rollout = with_changes(on_policy(network, blind, 16), advantage=torch.zeros(16))
    update(network, rollout, PpoSettings(epochs=3, minibatch=4, learning_rate=0.1, entropy_weight=1.0))
    assert low <= network.log_std.min()
    assert network.log_std.max() <= high


def test_the_exploration_stays_below_a_ceiling_that_is_set(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 16)
    statistics = update(network, rollout, msgspec.structs.replace(ONE_STEP, max_log_std=-1.0))
    assert network.log_std.tolist() == [-1.0, -1.0]
    assert statistics["std"] == pytest.approx(math.exp(-1))


def test_the_value_loss_is_the_mean_squared_error(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 16)
    # the target is value + advantage, so the error of each state is its advantage
    expected = rollout.advantage.square().mean().item()
    assert update(network, rollout, ONE_STEP)["value_loss"] == pytest.approx(expected, rel=1e-4)


def test_explained_variance_by_hand(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = with_changes(
        on_policy(network, blind, 3),
        advantage=torch.tensor([1.0, 0.0, -1.0]),  # variance 1
        value_target=torch.tensor([0.0, 2.0, 4.0]),  # variance 4
    )
    assert update(network, rollout, ONE_STEP)["explained_variance"] == pytest.approx(0.75)


def test_every_step_is_used_once_per_epoch(network: ActorCritic, blind: RobotProfile) -> None:
    calls = []
    settings = PpoSettings(epochs=3, minibatch=16)
    ppo_update(
        network,
        make_optimizer(network, settings),
        on_policy(network, blind, 40),
        settings,
        generator=torch.Generator().manual_seed(0),
        auxiliary_loss=lambda: calls.append(1) or torch.zeros((), requires_grad=True),
    )
    assert len(calls) == 3 * 3  # 16 + 16 + 8, three times


def test_the_auxiliary_loss_pulls_the_policy(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = with_changes(on_policy(network, blind, 32), advantage=torch.zeros(32))
    settings = PpoSettings(epochs=20, minibatch=64, learning_rate=3e-3, entropy_weight=0.0, desired_kl=10.0)

    def distance() -> Tensor:
        return (network.mean(rollout.features) - 0.5).square().mean()

    before = distance().item()
    ppo_update(
        network,
        make_optimizer(network, settings),
        rollout,
        settings,
        generator=torch.Generator().manual_seed(0),
        auxiliary_loss=distance,
    )
    assert distance().item() < 0.5 * before


def test_equal_seeds_give_equal_updates_and_other_seeds_others(network: ActorCritic, blind: RobotProfile) -> None:
    rollout = on_policy(network, blind, 64)
    settings = PpoSettings(minibatch=16)

    def result(seed: int) -> Tensor:
        twin = copy.deepcopy(network)
        update(twin, rollout, settings, seed=seed)
        return torch.cat([tensor.flatten() for tensor in twin.state_dict().values()])

    assert torch.equal(result(1), result(1))
    assert not torch.equal(result(1), result(2))


@pytest.mark.filterwarnings("ignore:std\\(\\)|var\\(\\)")
def test_a_rollout_of_one_step_leaves_the_weights_finite(network: ActorCritic, blind: RobotProfile) -> None:
    update(network, on_policy(network, blind, 1), ONE_STEP)
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_ppo_solves_a_small_problem(blind: RobotProfile) -> None:
    """One step per episode; the best action is twice the first input."""
    torch.manual_seed(0)
    network = make_network("mlp", blind)
    settings = PpoSettings(learning_rate=3e-3, minibatch=128, entropy_weight=0.0, desired_kl=0.03)
    optimizer, generator = make_optimizer(network, settings), torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)

    def batch(count: int) -> tuple[Rollout, float]:
        state = rng.uniform(-0.5, 0.5, (count, blind.proprio_size)).astype(np.float32)
        with torch.no_grad():
            mean = network.mean({"proprio": torch.from_numpy(state)}).numpy()
        log_std = np.broadcast_to(network.log_std.detach().numpy(), mean.shape)
        sample = (mean + np.exp(log_std) * rng.normal(size=mean.shape)).astype(np.float32)
        reward = -((np.tanh(sample) - 2 * state[:, :1]) ** 2).sum(axis=1).astype(np.float32)
        density = gaussian_log_prob(*(torch.from_numpy(np.array(a)) for a in (sample, mean, log_std))).numpy()
        traces = [
            Trace(
                {"proprio": np.stack([state[i], state[i]])},
                *(a[i : i + 1] for a in (sample, density, mean, log_std, reward)),
                terminated=True,
            )
            for i in range(count)
        ]
        rollout = Rollout.build(traces, network, gamma=0.99, lam=0.95, reward_scale=1.0, device=torch.device("cpu"))
        return rollout, float(reward.mean())

    rewards = []
    for _ in range(40):
        rollout, reward = batch(256)
        rewards.append(reward)
        ppo_update(network, optimizer, rollout, settings, generator=generator)
    assert np.mean(rewards[:3]) < -0.8
    assert np.mean(rewards[-3:]) > -0.3


def test_a_stream_of_only_human_and_scripted_steps_gives_the_policy_nothing_to_learn_from(
    blind: RobotProfile, drive: Callable[..., Step], write_journal: Callable[..., Journal]
) -> None:
    steps = [drive(i, source="human" if i % 3 else "scripted", end="truncated" if i == 19 else "") for i in range(20)]
    feed = Feed(write_journal(blind, steps), blind.nominal_normalizer, max_staleness=10)
    assert not feed.advance(1, 1)
    assert feed.ready == 0
    assert feed.take() == []
    assert feed.ledger == {"demonstration": 20}


@pytest.mark.parametrize("name", ["mlp", "spatial", "original"])
def test_a_minibatch_in_parts_is_the_whole_minibatch(name: str, mini: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network(name, mini)
    rollout = on_policy(network, mini, 20)
    settings = PpoSettings(epochs=2, minibatch=10, entropy_weight=0.01, max_kl=math.inf)

    def updated(rows_at_once: int) -> tuple[ActorCritic, dict[str, float]]:
        twin = copy.deepcopy(network)
        statistics = ppo_update(
            twin,
            make_optimizer(twin, settings),
            rollout,
            settings,
            generator=torch.Generator().manual_seed(0),
            auxiliary_loss=lambda: twin.log_std.square().sum(),
            rows_at_once=rows_at_once,
        )
        return twin, statistics

    (whole, of_whole), (parts, of_parts) = updated(0), updated(4)  # 4 + 4 + 2
    for ours, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
    assert of_parts == pytest.approx(of_whole, rel=1e-4, abs=1e-6)


def test_losses_equal_those_of_stable_baselines3_on_the_same_batch(network: ActorCritic, blind: RobotProfile) -> None:
    """Its own `PPO.train` runs, with our network where its policy would be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("stable_baselines3", reason="stable_baselines3 is missing: losses NOT compared")
        spaces = pytest.importorskip("gymnasium.spaces")
    rollout = on_policy(network, blind, 64)
    shift = 0.4 * torch.randn(64, generator=torch.Generator().manual_seed(3))
    drawn = with_changes(rollout, log_prob=rollout.log_prob - shift, start_log_prob=rollout.log_prob - shift)
    twin, logged = copy.deepcopy(network), {}

    def evaluate(observations: dict[str, Tensor], actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, value = twin.mean_and_value(observations)
        return value, gaussian_log_prob(actions, mean, twin.log_std), entropy(twin.log_std).expand(len(mean))

    batch = SimpleNamespace(
        observations=drawn.features,
        actions=drawn.sample,
        old_log_prob=drawn.start_log_prob,
        advantages=drawn.advantage,
        returns=drawn.value_target,
    )
    policy = SimpleNamespace(
        evaluate_actions=evaluate,
        optimizer=torch.optim.SGD(twin.parameters(), lr=0.0),
        parameters=twin.parameters,
        set_training_mode=lambda mode: None,
    )
    buffer = SimpleNamespace(get=lambda size: [batch], values=np.zeros(64), returns=drawn.value_target.numpy())
    algorithm = SimpleNamespace(
        policy=policy,
        rollout_buffer=buffer,
        action_space=spaces.Box(-1, 1, (2,)),
        n_epochs=1,
        batch_size=64,
        clip_range=lambda left: ONE_STEP.clip,
        clip_range_vf=None,
        _current_progress_remaining=1.0,
        _update_learning_rate=lambda optimizer: None,
        _n_updates=0,
        normalize_advantage=True,
        ent_coef=0.0,
        vf_coef=0.5,
        max_grad_norm=0.5,
        target_kl=None,
        verbose=0,
        logger=SimpleNamespace(record=lambda name, value, **more: logged.update({name: value})),
    )
    theirs.PPO.train(algorithm)
    ours = update(network, drawn, ONE_STEP)
    assert ours["policy_loss"] == pytest.approx(logged["train/policy_gradient_loss"], abs=1e-5)
    assert ours["value_loss"] == pytest.approx(logged["train/value_loss"], abs=1e-5)
    assert ours["clipfrac"] == pytest.approx(logged["train/clip_fraction"], abs=1e-6)
    assert abs(ours["policy_loss"]) > 1e-3
