"""Proximal policy optimisation (Schulman et al., 1707.06347): one visible update, right for steps that lag behind.

The policy is held near the one with which the update began, whoever drew the steps; how much likelier that one makes
each step than the policy that drew it is a weight of its own (the decoupled objective, Hilton et al., 2110.00641).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from policyloop.learn.distribution import entropy, gaussian_kl, gaussian_log_prob
from policyloop.learn.networks import LOG_STD_BOUNDS, ActorCritic
from policyloop.learn.ranks import ALONE, Ranks
from policyloop.learn.rollout import Rollout
from policyloop.learn.share import Share

__all__ = ["PpoSettings", "effective_share", "make_optimizer", "ppo_update"]


_STATISTICS = ("value_loss", "policy_loss", "approx_kl", "clipfrac", "step_kl")
"""Means over a minibatch; where only the critic learns, there is the first alone."""


class PpoSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of PPO; the defaults are those of the original documents."""

    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 3e-4
    critic_learning_rate: float = 1e-3
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    entropy_weight: float = 0.01
    value_weight: float = 0.5
    epochs: int = 4
    minibatch: Annotated[int, msgspec.Meta(ge=1)] = 256
    max_grad_norm: float = 0.5
    reward_scale: float = 0.1
    desired_kl: float = 0.01
    """The actor's learning rate follows the policy's step: it falls when the policy is more than twice
    this far from where the update began and grows, up to `learning_rate`, when it is less than half."""
    max_kl: float = 0.1
    """No further epoch begins once the policy is on average this far from where the update began."""
    correct_lag: bool = True
    """Weigh steps by how likely the present policy makes them; False = as if it had drawn them all, for comparison."""
    max_weight: float = 2.0
    """No step counts for more than so many."""
    min_effective: float = 0.3
    """Steps of which less than this share is effective are too far off: only the value function learns from them."""
    critic_warmup_updates: int = 3
    """First updates that fit only the critic, so that a cloned policy is not torn up by noise."""
    learning_rate_floor: float = 0.1
    """Share of the learning rate that is left at the end of the schedule."""
    max_log_std: float = LOG_STD_BOUNDS[1]
    """Exploration is kept at or below this; the learner lowers it along the schedule."""
    noise_hold_ticks: int = 2
    """Exploration noise is drawn anew every so many ticks: slower noise moves a real robot further."""
    initial_log_std: float = -0.5
    final_log_std: float = -0.5
    """Exploration at the end of the schedule. While it is wide, noise pushes the robot out of every
    place where the bare policy would wait for ever; only when it narrows does the policy learn to leave."""
    demonstration_weight: float = 0.0
    """Weight of a cloning loss on demonstrations beside PPO's own, at the first update; falls linearly."""
    intervention_weight: float = 1.0
    """Weight of a cloning loss on demonstrations that came after the clone: where a teacher took over,
    the policy was wrong, and its own exploration may never show it the way out."""


def make_optimizer(network: ActorCritic, settings: PpoSettings) -> torch.optim.Adam:
    """Return Adam with the actor's and the critic's parameters as its two groups."""
    return torch.optim.Adam(
        [
            {"params": network.actor_parameters(), "lr": settings.learning_rate / 10},
            {"params": network.critic_parameters(), "lr": settings.critic_learning_rate},
        ],
        eps=1e-5,
        fused=True,  # one pass over the weights instead of ten
    )


def ppo_update(
    network: ActorCritic,
    optimizer: torch.optim.Adam,
    rollout: Rollout,
    settings: PpoSettings,
    *,
    generator: torch.Generator,
    learn_policy: bool = True,
    auxiliary_loss: Callable[[], Tensor] | None = None,
    rows_at_once: int = 0,
    share: Share | None = None,
) -> dict[str, float]:
    """Improve policy and value function on one rollout; return the update's statistics.

    The ratio compares the network with itself as the update began; the weight compares that with the distribution that
    the robot recorded when it acted, which may be of older or quantised weights. The change of variables of tanh
    cancels in both, because every density is one of the recorded pre-tanh sample.

    Args:
        network: Updated in place.
        optimizer: From `make_optimizer`.
        rollout: Steps with advantages.
        settings: PPO's settings.
        generator: Source of the minibatch order.
        learn_policy: False fits only the value function.
        auxiliary_loss: Added to the policy's loss at every minibatch; of this rank's share, if there are several.
        rows_at_once: Steps whose gradient is computed at once, see `Execution`; 0 = whole minibatches.
        share: Which steps `rollout` holds of an update that several ranks make together; None = all.
    """
    share = share or Share.whole(len(rollout))
    ranks = share.ranks
    mean, variance = share.mean_and_variance(rollout.advantage)
    advantage = (rollout.advantage - mean) / (variance.sqrt() + 1e-6)
    normalised = replace(rollout, advantage=advantage)
    effective = effective_share(rollout.ratio, ranks)
    learn_policy = learn_policy and effective >= settings.min_effective
    history: dict[str, list[float]] = {}
    start_log_std = network.log_std.detach().clone()
    for _ in range(settings.epochs):
        order = torch.randperm(share.total, generator=generator)
        minibatches = order.split(settings.minibatch)
        for index in minibatches:
            optimizer.zero_grad(set_to_none=True)
            if learn_policy and auxiliary_loss is not None:
                auxiliary_loss().backward()
            names = _STATISTICS if learn_policy else _STATISTICS[:1]
            means = torch.zeros(len(names), device=advantage.device)
            for part in _parts(share.own(index).to(advantage.device), rows_at_once):
                weight = len(part) / len(index)
                loss, statistics = _loss(network, normalised.rows(part), start_log_std, settings, learn_policy)
                (weight * loss).backward()
                means += weight * torch.stack([statistics[name] for name in names])
            numbers = ranks.sum(means).tolist()  # the only place that waits for a GPU
            for name, number in zip(names, numbers, strict=True):
                history.setdefault(name, []).append(number)
            if learn_policy:
                _adapt_learning_rate(optimizer, history["step_kl"][-1], settings)
            _descend(optimizer, settings, ranks, learn_policy=learn_policy)
            if learn_policy:
                with torch.no_grad():
                    network.log_std.clamp_(LOG_STD_BOUNDS[0], settings.max_log_std)
        distances = history.get("step_kl", [])[-len(minibatches) :]
        if sum(distances) > settings.max_kl * len(distances):
            break
    result = {name: sum(numbers) / len(numbers) for name, numbers in history.items()}
    result["effective_share"] = effective
    result["entropy"] = entropy(network.log_std.detach()).item()
    result["explained_variance"] = _explained_variance(rollout, share)
    result["learning_rate"] = optimizer.param_groups[0]["lr"]
    result["std"] = network.log_std.detach().exp().mean().item()
    return result


def _parts(rows: Tensor, rows_at_once: int) -> Sequence[Tensor]:
    """Return rows in parts of so many; 0 = in one."""
    return rows.split(rows_at_once or len(rows)) if len(rows) else ()


def _descend(optimizer: torch.optim.Adam, settings: PpoSettings, ranks: Ranks, *, learn_policy: bool) -> None:
    """Take one step along all ranks' gradients, clipped group by group."""
    actor, critic = (group["params"] for group in optimizer.param_groups)
    if not learn_policy:  # an encoder that actor and critic share
        for parameter in actor:
            parameter.grad = None
    ranks.sum_gradients([*actor, *critic] if learn_policy else critic)
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], settings.max_grad_norm)
    optimizer.step()


def _loss(
    network: ActorCritic, batch: Rollout, start_log_std: Tensor, settings: PpoSettings, learn_policy: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean loss of some steps and their statistics, which are means too."""
    mean, value = network.mean_and_value(batch.features)
    value_loss = functional.mse_loss(value, batch.value_target)
    statistics = {"value_loss": value_loss.detach()}
    loss = settings.value_weight * value_loss
    if learn_policy:
        loss = loss + _policy_loss(network, batch, mean, settings, statistics)
        with torch.no_grad():
            statistics["step_kl"] = gaussian_kl(batch.start_mean, start_log_std, mean, network.log_std).mean()
    return loss, statistics


def _policy_loss(
    network: ActorCritic, batch: Rollout, mean: Tensor, settings: PpoSettings, statistics: dict[str, Tensor]
) -> Tensor:
    """Return the clipped surrogate (to be minimised) with its entropy bonus; adds its statistics."""
    ratio = (gaussian_log_prob(batch.sample, mean, network.log_std) - batch.start_log_prob).exp()
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    weight = batch.ratio.clamp(max=settings.max_weight)
    surrogate = -(weight * torch.min(ratio * batch.advantage, clipped * batch.advantage)).mean()
    with torch.no_grad():
        statistics["policy_loss"] = surrogate.detach()
        statistics["approx_kl"] = gaussian_kl(batch.mean, batch.log_std, mean, network.log_std).mean()
        statistics["clipfrac"] = ((ratio - 1).abs() > settings.clip).float().mean()
    return surrogate - settings.entropy_weight * entropy(network.log_std)


def _adapt_learning_rate(optimizer: torch.optim.Adam, kl: float, settings: PpoSettings) -> None:
    """Steer the actor's step size by its KL, as rsl_rl does: one rate does not fit clone and novice."""
    group = optimizer.param_groups[0]
    if kl > 2 * settings.desired_kl:
        group["lr"] = max(1e-5, group["lr"] / 1.5)
    elif kl < settings.desired_kl / 2:
        group["lr"] = min(settings.learning_rate, group["lr"] * 1.5)


def effective_share(ratio: Tensor, ranks: Ranks = ALONE) -> float:
    """Return the effective share of weighted steps, (sum w)^2 / (n sum w^2): 1 = all count alike (Kish, 1965)."""
    count, total, squares = ranks.sum(torch.stack([ratio.new_tensor(len(ratio)), ratio.sum(), ratio.square().sum()]))
    return (total.square() / (count * squares)).item()


def _explained_variance(rollout: Rollout, share: Share) -> float:
    """Return 1 - Var(target - value) / Var(target); but for lag, the advantage is that difference."""
    variance = share.mean_and_variance(rollout.value_target)[1].item()
    return math.nan if variance == 0 else 1 - share.mean_and_variance(rollout.advantage)[1].item() / variance
