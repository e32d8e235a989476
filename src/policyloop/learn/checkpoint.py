"""Checkpoints: everything that training needs to go on exactly, in one directory, written atomically.

    CHECKPOINTS/000120/state.safetensors, state.json, bundle/manifest.json, bundle/policy.onnx

Only safetensors and JSON are read back: no code can hide in a checkpoint.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from policyloop.bundle.build import Bundle
from policyloop.core.files import write_directory
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, StorageError, VerificationError
from policyloop.learn.feed import FeedState
from policyloop.learn.networks import ActorCritic, NetworkSettings, make_network

__all__ = [
    "Checkpoint",
    "CheckpointState",
    "decode_checkpoint",
    "encode_checkpoint",
    "latest_checkpoint",
    "load_checkpoint",
    "optimizer_tensors",
    "restore_optimizer",
    "save_checkpoint",
]

FORMAT = 1

log = logging.getLogger(__name__)


class CheckpointState(msgspec.Struct, kw_only=True):
    """`state.json`: all but the tensors."""

    format: int = FORMAT
    profile: RobotProfile
    profile_digest: str
    network: str
    network_settings: NetworkSettings | None = None
    """Build the network again, with its name and the profile; None = of a checkpoint older than this field."""
    normalizer: Normalizer
    version: int
    update: int
    seed: int
    cloned: bool
    demonstrations_until: int
    feed: FeedState
    elapsed_s: float
    settings: dict[str, Any]
    lineage: list[str] = []
    """Hashes of the tensors of the checkpoints that this training descends from, the oldest first."""
    tensors_sha256: str = ""


class Checkpoint(msgspec.Struct):
    """A checkpoint in memory."""

    state: CheckpointState
    tensors: dict[str, Tensor]

    def restore(
        self, network: ActorCritic, optimizer: torch.optim.Adam | None, generator: torch.Generator | None
    ) -> None:
        """Put the saved weights, moments and random state back.

        Raises:
            IncompatibleError: The checkpoint is of another network; the first difference is named.
        """
        self._load(network, list(network.state_dict()))
        if optimizer is not None:
            restore_optimizer("optimizer", optimizer, self.tensors)
        if generator is not None:
            generator.set_state(self.tensors["generator"])

    def restore_actor(self, network: ActorCritic) -> None:
        """Put back the weights that are deployed, and the exploration; the critic stays as it is.

        Raises:
            IncompatibleError: The checkpoint is of another actor; the first wrong tensor is named.
        """
        self._load(network, [name for name in network.state_dict() if name.startswith(("actor.", "log_std"))])

    def _load(self, network: ActorCritic, names: list[str]) -> None:
        settings, tensors = self.state.network_settings, network.state_dict()
        for name in names:
            saved, wanted = self.tensors.get(f"network.{name}"), tensors[name]
            if saved is None or saved.shape != wanted.shape:
                found = "is missing" if saved is None else f"has shape {tuple(saved.shape)}"
                raise IncompatibleError(
                    f"checkpoint of network '{self.state.network}': {name} {found}, expected {tuple(wanted.shape)}",
                    "resume with the --network it was trained with",
                )
            tensors[name] = saved
        # Shapes do not show it, and the weights would drive another way.
        if settings is not None and settings.activation != network.settings.activation:
            raise IncompatibleError(
                f"checkpoint of network '{self.state.network}': activation {settings.activation}, "
                f"not {network.settings.activation}",
                "resume with the settings it was trained with",
            )
        network.load_state_dict(tensors)

    def network(self) -> ActorCritic:
        """Build the network again, with its weights.

        Raises:
            IncompatibleError: The tensors are of another network than the rest of the checkpoint says.
            ConfigError: This policyloop has no such network.
        """
        state = self.state
        network = make_network(state.network, state.profile, settings=state.network_settings)
        self.restore(network, None, None)
        return network


def optimizer_tensors(name: str, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Return an optimizer's moments and rates by names that begin with its own."""
    state = optimizer.state_dict()
    tensors = {
        f"{name}.{index}.{key}": value.detach().cpu().contiguous()
        for index, entry in state["state"].items()
        for key, value in entry.items()
    }
    rates = [group["lr"] for group in state["param_groups"]]
    return {**tensors, f"{name}.rates": torch.tensor(rates, dtype=torch.float64)}


def restore_optimizer(name: str, optimizer: torch.optim.Adam, tensors: dict[str, Tensor]) -> None:
    """Put an optimizer's moments and rates back."""
    state = optimizer.state_dict()
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        parts = key.split(".")
        if parts[0] == name and len(parts) == 3:
            entries.setdefault(int(parts[1]), {})[parts[2]] = value
    state["state"] = entries
    for group, rate in zip(state["param_groups"], tensors[f"{name}.rates"].tolist(), strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():  # a fused step takes them to lie in memory as the weights do
        for key in ("exp_avg", "exp_avg_sq"):
            moments[key] = torch.empty_like(parameter, requires_grad=False).copy_(moments[key])


def encode_checkpoint(
    state: CheckpointState,
    network: ActorCritic,
    optimizer: torch.optim.Adam,
    generator: torch.Generator,
    more: Mapping[str, Tensor] = MappingProxyType({}),
) -> tuple[bytes, bytes]:
    """Return a checkpoint's state as JSON, which then has the hash of the tensors, and its tensors as safetensors."""
    tensors = {f"network.{name}": tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    tensors.update(optimizer_tensors("optimizer", optimizer))
    tensors.update({name: tensor.detach().cpu().contiguous() for name, tensor in more.items()})
    tensors["generator"] = generator.get_state()
    data = save_tensors(tensors)
    state.network_settings = network.settings
    state.tensors_sha256 = hashlib.sha256(data).hexdigest()
    return msgspec.json.encode(state), data


def decode_checkpoint(about: bytes, data: bytes, name: str) -> Checkpoint:
    """Return what `encode_checkpoint` made; `name` says in errors where it is from.

    Raises:
        VerificationError: It is damaged.
        IncompatibleError: It is of a newer format.
    """
    try:
        state = msgspec.json.decode(about, type=CheckpointState)
        if state.format > FORMAT:
            raise IncompatibleError(f"checkpoint {name} has format {state.format}", "upgrade policyloop")
        if hashlib.sha256(data).hexdigest() != state.tensors_sha256:
            raise VerificationError(f"checkpoint {name} is damaged: its tensors have another hash", "use an older one")
        return Checkpoint(state, load_tensors(data))
    except (msgspec.DecodeError, SafetensorError) as error:
        raise VerificationError(f"checkpoint {name} is damaged: {error}", "use an older one") from error


def save_checkpoint(
    directory: Path,
    state: CheckpointState,
    network: ActorCritic,
    optimizer: torch.optim.Adam,
    generator: torch.Generator,
    bundle: Bundle,
    more: Mapping[str, Tensor] = MappingProxyType({}),
) -> Path:
    """Write a checkpoint under `directory`, named after its update; returns its path.

    Args:
        directory: Of all checkpoints.
        state: All but the tensors; the network's settings and the tensors' hash are filled in here.
        network: Its weights are saved.
        optimizer: Its moments and rates are saved.
        generator: Its state is saved.
        bundle: The policy as robots get it.
        more: Tensors that only the algorithm knows, by names that no other has.

    Raises:
        StorageError: The disk refuses; no half checkpoint is left under its final name.
    """
    about, data = encode_checkpoint(state, network, optimizer, generator, more)
    final = directory / f"{state.update:06d}"
    files = {
        "state.safetensors": data,
        "state.json": msgspec.json.format(about, indent=2),
        **{f"bundle/{name}": content for name, content in bundle.contents.items()},
    }
    try:
        write_directory(final, files)
    except OSError as error:
        raise StorageError(
            f"cannot write checkpoint {final}: {error.strerror}", "free some space; older checkpoints are untouched"
        ) from error
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint.

    Raises:
        StorageError: There is none at `path`.
        VerificationError: It is damaged.
        IncompatibleError: It is of a newer format.
    """
    try:
        about, data = (path / "state.json").read_bytes(), (path / "state.safetensors").read_bytes()
    except OSError as error:
        raise StorageError(f"no checkpoint at {path}", "give a directory such as checkpoints/000010") from error
    return decode_checkpoint(about, data, str(path))


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None if there is none at all.

    Raises:
        VerificationError: Every one of them is damaged.
    """
    paths = sorted(directory.glob("[0-9]*"), reverse=True)
    for path in paths:
        try:
            return load_checkpoint(path)
        except (StorageError, VerificationError) as error:
            log.warning("%s", error)
    if paths:
        raise VerificationError(
            f"all checkpoints in {directory} are damaged", "move them away to begin again from the journal"
        )
    return None
