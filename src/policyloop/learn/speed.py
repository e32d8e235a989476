"""How fast this machine learns: real updates of the real network, on made-up steps, for a moment."""

from __future__ import annotations

import time

import torch

from policyloop.core.profile import RobotProfile
from policyloop.learn.device import choose_device, keep_freed_memory
from policyloop.learn.networks import make_network
from policyloop.learn.ppo import PpoSettings, make_optimizer, ppo_update
from policyloop.learn.rollout import Rollout
from policyloop.learn.tuning import made_up_features

__all__ = ["measure_passes_per_s"]

_FEWEST_STEPS = 8


def measure_passes_per_s(
    profile: RobotProfile, network_name: str = "spatial", device_name: str = "auto", seconds: float = 0.3
) -> float:
    """Return how many steps a second go forward and backward through the network in PPO's update.

    Minibatches grow until one takes half of `seconds`, or is as large as PPO's own; a GPU needs large ones. The fastest
    counts: other work on the machine only slows.

    Args:
        profile: The robot's.
        network_name: Of `make_network`.
        device_name: auto, cpu or cuda.
        seconds: About how long to try.
    """
    device, settings = choose_device(device_name), PpoSettings(epochs=1)
    keep_freed_memory()
    network = make_network(network_name, profile).to(device)
    optimizer, generator = make_optimizer(network, settings), torch.Generator()
    steps, fastest = _FEWEST_STEPS, 0.0
    while True:
        rollout = _made_up(profile, steps, device)
        ppo_update(network, optimizer, rollout, settings, generator=generator)  # first calls choose algorithms
        started_s = time.perf_counter()
        ppo_update(network, optimizer, rollout, settings, generator=generator)  # ends with numbers on the CPU
        took_s = time.perf_counter() - started_s
        fastest = max(fastest, steps / took_s)
        if took_s >= seconds / 2 or steps >= settings.minibatch:
            return fastest
        steps *= 2


def _made_up(profile: RobotProfile, steps: int, device: torch.device) -> Rollout:
    actions = torch.zeros(steps, len(profile.action), device=device)
    numbers = torch.randn(steps, device=device)
    nothing = torch.zeros_like(numbers)  # the same density before and now: no step is left out
    return Rollout(
        features=made_up_features(profile, steps, device),
        sample=actions,
        log_prob=nothing,
        mean=actions,
        log_std=actions,
        start_mean=actions,
        start_log_prob=nothing,
        advantage=numbers,
        value_target=numbers,
    )
