"""Behaviour cloning: regress the demonstrated action, from whoever drove (row P3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

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

__all__ = ["BcSettings", "clone", "cloning_loss", "draw_batch", "mirrored", "shifted"]


class BcSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of behaviour cloning."""

    learning_rate: float = 1e-3
    epochs: int = 10
    minibatch: int = 128
    huber_beta: float = 0.3
    mirror: bool = True
    """Learn from every second minibatch as seen in a mirror: free data for a symmetric robot."""
    shift_px: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Pictures are shifted by up to so many pixels, another way in each minibatch (Kostrikov et al., 2004.13649)."""
    smoothness: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Weight of how far apart the proposals of consecutive steps lie (CAPS, Mysore et al., 2012.06644)."""
    held_out: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    """Share of the demonstrations, in whole episodes, that only judge. Driving judges better: `policyloop evaluate`."""


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
    return functional.smooth_l1_loss(_proposed(network, features, profile), shares, beta=huber_beta)


def _proposed(network: ActorCritic, features: Features, profile: RobotProfile) -> Tensor:
    """Return the proposals in shares of the action's scale."""
    mean = network.mean(features)
    return torch.tanh(mean) if profile.action_map == "tanh" else mean


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
    optimizer: torch.optim.Adam | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> dict[str, float]:
    """Teach `network` to propose what the demonstrations propose; return statistics.

    Args:
        network: Updated in place.
        demonstrations: What to imitate.
        profile: Gives the action map.
        settings: Epochs, rates.
        generator: Source of the minibatch order.
        device: Where `network` lives.
        optimizer: Of the actor's parameters, to go on with; None = a new one.
        progress: Called with (steps so far, steps in all, loss).
    """
    features = {name: torch.from_numpy(array) for name, array in demonstrations.features.items()}
    shares = _shares(profile, demonstrations.actions)
    following = torch.from_numpy(demonstrations.following)
    learned, held_out = _split(demonstrations, settings.held_out)
    size = min(settings.minibatch, len(learned))
    total = settings.epochs * (len(learned) // size)
    symmetric = settings.mirror and profile.camera is not None
    optimizer = optimizer or torch.optim.Adam(network.actor_parameters())
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = settings.learning_rate
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - 0.95 * step / total)

    def seen(rows: Tensor) -> Features:
        return {name: tensor[rows].to(device) for name, tensor in features.items()}

    steps, losses = 0, []
    for _ in range(settings.epochs):
        order = learned[torch.randperm(len(learned), generator=generator)]
        for rows in order[: len(order) // size * size].split(size):
            batch, target = seen(rows), shares[rows].to(device)
            if symmetric and steps % 2:
                batch, target = mirrored(profile, batch, target)
            if settings.shift_px:
                batch = shifted(batch, settings.shift_px, generator)
            loss = cloning_loss(network, batch, target, settings.huber_beta, profile)
            if settings.smoothness:
                pairs = rows[following[rows] >= 0]
                apart = _proposed(network, seen(pairs), profile) - _proposed(network, seen(following[pairs]), profile)
                loss = loss + settings.smoothness * apart.square().sum() / size
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            steps += 1
            losses.append(loss.item())
            if progress is not None:
                progress(steps, total, losses[-1])
    tail = losses[-max(1, len(losses) // settings.epochs) :]
    result = {"loss": sum(tail) / len(tail), "frames": float(len(demonstrations)), "steps": float(steps)}
    if len(held_out):
        with torch.no_grad():
            parts = [
                len(rows)
                * cloning_loss(network, seen(rows), shares[rows].to(device), settings.huber_beta, profile).item()
                for rows in held_out.split(512)
            ]
        result["held_out_loss"] = sum(parts) / len(held_out)
    return result


def _split(demonstrations: Demonstrations, held_out: float) -> tuple[Tensor, Tensor]:
    """Return the rows to learn from and those of the last episodes, which only judge."""
    episodes = demonstrations.episodes()
    counts = np.bincount(episodes)
    judging = np.cumsum(counts[::-1])[::-1] <= held_out * len(demonstrations)
    judges = torch.from_numpy(judging[episodes])
    return torch.nonzero(~judges)[:, 0], torch.nonzero(judges)[:, 0]


def shifted(features: Features, most_px: int, generator: torch.Generator) -> Features:
    """Return the pictures moved by the same random way, their edges repeated; all else as it is."""
    down, right = (torch.randint(-most_px, most_px + 1, (2,), generator=generator)).tolist()

    def moved(picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        rows = (torch.arange(height) - down).clamp(0, height - 1).to(picture.device)
        columns = (torch.arange(width) - right).clamp(0, width - 1).to(picture.device)
        return picture[:, :, rows][:, :, :, columns]

    return {name: moved(tensor) if tensor.dim() == 4 else tensor for name, tensor in features.items()}
