"""Behaviour cloning: regress the demonstrated action, from whoever drove (row P3)."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from policyloop.core.profile import RobotProfile
from policyloop.learn.demonstrations import Demonstrations
from policyloop.learn.distribution import unsquash
from policyloop.learn.networks import ActorCritic, Features

__all__ = ["BcSettings", "clone", "cloning_loss", "draw_batch"]


class BcSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of behaviour cloning."""

    learning_rate: float = 1e-3
    epochs: int = 10
    minibatch: int = 128
    huber_beta: float = 0.3
    mirror: bool = True
    """Learn from every second minibatch as seen in a mirror: free data for a symmetric robot."""


def mirrored(profile: RobotProfile, features: Features, shares: Tensor) -> tuple[Features, Tensor]:
    """Return the same scene with left and right exchanged.

    Pictures are flipped; yaw rate and roll, and the angular action, change sign.
    """
    proprio = features["proprio"].clone()
    sensed = {quantity.name for quantity in profile.proprio}
    for name in sensed & {"angular_vel", "roll"}:
        proprio[:, profile.proprio_index(name)] *= -1
    flipped = {name: tensor.flip(-1) for name, tensor in features.items() if name in ("rgb", "depth", "scan")}
    signs = torch.tensor([-1.0 if quantity.name == "angular" else 1.0 for quantity in profile.action])
    return {**features, **flipped, "proprio": proprio}, shares * signs.to(shares.device)


def cloning_loss(
    network: ActorCritic, features: Features, shares: Tensor, huber_beta: float, profile: RobotProfile
) -> Tensor:
    """Return the Huber distance between the proposed and the demonstrated shares of the action's scale."""
    mean = network.mean(features)
    proposed = torch.tanh(mean) if profile.action_map == "tanh" else mean
    return functional.smooth_l1_loss(proposed, shares, beta=huber_beta)


def draw_batch(
    demonstrations: Demonstrations,
    profile: RobotProfile,
    size: int,
    *,
    mirror: bool,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Features, Tensor]:
    """Draw random demonstrations, with `mirror` every second time mirrored; returns features and action shares."""
    rows = torch.randint(len(demonstrations), (size,), generator=generator)
    index = rows.numpy()
    features = {name: torch.from_numpy(array[index]).to(device) for name, array in demonstrations.features.items()}
    shares = _shares(profile, demonstrations.actions[index]).to(device)
    if mirror and profile.camera is not None and int(rows[0]) % 2:
        return mirrored(profile, features, shares)
    return features, shares


def _shares(profile: RobotProfile, actions: NDArray[np.float32]) -> Tensor:
    """Return by how many scales each action lies off its centre; short of the edge where tanh reaches it nowhere."""
    limit = 0.95 if profile.action_map == "tanh" else math.inf
    center, scale = torch.from_numpy(profile.action_center), torch.from_numpy(profile.action_scale)
    return unsquash(torch.from_numpy(actions), center, scale, limit)


def clone(
    network: ActorCritic,
    demonstrations: Demonstrations,
    profile: RobotProfile,
    settings: BcSettings,
    *,
    generator: torch.Generator,
    device: torch.device,
    progress: Callable[[int, int, float], None] | None = None,
) -> dict[str, float]:
    """Teach `network` to propose what the demonstrations propose; return statistics.

    Args:
        network: Updated in place.
        demonstrations: At least one minibatch of them.
        profile: Gives the action map.
        settings: Epochs, rates.
        generator: Source of the minibatch order.
        device: Where `network` lives.
        progress: Called with (steps so far, steps in all, loss).
    """
    features = {name: torch.from_numpy(array) for name, array in demonstrations.features.items()}
    shares = _shares(profile, demonstrations.actions)
    size = min(settings.minibatch, len(demonstrations))
    total = settings.epochs * (len(demonstrations) // size)
    symmetric = settings.mirror and profile.camera is not None
    optimizer = torch.optim.Adam(network.actor_parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - 0.95 * step / total)
    steps, losses = 0, []
    for _ in range(settings.epochs):
        order = torch.randperm(len(demonstrations), generator=generator)
        for index in order[: len(order) // size * size].split(size):
            batch = {name: tensor[index].to(device) for name, tensor in features.items()}
            target = shares[index].to(device)
            if symmetric and steps % 2:
                batch, target = mirrored(profile, batch, target)
            loss = cloning_loss(network, batch, target, settings.huber_beta, profile)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            steps += 1
            losses.append(loss.item())
            if progress is not None:
                progress(steps, total, losses[-1])
    tail = losses[-max(1, len(losses) // settings.epochs) :]
    return {"loss": sum(tail) / len(tail), "frames": float(len(demonstrations)), "steps": float(steps)}
