"""How others update: the loop of CleanRL, and stable-baselines3, each on a network of ours."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from torch import Tensor, nn

from policyloop.learn.networks import ActorCritic, Features
from policyloop.learn.rollout import Rollout

CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT, MAX_GRAD_NORM, LEARNING_RATE = 0.2, 0.5, 0.01, 0.5, 3e-4


class CleanRl:
    """The update of CleanRL's ppo_continuous_action.py, line by line; its buffer is float32."""

    def __init__(self, network: ActorCritic, epochs: int, minibatch: int) -> None:
        self._network, self._epochs, self._minibatch = network, epochs, minibatch
        self._optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, eps=1e-5)

    def update(self, observations: Features, batch: dict[str, Tensor]) -> None:
        """Update once.

        Args:
            observations: float32 by name, (n, ...).
            batch: `action`, `log_prob`, `advantage`, `target`, `value`, (n, ...).
        """
        network, size = self._network, len(batch["log_prob"])
        rows, shares = np.arange(size), []
        for _ in range(self._epochs):
            np.random.shuffle(rows)
            for start in range(0, size, self._minibatch):
                chosen = rows[start : start + self._minibatch]
                mean, value = network.mean_and_value({name: tensor[chosen] for name, tensor in observations.items()})
                policy = torch.distributions.Normal(mean, network.log_std.expand_as(mean).exp())
                log_ratio = policy.log_prob(batch["action"][chosen]).sum(1) - batch["log_prob"][chosen]
                ratio = log_ratio.exp()
                with torch.no_grad():
                    kl = ((ratio - 1) - log_ratio).mean()
                    shares.append(((ratio - 1.0).abs() > CLIP).float().mean().item())
                advantage = batch["advantage"][chosen]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                unclipped = -advantage * ratio
                policy_loss = torch.max(unclipped, -advantage * torch.clamp(ratio, 1 - CLIP, 1 + CLIP)).mean()
                target, before = batch["target"][chosen], batch["value"][chosen]
                clipped = before + torch.clamp(value - before, -CLIP, CLIP)
                value_loss = 0.5 * torch.max((value - target) ** 2, (clipped - target) ** 2).mean()
                loss = policy_loss - ENTROPY_WEIGHT * policy.entropy().sum(1).mean() + VALUE_WEIGHT * value_loss
                self._optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
                self._optimizer.step()
        self.statistics = (kl.item(), float(np.mean(shares)))


class _BorrowedPolicy(MultiInputActorCriticPolicy):
    """stable-baselines3's policy with a network of ours inside."""

    def __init__(self, *arguments: Any, network: ActorCritic, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, eps=1e-5)

    def evaluate_actions(self, obs: Features, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, log-probabilities and entropies."""
        mean, value = self.network.mean_and_value(obs)
        policy = self.action_dist.proba_distribution(mean, self.network.log_std)
        return value, policy.log_prob(actions), policy.entropy()


class _Spaces(gymnasium.Env):
    """An environment that is never stepped."""

    def __init__(self, observations: Features, actions: int) -> None:
        self.observation_space = spaces.Dict(
            {
                name: spaces.Box(0, 255, tensor.shape[1:], np.uint8)
                if tensor.dtype == torch.uint8
                else spaces.Box(-np.inf, np.inf, tensor.shape[1:], np.float32)
                for name, tensor in observations.items()
            }
        )
        self.action_space = spaces.Box(-1, 1, (actions,), np.float32)


class StableBaselines:
    """`PPO.train` of stable-baselines3, MultiInputPolicy; its buffer keeps bytes as bytes."""

    def __init__(self, network: ActorCritic, rollout: Rollout, epochs: int, minibatch: int) -> None:
        self._rollout = rollout
        self._ppo = PPO(
            _BorrowedPolicy,
            _Spaces(rollout.features, rollout.sample.shape[1]),
            n_steps=len(rollout),
            batch_size=minibatch,
            n_epochs=epochs,
            learning_rate=LEARNING_RATE,
            ent_coef=ENTROPY_WEIGHT,
            device="cpu",
            policy_kwargs={"network": network},
        )
        self._ppo.set_logger(configure(None, []))
        self.refill()

    def refill(self) -> None:
        """Make a new buffer, as after a rollout."""
        buffer, rollout = self._ppo.rollout_buffer, self._rollout
        assert isinstance(buffer, DictRolloutBuffer)
        buffer.reset()
        for name, tensor in rollout.features.items():
            buffer.observations[name][:, 0] = tensor.numpy()
        buffer.actions[:, 0] = rollout.sample.numpy()
        buffer.log_probs[:, 0] = rollout.log_prob.numpy()
        buffer.advantages[:, 0] = rollout.advantage.numpy()
        buffer.returns[:, 0] = rollout.value_target.numpy()
        buffer.values[:, 0] = (rollout.value_target - rollout.advantage).numpy()
        buffer.full = True

    def update(self) -> None:
        """Update once."""
        self._ppo.train()
