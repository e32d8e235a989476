"""The YAML file that says what a state dict does not: the shape of a multi-layer perceptron (row S28)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml
from msgspec import Meta

from policyloop.core.files import read_file
from policyloop.errors import ConfigError
from policyloop.learn.networks import ACTIVATIONS

__all__ = ["MlpDescription", "load_description"]

_MAX_BYTES = 16 << 10
_EXAMPLE = "obs_dim: 45, act_dim: 12, hidden_sizes: [512, 256, 128], activation: elu"
_Width = Annotated[int, Meta(ge=1, le=8192)]
_Output = Literal["before_tanh", "tanh", "linear"]


class MlpDescription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A multi-layer perceptron.

    Attributes:
        obs_dim: Length of the observation.
        act_dim: Length of the action.
        hidden_sizes: Width of each hidden layer.
        activation: Behind each hidden layer: a name in `learn.networks.ACTIVATIONS`.
        output: What the last layer's numbers are; without it, what the profile's action map takes. `before_tanh`: the
            action is center + half_range * tanh(output). `tanh`: the network applies that tanh itself. `linear`: the
            action is center + scale * output.
        prefix: What the names of the network's tensors begin with, such as `actor`; empty = whatever fits.
        separate_actor_critic, critic_output_dim: Of a critic, which is not imported; the originals' files have them.
    """

    obs_dim: _Width
    act_dim: _Width
    hidden_sizes: Annotated[tuple[_Width, ...], Meta(max_length=32)]
    activation: str
    output: _Output | None = None
    prefix: str = ""
    separate_actor_critic: bool = False
    critic_output_dim: _Width = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the observation, of what each hidden layer gives, and of the action."""
        return (self.obs_dim, *self.hidden_sizes, self.act_dim)

    @property
    def weight_shapes(self) -> list[tuple[int, int]]:
        """Shape of each layer's weight, first layer first."""
        return [(outputs, inputs) for inputs, outputs in pairwise(self.sizes)]


def load_description(path: Path) -> MlpDescription:
    """Read a description.

    Raises:
        StorageError: There is none at `path`.
        ConfigError: It is not YAML, or a key or value in it is wrong.
    """
    data = read_file(path, _MAX_BYTES)
    try:
        table = yaml.safe_load(data)
        described = msgspec.convert(table, MlpDescription)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # msgspec's ValidationError is a ValueError
        said = " ".join(str(error).split())
        raise ConfigError(f"{path}: {said}", f"it looks like {_EXAMPLE}, a key a line") from error
    if described.activation not in ACTIVATIONS:
        raise ConfigError(f"{path}: no activation '{described.activation}'", f"use one of {', '.join(ACTIVATIONS)}")
    return described
