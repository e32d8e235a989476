"""Settings of the learner, as `train --settings FILE` reads them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from policyloop.core.reward import validate_weights
from policyloop.learn.bc import BcSettings
from policyloop.learn.ppo import PpoSettings

__all__ = ["LearnerSettings"]


class LearnerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to learn, from how much, for how long."""

    learner: Literal["bc", "ppo"] = "ppo"
    network: str = "spatial"
    device: str = "auto"
    seed: int = 0
    demonstrations: int = 3000
    """Clone once so many demonstration steps are there; 0 = do not clone."""
    update_interval: Annotated[int, msgspec.Meta(ge=1)] = 8192
    checkpoint_interval: Annotated[int, msgspec.Meta(ge=1)] = 10
    total_updates: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Stop after so many updates; 0 = go on. The learning rate falls over this span."""
    time_budget_s: float = 0.0
    """Stop after so long; 0 = no limit. The learning rate falls over this span too."""
    max_staleness: int = 2
    stop_and_go: bool = False
    """Ask robots to pause while the learner works: no step is ever stale."""
    threads: int = 0
    """CPU threads for torch; 0 = torch's own choice."""
    reward: dict[str, float] = {}
    """Weights that replace those of the profile's [training_reward], term by term."""
    bc: BcSettings = BcSettings()
    ppo: PpoSettings = PpoSettings()

    def __post_init__(self) -> None:
        validate_weights(self.reward, "[reward]")
