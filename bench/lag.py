"""PPO on steps that lag: what is left of the return when robots drive a policy that is some updates old.

    python bench/lag.py --seeds 10

A cart that steers like a rover drives to one place after the other, 64 of them at once, without a picture: small
enough that ten seeds of each case take minutes. Robots act with the policy of so many updates ago; `corrected` is the
decoupled objective on V-trace values, `textbook` one ratio to the recorded density and GAE. Scores are of the mean.
"""

from __future__ import annotations

import argparse
import copy
from collections import deque
from concurrent.futures import ProcessPoolExecutor

import msgspec
import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray

from policyloop.core.profile import EpisodeRules, Limits, RobotProfile
from policyloop.core.spec import Quantity, RangedQuantity
from policyloop.learn.distribution import gaussian_log_prob
from policyloop.learn.networks import ActorCritic, make_network
from policyloop.learn.ppo import PpoSettings, make_optimizer, ppo_update
from policyloop.learn.rollout import Rollout, Trace
from policyloop.statistics import bootstrap_interval

ROBOTS, HORIZON, EPISODE = 64, 50, 100
PROFILE = RobotProfile(
    name="cart",
    proprio=tuple(Quantity(name=name, unit="1") for name in ("ahead", "left", "near", "speed", "turn")),
    action=(
        RangedQuantity(name="linear", unit="m/s", low=-0.2, high=1.0),
        RangedQuantity(name="angular", unit="rad/s", low=-2.0, high=2.0),
    ),
    limits=Limits(max_forward_mps=1.0, max_reverse_mps=0.2, max_angular_radps=2.0),
    episode=EpisodeRules(max_steps=EPISODE),
)
SETTINGS = PpoSettings(
    learning_rate=1e-3,
    minibatch=800,
    epochs=4,
    gamma=0.95,
    desired_kl=0.02,
    entropy_weight=0.0,
    critic_warmup_updates=0,
    reward_scale=1.0,
    initial_log_std=-0.5,
    max_log_std=-0.5,
)

Array = NDArray[np.float32]


class Carts:
    """Carts with inertia, each with a place to go to; the reward is the way it came nearer, and 2 for being there."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.x, self.y, self.yaw, self.v, self.w = (np.zeros(ROBOTS, np.float32) for _ in range(5))
        self.age = self._rng.integers(0, EPISODE, ROBOTS)
        self._goal = self._places(ROBOTS)

    def _places(self, count: int) -> Array:
        return self._rng.uniform(-3, 3, (2, count)).astype(np.float32)

    def _offset(self) -> tuple[Array, Array, Array]:
        dx, dy = self._goal[0] - self.x, self._goal[1] - self.y
        ahead = np.cos(self.yaw) * dx + np.sin(self.yaw) * dy
        left = -np.sin(self.yaw) * dx + np.cos(self.yaw) * dy
        return ahead, left, np.hypot(dx, dy)

    def observe(self) -> Array:
        """Return where the places are, and the carts' speeds, (ROBOTS, 5)."""
        ahead, left, distance = self._offset()
        return np.stack([ahead / 3, left / 3, 1 / (1 + 3 * distance), self.v, self.w / 2], axis=1).astype(np.float32)

    def step(self, actions: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Drive for a tick; returns the rewards and whose time is over."""
        before = self._offset()[2]
        self.v += np.clip(actions[:, 0] - self.v, -0.2, 0.2)
        self.w += np.clip(actions[:, 1] - self.w, -0.6, 0.6)
        self.yaw += 0.1 * self.w
        self.x += 0.1 * self.v * np.cos(self.yaw)
        self.y += 0.1 * self.v * np.sin(self.yaw)
        after = self._offset()[2]
        there = after < 0.25
        self._goal[:, there] = self._places(int(there.sum()))
        self.age += 1
        return (before - after + 2 * there).astype(np.float32), self.age >= EPISODE

    def begin(self, which: NDArray[np.bool_]) -> None:
        """Let some begin anew."""
        for value in (self.x, self.y, self.v, self.w):
            value[which] = 0
        self.yaw[which] = self._rng.uniform(-3, 3, int(which.sum()))
        self._goal[:, which] = self._places(int(which.sum()))
        self.age[which] = 0


def collect(carts: Carts, network: ActorCritic, generator: torch.Generator) -> list[Trace]:
    """Let the carts drive with a policy; returns a trace for each stretch of each cart."""
    log_std = network.log_std.detach()
    rows: list[list[list[Array]]] = [[[]] for _ in range(ROBOTS)]
    finals: list[list[Array]] = [[] for _ in range(ROBOTS)]
    for tick in range(HORIZON):
        seen = carts.observe()
        with torch.no_grad():
            mean = network.mean({"proprio": torch.from_numpy(seen)})
            sample = mean + log_std.exp() * torch.randn(mean.shape, generator=generator)
            log_prob = gaussian_log_prob(sample, mean, log_std)
        reward, ended = carts.step(np.asarray(PROFILE.actions_of(sample.numpy()), np.float32))
        after = carts.observe()
        for robot in range(ROBOTS):
            part = (seen[robot], sample[robot].numpy(), log_prob[robot].numpy(), mean[robot].numpy(), reward[robot])
            rows[robot][-1].append(part)
            if ended[robot] or tick == HORIZON - 1:
                finals[robot].append(after[robot])
                rows[robot].append([])
        carts.begin(ended)
    traces = []
    for robot in range(ROBOTS):
        for steps, final in zip(rows[robot], finals[robot], strict=False):
            seen, sample, log_prob, mean, reward = (np.stack(column) for column in zip(*steps, strict=True))
            wide = np.broadcast_to(log_std.numpy(), mean.shape).copy()
            features = {"proprio": np.concatenate([seen, final[None]])}
            traces.append(Trace(features, sample, log_prob, mean, wide, reward, terminated=False))
    return traces


def score(network: ActorCritic) -> float:
    """Return the mean reward of an episode of the policy's mean."""
    carts, total = Carts(999), 0.0
    carts.begin(np.ones(ROBOTS, bool))
    for _ in range(EPISODE):
        with torch.no_grad():
            mean = network.mean({"proprio": torch.from_numpy(carts.observe())}).numpy()
        total += float(carts.step(np.asarray(PROFILE.actions_of(mean), np.float32))[0].mean())
    return total


def run(case: tuple[int, bool, int, int]) -> float:
    """Learn with this lag; returns the score."""
    lag, corrected, seed, updates = case
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network = make_network("mlp", PROFILE, initial_log_std=SETTINGS.initial_log_std)
    settings = msgspec.structs.replace(SETTINGS, correct_lag=corrected)
    optimizer, generator = make_optimizer(network, settings), torch.Generator().manual_seed(seed)
    carts, past = Carts(seed), deque([copy.deepcopy(network)], maxlen=lag + 1)
    for _ in range(updates):
        traces = collect(carts, past[0], generator)
        rollout = Rollout.build(
            traces,
            network,
            gamma=settings.gamma,
            lam=settings.lam,
            reward_scale=settings.reward_scale,
            device=torch.device("cpu"),
            correct_lag=corrected,
        )
        ppo_update(network, optimizer, rollout, settings, generator=generator)
        past.append(copy.deepcopy(network))
    return score(network)


def main() -> None:
    """Print one row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--lags", type=int, nargs="+", default=[0, 2, 4, 8])
    arguments = parser.parse_args()
    print(machine())
    print("| lag | objective | score [95 %] | of lag 0 |\n|---|---|---|---|")
    reference = 0.0
    with ProcessPoolExecutor(2) as pool:
        for lag in arguments.lags:
            for corrected in (True, False):
                cases = [(lag, corrected, seed, arguments.updates) for seed in range(arguments.seeds)]
                scores = list(pool.map(run, cases))
                low, high = bootstrap_interval(scores)
                mean = float(np.mean(scores))
                reference = reference or mean
                name = "corrected" if corrected else "textbook"
                print(f"| {lag} | {name} | {mean:.2f} [{low:.2f}, {high:.2f}] | {mean / reference:.0%} |", flush=True)


if __name__ == "__main__":
    main()
