"""One update's data: traces of consecutive policy steps, their advantages, and the tensors to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policyloop.learn.networks import ActorCritic, Features

__all__ = ["Rollout", "Trace", "accumulated", "generalized_advantages"]

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Trace:
    """Consecutive steps of one robot in one episode, all driven by a policy.

    Attributes:
        features: Network inputs of each step *and of the state after the last*, (T + 1, ...).
        sample: Pre-tanh sample that was drawn, (T, actions).
        log_prob: Its log-density under the policy that drew it, (T,).
        mean: That policy's mean, (T, actions).
        log_std: Its exploration, (T, actions).
        reward: Training reward of each step, (T,).
        terminated: The task ended after the last step: its future is worth nothing. Otherwise
            (time limit, gap, take-over, end of data) the value of the last state stands in for it.
    """

    features: dict[str, NDArray[np.generic]]
    sample: Float
    log_prob: Float
    mean: Float
    log_std: Float
    reward: Float
    terminated: bool

    def __len__(self) -> int:
        return len(self.reward)


def generalized_advantages(reward: Float, value: Float, last_value: float, *, gamma: float, lam: float) -> Float:
    """Return GAE(gamma, lambda) of one trace (Schulman et al., 1506.02438), (T,).

    Args:
        reward: Reward of each step, (T,).
        value: Value of each state, (T,).
        last_value: Value of the state after the last step: 0 if the episode terminated there.
        gamma: Discount per step.
        lam: Weight of longer returns, 0..1.
    """
    following = np.append(value[1:], np.float32(last_value))
    return accumulated(reward + gamma * following - value, np.full(len(reward), gamma * lam, np.float32))


def accumulated(error: Float, decay: Float) -> Float:
    """Return A with A[t] = error[t] + decay[t] * A[t + 1], nothing behind the end; both (T, ...)."""
    result = np.empty_like(error)
    following = np.zeros_like(error[0])
    for t in range(len(error) - 1, -1, -1):
        result[t] = following = error[t] + decay[t] * following
    return result


@dataclass(frozen=True)
class Rollout:
    """The tensors of one update, one row per step."""

    features: Features
    sample: Tensor
    log_prob: Tensor
    mean: Tensor
    log_std: Tensor
    advantage: Tensor
    value_target: Tensor

    def __len__(self) -> int:
        return len(self.log_prob)

    def rows(self, index: Tensor) -> Rollout:
        """Return some rows."""
        return Rollout(
            {name: tensor[index] for name, tensor in self.features.items()},
            self.sample[index],
            self.log_prob[index],
            self.mean[index],
            self.log_std[index],
            self.advantage[index],
            self.value_target[index],
        )

    @classmethod
    def build(
        cls,
        traces: Sequence[Trace],
        network: ActorCritic,
        *,
        gamma: float,
        lam: float,
        reward_scale: float,
        device: torch.device,
    ) -> Rollout:
        """Value every state with `network` and compute advantages trace by trace."""
        states = {
            name: torch.from_numpy(np.concatenate([trace.features[name] for trace in traces]))
            for name in traces[0].features
        }
        values = _values(network, states, device)
        advantages, targets, rows, start = [], [], [], 0
        for trace in traces:
            stop = start + len(trace)
            value = values[start:stop]
            last_value = 0.0 if trace.terminated else float(values[stop])
            advantage = generalized_advantages(
                trace.reward * np.float32(reward_scale), value, last_value, gamma=gamma, lam=lam
            )
            advantages.append(advantage)
            targets.append(advantage + value)
            rows.append(np.arange(start, stop))
            start = stop + 1
        keep = torch.from_numpy(np.concatenate(rows))

        def joined(arrays: Sequence[Float]) -> Tensor:
            return torch.from_numpy(np.concatenate(arrays)).to(device)

        return cls(
            {name: tensor[keep].to(device) for name, tensor in states.items()},
            joined([trace.sample for trace in traces]),
            joined([trace.log_prob for trace in traces]),
            joined([trace.mean for trace in traces]),
            joined([trace.log_std for trace in traces]),
            joined(advantages),
            joined(targets),
        )


def _values(network: ActorCritic, states: Features, device: torch.device, chunk: int = 512) -> Float:
    count = len(states["proprio"])
    with torch.no_grad():
        parts = [
            network.value({name: tensor[i : i + chunk].to(device) for name, tensor in states.items()}).cpu()
            for i in range(0, count, chunk)
        ]
    values: Float = torch.cat(parts).numpy()
    return values
