"""The example of a quadruped: a random policy, its description and statistics, and an environment (row S31)."""

from __future__ import annotations

import io
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from policyloop.core.files import write_directory
from policyloop.core.normalizer import Normalizer, RunningStatistics
from policyloop.core.profile import load_profile
from policyloop.errors import StorageError, UsageError
from policyloop.example.dummy_env import make_env, make_policy

__all__ = ["write_lite3_example"]

_HIDDEN = (512, 256, 128)
"""Of the vendor's own policy, and its activation, ELU."""
_STEPS = 2000
_COPIED = ("dummy_env.py", "README.md")


def write_lite3_example(directory: Path, seed: int = 0) -> None:
    """Write `policy.pt`, `net.yaml`, `obs_stats.npz`, `dummy_env.py` and `README.md`.

    Args:
        directory: New folder.
        seed: Equal seeds give equal bytes with the same torch.

    Raises:
        UsageError: There is something at `directory`.
        StorageError: The disk refuses.
    """
    if directory.exists():
        raise UsageError(f"{directory} exists", "choose another --output")
    profile = load_profile("lite3")
    sizes = (profile.proprio_size, *_HIDDEN, len(profile.action))
    files = {name: (resources.files("policyloop.example") / name).read_bytes() for name in _COPIED}
    files["policy.pt"] = _random_policy(sizes, seed)
    files["net.yaml"] = (
        f"obs_dim: {sizes[0]}\nact_dim: {sizes[-1]}\nhidden_sizes: {list(_HIDDEN)}\nactivation: elu\n"
        "output: linear        # target = center + scale * output, as the profile says\n"
    ).encode()
    files["obs_stats.npz"] = _as_npz(_statistics(sizes[0], seed))
    try:
        write_directory(directory, files)
    except OSError as error:
        raise StorageError.cannot_write(directory, error) from error


def _random_policy(sizes: tuple[int, ...], seed: int) -> bytes:
    """Return a plain state dict, as `torch.save(network.state_dict(), path)` writes it."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ELU()]
    buffer = io.BytesIO()
    torch.save(nn.Sequential(*layers[:-1]).state_dict(), buffer)
    return buffer.getvalue()


def _statistics(size: int, seed: int) -> Normalizer:
    """Return mean and deviation of what the environment lets the robot sense."""
    env, policy, seen = make_env(), make_policy(), []
    observation, _ = env.reset(seed=seed)
    for _ in range(_STEPS):
        observation, _, terminated, truncated, _ = env.step(policy(observation))
        seen.append(observation["proprio"])
        if terminated or truncated:
            observation, _ = env.reset()
    statistics = RunningStatistics(size)
    statistics.update(np.stack(seen))
    return statistics.freeze()


def _as_npz(normalizer: Normalizer) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, mean=np.array(normalizer.mean), std=np.array(normalizer.std))
    return buffer.getvalue()
