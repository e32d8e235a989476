"""What teachers proposed, as a learner uses it: demonstrations to clone, interventions since, and a loss on both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from policyloop.core.normalizer import Normalizer
from policyloop.learn.bc import BcSettings, cloning_loss, draw_batch
from policyloop.learn.demonstrations import Demonstrations, load_demonstrations, newest_demonstrations
from policyloop.learn.networks import ActorCritic
from policyloop.learn.ranks import ALONE, Ranks
from policyloop.link.journal import Journal

__all__ = ["Teachers"]

_BATCH = 64
_MAX_INTERVENTIONS = 5000


class Teachers:
    """People and scripts that drove.

    Args:
        journal: Where their steps are.
        normalizer: Applied to proprioception.
        settings: Of cloning.
        cloned_until: The clone was made of the demonstrations before this position; 0 = there is no clone.
        read: Demonstrations from there to here are interventions that were learned from already.

    Attributes:
        cloned_until: See above.
    """

    def __init__(
        self, journal: Journal, normalizer: Normalizer, settings: BcSettings, *, cloned_until: int, read: int
    ) -> None:
        self._journal, self._normalizer, self._settings = journal, normalizer, settings
        self.cloned_until, self._read = cloned_until, read
        self._demonstrations: Demonstrations | None = None
        self._interventions: Demonstrations | None = None

    def _load(self, positions: Sequence[int]) -> Demonstrations:
        return load_demonstrations(self._journal, self._normalizer, positions[-_MAX_INTERVENTIONS:])

    @property
    def demonstrations(self) -> Demonstrations:
        """What the clone was made of."""
        if self._demonstrations is None:
            positions = newest_demonstrations(self._journal, stop=self.cloned_until)
            self._demonstrations = load_demonstrations(self._journal, self._normalizer, positions)
        return self._demonstrations

    @property
    def interventions(self) -> Demonstrations:
        """The newest of those since; a learner that does not ask for them loads none."""
        if self._interventions is None:
            positions = newest_demonstrations(self._journal, start=self.cloned_until, stop=self._read)
            self._interventions = self._load(positions)
        return self._interventions

    def intervened(self, positions: Sequence[int]) -> None:
        """Take in the demonstrations at these positions, if they came after the clone."""
        late = [position for position in positions if position >= self.cloned_until]
        if self.cloned_until and late:
            self._interventions = (self.interventions + self._load(late)).newest(_MAX_INTERVENTIONS)

    def loss(
        self,
        network: ActorCritic,
        *,
        demonstration_weight: float,
        intervention_weight: float,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> Callable[[], Tensor] | None:
        """Return the loss of not proposing what teachers proposed; None if there is nothing to lose.

        Every rank draws the same batch and computes its part; the sum over all ranks is the loss.
        """
        weighted = []
        if intervention_weight > 0 and len(self.interventions):
            weighted.append((intervention_weight, self.interventions))
        if demonstration_weight > 0 and self.cloned_until:
            weighted.append((demonstration_weight, self.demonstrations))
        profile, settings = self._journal.profile, self._settings

        def term(weight: float, steps: Demonstrations) -> Tensor:
            features, shares = draw_batch(
                steps, profile, _BATCH, mirror=settings.mirror, generator=generator, device=device
            )
            part = {name: tensor[ranks.rank :: ranks.count] for name, tensor in features.items()}
            own = shares[ranks.rank :: ranks.count]
            return weight * len(own) / _BATCH * cloning_loss(network, part, own, settings.huber_beta, profile)

        return (lambda: sum((term(*entry) for entry in weighted), torch.zeros((), device=device))) if weighted else None
