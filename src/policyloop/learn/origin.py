"""Where a training begins: from nothing, with the weights of another training, or where this one was left."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError, IncompatibleError
from policyloop.learn.checkpoint import Checkpoint, CheckpointState, latest_checkpoint, load_checkpoint
from policyloop.learn.device import accelerator_errors, prepare_device
from policyloop.learn.networks import ActorCritic, NetworkSettings, make_network
from policyloop.learn.settings import LearnerSettings
from policyloop.learn.tuning import Execution, choose_execution

__all__ = ["Origin", "find_origin", "origin_at"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """What a training begins with.

    Attributes:
        network: With its first weights, on its device, laid out for its updates.
        normalizer: Applied to proprioception.
        settings: The learner's; how updates run is settled.
        generator: Source of all randomness.
        device: Where the network lives.
        lineage: Hashes of the tensors of the checkpoints that it descends from, the oldest first.
        checkpoint: Where this very training was left; None = it begins now.
    """

    network: ActorCritic
    normalizer: Normalizer
    settings: LearnerSettings
    generator: torch.Generator
    device: torch.device
    lineage: list[str]
    checkpoint: Checkpoint | None

    @property
    def only_cloned(self) -> bool:
        """It was left when there was a clone and nothing else: any algorithm may begin there."""
        return self.checkpoint is not None and self.checkpoint.state.settings.get("learner") == "bc"


def find_origin(
    profile: RobotProfile, settings: LearnerSettings, checkpoints: Path, *, resume: bool, parent: Path | None
) -> Origin:
    """Return where a training begins.

    Args:
        profile: Of the robot.
        settings: What to learn.
        checkpoints: Of this training.
        resume: Go on from the newest of them, if there is one.
        parent: Else begin with the weights of this checkpoint.

    Raises:
        ConfigError: There are checkpoints that nobody asked to go on from.
        IncompatibleError: A checkpoint is of another robot, network or learner.
        PolicyloopError: No checkpoint is whole, or the device cannot compute.
    """
    device = prepare_device(settings.device, settings.threads)
    saved = latest_checkpoint(checkpoints) if resume else None
    if saved is None and not resume and any(checkpoints.glob("[0-9]*")):
        raise ConfigError(f"{checkpoints} already holds checkpoints", "add --resume, or choose another directory")
    kin, place = saved, checkpoints
    if saved is None and parent is not None:
        kin, place = load_checkpoint(parent), parent
    if kin is not None:
        _check_kinship(kin.state, profile, settings, place)
    torch.manual_seed(settings.seed)
    network = make_network(
        settings.network, profile, initial_log_std=settings.initial_log_std, settings=_network_settings(kin)
    ).to(device)
    execution = _chosen_execution(network, profile, settings, saved, device)
    execution.lay_out(network)
    generator = torch.Generator().manual_seed(settings.seed)
    normalizer, lineage = profile.nominal_normalizer, list[str]()
    if saved is not None:
        _check_training(saved.state, settings, checkpoints)
        saved.restore(network, None, generator)
        normalizer, lineage = saved.state.normalizer, saved.state.lineage
        log.info("resumed at update %d, policy %d", saved.state.update, saved.state.version)
    elif kin is not None:
        _descend(kin, network)
        normalizer, lineage = kin.state.normalizer, [*kin.state.lineage, kin.state.tensors_sha256]
    settled = msgspec.structs.replace(settings, execution=execution)
    origin = Origin(network, normalizer, settled, generator, device, lineage, saved)
    if origin.only_cloned:
        with torch.no_grad():
            network.log_std.fill_(settings.initial_log_std)
    return origin


def origin_at(checkpoint: Checkpoint) -> Origin:
    """Return a training that goes on from a checkpoint just as it was; ConfigError if the device cannot be used."""
    state = checkpoint.state
    settings = msgspec.convert(state.settings, LearnerSettings)
    device = prepare_device(settings.device, settings.threads)
    network = checkpoint.network().to(device)
    (settings.execution or Execution()).lay_out(network)
    generator = torch.Generator()
    generator.set_state(checkpoint.tensors["generator"])
    return Origin(network, state.normalizer, settings, generator, device, state.lineage, checkpoint)


def _check_kinship(state: CheckpointState, profile: RobotProfile, settings: LearnerSettings, place: Path) -> None:
    """Refuse a checkpoint of another robot or network."""
    if state.profile_digest != profile.digest:
        raise IncompatibleError(
            f"checkpoint {place} is of profile '{state.profile.name}', not '{profile.name}'",
            "use the profile it was trained with, or another checkpoint",
        )
    if state.network != settings.network:
        raise IncompatibleError(
            f"checkpoint {place} is of network '{state.network}', not '{settings.network}'",
            f"add --network {state.network}, or choose another checkpoint",
        )


def _check_training(state: CheckpointState, settings: LearnerSettings, checkpoints: Path) -> None:
    """Refuse to go on with what another learner began."""
    if state.network_settings is not None and state.network_settings.privileged_size:
        raise IncompatibleError(
            f"checkpoint {checkpoints} learned in simulation, from what no robot senses",
            "go on there: --simulated; or begin from its weights: --from, with another --checkpoint-dir",
        )
    before = str(state.settings.get("learner", "ppo"))
    if before not in ("bc", settings.learner):
        raise IncompatibleError(
            f"checkpoint {checkpoints} is of learner '{before}', not '{settings.learner}'",
            f"add --learner {before}, or begin from its weights: --from, with another --checkpoint-dir",
        )


def _network_settings(kin: Checkpoint | None) -> NetworkSettings | None:
    """Return what the network of a checkpoint is built with, less what only a simulator can tell its critic."""
    settings = None if kin is None else kin.state.network_settings
    return None if settings is None else msgspec.structs.replace(settings, privileged_size=0)


def _chosen_execution(
    network: ActorCritic,
    profile: RobotProfile,
    settings: LearnerSettings,
    saved: Checkpoint | None,
    device: torch.device,
) -> Execution:
    """Return how updates run: as the settings say, as they ran before, or as is fastest here."""
    if settings.execution is not None:
        return settings.execution
    before = None if saved is None else saved.state.settings.get("execution")
    if before is not None:
        execution = msgspec.convert(before, Execution)
        if execution.device == device.type:
            return execution  # another way rounds differently
    with accelerator_errors():
        return choose_execution(network, profile, settings.ppo.minibatch, device)


def _descend(parent: Checkpoint, network: ActorCritic) -> None:
    """Put the weights of another training into a network; those of its critic only if robots can feed it."""
    settings = parent.state.network_settings
    if settings is not None and settings.privileged_size:
        parent.restore_actor(network)
        log.warning("the parent's critic saw what no robot senses: only its actor is taken over, the critic is new")
    else:
        parent.restore(network, None, None)
