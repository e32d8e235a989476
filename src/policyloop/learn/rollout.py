"""One update's data: traces of consecutive policy steps, their advantages, and the tensors to learn from.

A step was drawn by the policy that the robot had, which may be older than the one that learns from it now. Its recorded
density says how much likelier the present policy makes it: that ratio corrects values (V-trace) and gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policyloop.learn.distribution import gaussian_log_prob
from policyloop.learn.networks import ActorCritic, Features

__all__ = ["Rollout", "Trace", "accumulated", "vtrace"]

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


def vtrace(
    reward: Float, value: Float, last_value: float, ratio: Float, *, gamma: float, lam: float
) -> tuple[Float, Float]:
    """Return advantages and value targets of one trace that another policy drew, (T,) each.

    V-trace (Espeholt et al., 1802.01561) with both truncations at 1 and lambda: targets are corrected by
    rho = min(1, ratio), step by step. A step's own ratio is left out of its advantage, because the objective has it.
    Where every ratio is 1 the advantages are GAE(gamma, lambda) (Schulman et al., 1506.02438), and the targets value
    plus advantage.

    Args:
        reward: Reward of each step, (T,).
        value: Value of each state under the present policy, (T,).
        last_value: Value of the state after the last step: 0 if the episode terminated there.
        ratio: Density of each step's sample under the present policy over that under the one that drew it, (T,).
        gamma: Discount per step.
        lam: Weight of longer returns, 0..1.
    """
    kept = np.minimum(ratio, np.float32(1))
    error = reward + np.float32(gamma) * np.append(value[1:], np.float32(last_value)) - value
    correction = accumulated(kept * error, np.float32(gamma * lam) * kept)
    return error + np.float32(gamma * lam) * np.append(correction[1:], np.float32(0)), value + correction


def accumulated(error: Float, decay: Float) -> Float:
    """Return A with A[t] = error[t] + decay[t] * A[t + 1], nothing behind the end; both (T, ...)."""
    result = np.empty_like(error)
    following = np.zeros_like(error[0])
    for t in range(len(error) - 1, -1, -1):
        result[t] = following = error[t] + decay[t] * following
    return result


@dataclass(frozen=True)
class Rollout:
    """The tensors of one update, one row per step.

    Attributes:
        features: Network inputs.
        sample: Pre-tanh sample that was drawn, (n, actions).
        log_prob: Its log-density under the policy that drew it, (n,).
        mean: That policy's mean, (n, actions).
        log_std: Its exploration, (n, actions).
        start_mean: The learning network's mean as the update begins, (n, actions).
        start_log_prob: Log-density of the sample under it, (n,).
        advantage: How much better than expected the step was, (n,).
        value_target: What the value function should have said, (n,).
    """

    features: Features
    sample: Tensor
    log_prob: Tensor
    mean: Tensor
    log_std: Tensor
    start_mean: Tensor
    start_log_prob: Tensor
    advantage: Tensor
    value_target: Tensor

    def __len__(self) -> int:
        return len(self.log_prob)

    @property
    def ratio(self) -> Tensor:
        """How much likelier each sample is now than it was when it was drawn, (n,)."""
        return (self.start_log_prob - self.log_prob).exp()

    def rows(self, index: Tensor) -> Rollout:
        """Return some rows."""
        return Rollout(
            {name: tensor.index_select(0, index) for name, tensor in self.features.items()},
            *(
                tensor.index_select(0, index)
                for tensor in (
                    self.sample,
                    self.log_prob,
                    self.mean,
                    self.log_std,
                    self.start_mean,
                    self.start_log_prob,
                    self.advantage,
                    self.value_target,
                )
            ),
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
        correct_lag: bool = True,
        rows_at_once: int = 0,
    ) -> Rollout:
        """Value every state with `network` and compute advantages trace by trace.

        Without `correct_lag` every step counts as if the present policy had drawn it. The network sees
        `rows_at_once` states at a time; 0 = some hundreds. Without traces there are no rows.
        """
        if not traces:
            number, vector = torch.empty(0, device=device), torch.empty((0, len(network.log_std)), device=device)
            return cls({}, vector, number, vector, vector, vector, number, number, number)
        names = traces[0].features
        features = {
            name: torch.from_numpy(np.concatenate([trace.features[name][:-1] for trace in traces])).to(device)
            for name in names
        }
        behind = {
            name: torch.from_numpy(np.stack([trace.features[name][-1] for trace in traces])).to(device)
            for name in names
        }
        start_mean, value = _means_and_values(network, features, rows_at_once or 512)
        _, last_value = _means_and_values(network, behind, rows_at_once or 512)

        def joined(arrays: Sequence[Float]) -> Tensor:
            return torch.from_numpy(np.concatenate(arrays)).to(device)

        sample, log_prob = joined([trace.sample for trace in traces]), joined([trace.log_prob for trace in traces])
        start_log_prob = log_prob
        if correct_lag:
            with torch.no_grad():
                start_log_prob = gaussian_log_prob(sample, start_mean, network.log_std)
        ends = np.cumsum([len(trace) for trace in traces])[:-1]
        ratios = np.split((start_log_prob - log_prob).exp().cpu().numpy(), ends)
        advantages, targets = [], []
        for trace, values, last, ratio in zip(traces, np.split(value, ends), last_value, ratios, strict=True):
            advantage, target = vtrace(
                trace.reward * np.float32(reward_scale),
                values,
                0.0 if trace.terminated else float(last),
                ratio,
                gamma=gamma,
                lam=lam,
            )
            advantages.append(advantage)
            targets.append(target)
        return cls(
            features,
            sample,
            log_prob,
            joined([trace.mean for trace in traces]),
            joined([trace.log_std for trace in traces]),
            start_mean,
            start_log_prob,
            joined(advantages),
            joined(targets),
        )


def _means_and_values(network: ActorCritic, features: Features, rows_at_once: int) -> tuple[Tensor, Float]:
    with torch.no_grad():
        parts = [
            network.mean_and_value({name: tensor[start : start + rows_at_once] for name, tensor in features.items()})
            for start in range(0, len(features["proprio"]), rows_at_once)
        ]
    values: Float = torch.cat([value for _, value in parts]).cpu().numpy()
    return torch.cat([mean for mean, _ in parts]), values
