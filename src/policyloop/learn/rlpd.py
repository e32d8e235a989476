"""RLPD: soft actor-critic on what is driven now and on demonstrations, half and half (Ball et al., 2302.02948).

Every step is learned from many times over, whoever drove it: the learner for one real robot.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from policyloop.learn.critics import Critics, critic_state
from policyloop.learn.distribution import gaussian_log_prob, squash_correction
from policyloop.learn.networks import LOG_STD_BOUNDS, ActorCritic, Features
from policyloop.learn.replay import Transitions

__all__ = ["Rlpd", "RlpdSettings", "joined"]


class RlpdSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of RLPD."""

    update_interval: Annotated[int, msgspec.Meta(ge=1)] = 200
    """Fresh steps per update: after each the robot gets a new policy."""
    critic_steps: float = 2.0
    """Gradient steps of the critics per fresh step."""
    actor_interval: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Gradient steps of the critics per step of the actor, which has to look at pictures."""
    warmup_steps: int = 1000
    """Gradient steps of the critics alone, on the demonstrations, before the first update: a clone is not torn up."""
    minibatch: Annotated[int, msgspec.Meta(ge=2)] = 128
    mirror: bool = False
    """Learn from every second minibatch as seen in a mirror: free data for a symmetric robot with a camera."""
    shift_px: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Pictures are shifted by up to so many pixels, another way in each minibatch (Kostrikov et al., 2004.13649)."""
    demonstration_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    capacity: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    """States of each of the two replays; full ones of a rover at 424x240 take 16.3 GB."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 6e-4
    critic_learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 6e-4
    learning_rate_floor: float = 0.1
    """Share of the actor's learning rate that is left at the end of the schedule."""
    gamma: float = 0.97
    target_rate: float = 0.005
    """Share by which the target critics follow at each gradient step."""
    critics: Annotated[int, msgspec.Meta(ge=1)] = 6
    target_critics: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Of so many random ones the least believes (Chen et al., 2101.05982)."""
    reward_scale: float = 0.1
    temperature: float = 0.005
    """Worth of entropy at first; it is then steered towards `target_entropy`."""
    target_entropy: float = -1.0
    """Of each action, nats."""
    demonstration_weight: float = 1.0
    """Weight of a cloning loss beside the actor's own, where there is a clone, at the first update; falls linearly."""
    max_grad_norm: float = 10.0
    initial_log_std: float = -2.0
    noise_hold_ticks: int = 2
    """Exploration noise is drawn anew every so many ticks: slower noise moves a real robot further."""


class Rlpd:
    """Actor, critics and temperature.

    Args:
        network: Its actor is improved; its value function is not used.
        settings: See `RlpdSettings`.
        sizes: Length of the critics' state and of the action.
        device: Where everything lives.
    """

    def __init__(
        self, network: ActorCritic, settings: RlpdSettings, sizes: tuple[int, int], device: torch.device
    ) -> None:
        self._network, self._settings, self._device = network, settings, device
        self.critics = Critics(sum(sizes), settings.critics).to(device)
        self.targets = copy.deepcopy(self.critics).requires_grad_(requires_grad=False)
        self.log_temperature = torch.nn.Parameter(torch.tensor(settings.temperature, device=device).log())
        self.actor_optimizer = torch.optim.Adam(network.actor_parameters(), lr=settings.learning_rate)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=settings.critic_learning_rate)
        self.temperature_optimizer = torch.optim.Adam([self.log_temperature], lr=settings.learning_rate)

    def propose(self, features: Features, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw actions; returns them in shares of their range, (n, actions), and their log-densities, (n,)."""
        mean = self._network.mean(features)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        sample = mean + self._network.log_std.exp() * noise
        log_prob = gaussian_log_prob(sample, mean, self._network.log_std) - squash_correction(sample)
        return torch.tanh(sample), log_prob

    def target(self, batch: Transitions, shares: Tensor, log_prob: Tensor, chosen: Tensor) -> Tensor:
        """Return r + gamma (min over the chosen critics of Q(s', a') - temperature log pi(a'|s')), (n,)."""
        with torch.no_grad():
            values = self.targets(critic_state(batch.next_features), shares)[chosen].min(dim=0).values
            future = values - self.log_temperature.exp() * log_prob
            return batch.reward * self._settings.reward_scale + self._settings.gamma * batch.future * future

    def fit_critics(self, batch: Transitions, generator: torch.Generator) -> dict[str, float]:
        """Take one gradient step with the critics."""
        with torch.no_grad():
            shares, log_prob = self.propose(batch.next_features, generator)
        chosen = torch.randperm(self._settings.critics, generator=generator)[: self._settings.target_critics]
        target = self.target(batch, shares, log_prob, chosen)
        values = self.critics(critic_state(batch.features), batch.shares)
        loss = functional.mse_loss(values, target.expand_as(values))
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.critics.parameters(), self._settings.max_grad_norm)
        self.critic_optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, self._settings.target_rate)
        return {"critic_loss": loss.item(), "value": values.detach().mean().item()}

    def improve_actor(
        self, batch: Transitions, generator: torch.Generator, auxiliary_loss: Callable[[], Tensor] | None
    ) -> dict[str, float]:
        """Take one gradient step with the actor and one with the temperature."""
        shares, log_prob = self.propose(batch.features, generator)
        self.critics.requires_grad_(requires_grad=False)
        value = self.critics(critic_state(batch.features), shares).mean(dim=0)
        self.critics.requires_grad_(requires_grad=True)
        temperature = self.log_temperature.exp().detach()
        loss = (temperature * log_prob - value).mean()
        total = loss if auxiliary_loss is None else loss + auxiliary_loss()
        self.actor_optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self._network.actor_parameters(), self._settings.max_grad_norm)
        self.actor_optimizer.step()
        with torch.no_grad():
            self._network.log_std.clamp_(*LOG_STD_BOUNDS)
        entropy = -log_prob.detach().mean()
        wanted = self._settings.target_entropy * shares.shape[1]
        steering = self.log_temperature * (entropy - wanted)
        self.temperature_optimizer.zero_grad(set_to_none=True)
        steering.backward()
        self.temperature_optimizer.step()
        return {"policy_loss": loss.item(), "entropy": entropy.item(), "temperature": temperature.item()}


def joined(parts: Sequence[Transitions], device: torch.device) -> Transitions:
    """Return several batches as one, on a device."""

    def one(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(tensors)).to(device)

    names = parts[0].features
    return Transitions(
        {name: one([part.features[name] for part in parts]) for name in names},
        {name: one([part.next_features[name] for part in parts]) for name in names},
        one([part.shares for part in parts]),
        one([part.reward for part in parts]),
        one([part.future for part in parts]),
    )
