"""What an update changes, kept to undo it."""

from __future__ import annotations

import copy

import torch

from policyloop.learn.algorithm import Algorithm
from policyloop.learn.networks import ActorCritic

__all__ = ["RestorePoint"]


class RestorePoint:
    """Remembers how things are now.

    Args:
        network: See `restore`.
        algorithm: Its optimizer, and whatever else it has learned.
        generator: Only remembered: an update that is undone goes on with other random numbers.

    Attributes:
        generator: As it was.
    """

    def __init__(self, network: ActorCritic, algorithm: Algorithm, generator: torch.Generator) -> None:
        self._network, self._algorithm = network, algorithm
        self._weights = copy.deepcopy(network.state_dict())
        self._moments = copy.deepcopy(algorithm.optimizer.state_dict())
        self._tensors = copy.deepcopy(algorithm.tensors())
        self.generator = torch.Generator()
        self.generator.set_state(generator.get_state())

    @property
    def is_sound(self) -> bool:
        """Everything that is learned is finite now."""
        learned = [*self._network.state_dict().values(), *self._algorithm.tensors().values()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in learned)

    def restore(self) -> None:
        """Put network and algorithm back."""
        self._network.load_state_dict(self._weights)
        self._algorithm.optimizer.load_state_dict(self._moments)
        self._algorithm.restore(self._tensors)
