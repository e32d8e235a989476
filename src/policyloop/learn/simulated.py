"""Learning by PPO from many simulated robots in this very process: no network, no journal, every step is fresh."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policyloop.bundle.build import Bundle
from policyloop.convert.export import export_bundle
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError
from policyloop.learn.checkpoint import Checkpoint, CheckpointState, save_checkpoint
from policyloop.learn.distribution import gaussian_log_prob
from policyloop.learn.networks import Features, MlpNetwork, NetworkSettings
from policyloop.learn.ppo import PpoSettings, make_optimizer, ppo_update
from policyloop.learn.rollout import Rollout, accumulated

__all__ = ["SimulatedLearner", "SimulatedRobots", "SimulationProgress", "SimulationSettings", "advantages"]

Float32 = NDArray[np.float32]


class Outcomes(Protocol):
    """What came of one tick; one row per robot."""

    @property
    def reward(self) -> Float32:
        """Of the tick."""

    @property
    def terminated(self) -> NDArray[np.bool_]:
        """The task ended: its future is worth nothing."""

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """The episode was cut: its future has a value."""

    @property
    def final_proprio(self) -> Float32:
        """What was seen before those that ended were put elsewhere, (n, proprio)."""

    @property
    def final_privileged(self) -> Float32:
        """The same for the critic, (n, privileged)."""


class SimulatedRobots(Protocol):
    """Many robots that are stepped at once."""

    profile: RobotProfile
    count: int
    privileged_size: int

    def observe(self) -> tuple[Float32, Float32]:
        """Return the proprioception vectors and what only the critic sees."""

    def step(self, outputs: NDArray[np.floating]) -> Outcomes:
        """Follow the networks' outputs, (n, actions), for one tick."""


class SimulationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings; the defaults teach a quadruped to walk."""

    horizon: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Ticks of every robot per update."""
    hidden_sizes: tuple[int, ...] = (256, 128)
    activation: str = "elu"
    seed: int = 0
    steps: int = 3_000_000
    """Learn from so many; exploration and learning rate fall over them."""
    narrow_by: float = 0.5
    """Share of the steps after which exploration is as narrow as it gets: a gait that lives on noise falls without."""
    ppo: PpoSettings = PpoSettings(
        learning_rate=1e-3,
        critic_learning_rate=1e-3,
        entropy_weight=0.0,
        value_weight=1.0,
        epochs=4,
        minibatch=2048,
        max_grad_norm=1.0,
        reward_scale=1.0,
        critic_warmup_updates=0,
        initial_log_std=math.log(0.8),
        final_log_std=math.log(0.25),
        noise_hold_ticks=1,
    )


class SimulationProgress(msgspec.Struct, frozen=True, kw_only=True):
    """After an update."""

    update: int
    steps: int
    elapsed_s: float
    cpu_s: float
    reward: float
    """Per step."""
    falls: float
    """Share of the steps that ended in a termination."""
    statistics: dict[str, float]


class SimulatedLearner:
    """Improves one network on what many simulated robots do.

    Args:
        robots: The robots; the action map of their profile is their own business.
        settings: What to do for how long.

    Attributes:
        network: What has been learned.
        update, steps: How much it has been learned from.
    """

    def __init__(self, robots: SimulatedRobots, settings: SimulationSettings) -> None:
        torch.manual_seed(settings.seed)
        self._robots, self._settings = robots, settings
        self._normalizer = robots.profile.nominal_normalizer
        self.network = MlpNetwork(
            robots.profile,
            initial_log_std=settings.ppo.initial_log_std,
            settings=NetworkSettings(
                hidden_sizes=settings.hidden_sizes,
                activation=settings.activation,
                privileged_size=robots.privileged_size,
            ),
        )
        self._optimizer = make_optimizer(self.network, settings.ppo)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self.update = self.steps = 0

    def updates(self, stop: threading.Event) -> Iterator[SimulationProgress]:
        """Learn, update by update, until the steps are done or `stop` is set."""
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        while self.steps < self._settings.steps and not stop.is_set():
            rollout, reward, falls = self._collect()
            statistics = ppo_update(
                self.network, self._optimizer, rollout, self._scheduled(), generator=self._generator
            )
            self.update += 1
            self.steps += len(rollout)
            yield SimulationProgress(
                update=self.update,
                steps=self.steps,
                elapsed_s=time.monotonic() - started_s,
                cpu_s=time.process_time() - started_cpu_s,
                reward=reward,
                falls=falls,
                statistics=statistics,
            )

    def save(self, directory: Path, state: CheckpointState, bundle: Bundle) -> None:
        """Write a checkpoint; StorageError if the disk refuses."""
        save_checkpoint(directory, state, self.network, self._optimizer, self._generator, bundle)

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint; IncompatibleError if it is of another profile or network."""
        profile = self._robots.profile
        if saved.state.profile_digest != profile.digest:
            raise IncompatibleError(
                f"the checkpoint is of another profile than '{profile.name}'", "give the profile it was trained with"
            )
        saved.restore(self.network, self._optimizer, self._generator)
        self.update, self.steps = saved.state.update, saved.state.feed.ledger.get("trained", 0)

    def _scheduled(self) -> PpoSettings:
        """Return PPO's settings of now: exploration narrows first, the learning rate falls to the end."""
        settings, done = self._settings, self.steps / self._settings.steps
        ppo = settings.ppo
        narrowed = min(1.0, done / settings.narrow_by)
        wide, narrow = math.exp(ppo.initial_log_std), math.exp(ppo.final_log_std)
        rate = ppo.learning_rate * (1 - (1 - ppo.learning_rate_floor) * done)
        return msgspec.structs.replace(ppo, max_log_std=math.log(wide + (narrow - wide) * narrowed), learning_rate=rate)

    def _features(self, proprio: Float32, privileged: Float32) -> Features:
        return {"proprio": torch.from_numpy(self._normalizer(proprio)), "privileged": torch.from_numpy(privileged)}

    def _collect(self) -> tuple[Rollout, float, float]:
        """Let the robots act; returns the rollout, the mean reward, and the share of steps that ended in a fall."""
        settings, network, robots = self._settings.ppo, self.network, self._robots
        seen: list[Features] = []
        means: list[Tensor] = []
        samples: list[Tensor] = []
        values: list[Float32] = []
        rewards: list[Float32] = []
        ends: list[NDArray[np.bool_]] = []
        futures: list[Float32] = []
        falls = 0.0
        with torch.no_grad():
            log_std = network.log_std.detach().clone()
            for _ in range(self._settings.horizon):
                features = self._features(*robots.observe())
                mean, value = network.mean_and_value(features)
                noise = torch.randn(mean.shape, generator=self._generator)
                sample = mean + log_std.exp() * noise
                came = robots.step(sample.numpy().astype(np.float64))
                ended = came.terminated | came.truncated
                future = np.zeros(robots.count, np.float32)
                if came.truncated.any():
                    final = self._features(came.final_proprio[came.truncated], came.final_privileged[came.truncated])
                    future[came.truncated] = network.value(final).numpy()
                seen.append(features)
                means.append(mean)
                samples.append(sample)
                values.append(value.numpy())
                rewards.append(came.reward)
                ends.append(ended)
                futures.append(future)
                falls += float(came.terminated.mean())
            values.append(network.value(self._features(*robots.observe())).numpy())
        reward = np.stack(rewards) * np.float32(settings.reward_scale)
        advantage = advantages(
            reward, np.stack(values), np.stack(ends), np.stack(futures), gamma=settings.gamma, lam=settings.lam
        )
        mean, sample = torch.cat(means), torch.cat(samples)
        target = torch.from_numpy(advantage + np.stack(values[:-1])).flatten()
        log_prob = gaussian_log_prob(sample, mean, log_std)
        rollout = Rollout(
            {name: torch.cat([features[name] for features in seen]) for name in seen[0]},
            sample,
            log_prob,
            mean,
            log_std.expand_as(mean),
            mean,
            log_prob,
            torch.from_numpy(advantage).flatten(),
            target,
        )
        return rollout, float(reward.mean()) / settings.reward_scale, falls / self._settings.horizon

    def export(self, version: int) -> Bundle:
        """Return what has been learned as a bundle."""
        proprio, _ = self._robots.observe()
        return export_bundle(
            self.network,
            self._robots.profile,
            self._normalizer,
            network_name="mlp",
            version=version,
            noise_hold_ticks=self._settings.ppo.noise_hold_ticks,
            observations=[{"proprio": row} for row in self._normalizer(proprio[:64])],
            training={
                "learner": "ppo, simulated robots",
                "update": self.update,
                "steps": self.steps,
                "seed": self._settings.seed,
            },
        )


def advantages(
    reward: Float32,
    value: Float32,
    ended: NDArray[np.bool_],
    future: Float32,
    *,
    gamma: float,
    lam: float,
) -> Float32:
    """Return GAE(gamma, lambda) of many robots at once (Schulman et al., 1506.02438), (T, n).

    Args:
        reward: (T, n).
        value: Of each state and of the one after the last, (T + 1, n).
        ended: The episode ended with this step; the next row belongs to another one, (T, n).
        future: Value of the state in which an episode was cut; 0 where it terminated, (T, n).
        gamma: Discount per step.
        lam: Weight of longer returns, 0..1.
    """
    following = np.where(ended, future, value[1:])
    error = (reward + gamma * following - value[:-1]).astype(np.float32)
    return accumulated(error, np.where(ended, 0, gamma * lam).astype(np.float32))
