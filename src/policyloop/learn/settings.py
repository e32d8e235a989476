"""Settings of the learner, as `train --settings FILE` reads them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from policyloop.core.reward import validate_weights
from policyloop.learn.bc import BcSettings
from policyloop.learn.ppo import PpoSettings
from policyloop.learn.rlpd import RlpdSettings
from policyloop.learn.tuning import Execution

__all__ = ["LearnerName", "LearnerSettings"]

LearnerName = Literal["bc", "dagger", "ppo", "rlpd"]

_PPO_INTERVAL = 8192
"""Of the original documents."""
_DAGGER_INTERVAL = 2000


class LearnerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to learn, from how much, for how long."""

    learner: LearnerName = "ppo"
    network: str = "spatial"
    device: str = "auto"
    seed: int = 0
    demonstrations: int = 3000
    """Clone once so many demonstration steps are there; 0 = do not clone."""
    update_interval: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Steps per update; 0 = the learner's own: 8192 for PPO, 2000 for DAgger, those of [rlpd] for RLPD."""
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
    execution: Execution | None = None
    """Precision, layout and size of the parts in which updates run; None = what is fastest here, found by trying."""
    reward: dict[str, float] = {}
    """Weights that replace those of the profile's [training_reward], term by term."""
    takeover_penalty: float = 1.0
    """What it costs the policy's last step, in units of the training reward, that a teacher took over."""
    bc: BcSettings = BcSettings()
    ppo: PpoSettings = PpoSettings()
    rlpd: RlpdSettings = RlpdSettings()

    @property
    def steps_per_update(self) -> int:
        """How many new steps make an update."""
        own = {"rlpd": self.rlpd.update_interval, "dagger": _DAGGER_INTERVAL}
        return self.update_interval or own.get(self.learner, _PPO_INTERVAL)

    @property
    def initial_log_std(self) -> float:
        """Exploration at first."""
        return self.rlpd.initial_log_std if self.learner == "rlpd" else self.ppo.initial_log_std

    @property
    def noise_hold_ticks(self) -> int:
        """For so many ticks the robot keeps a draw of its noise."""
        return self.rlpd.noise_hold_ticks if self.learner == "rlpd" else self.ppo.noise_hold_ticks

    def share_done(self, updates: int, elapsed_s: float) -> float:
        """Return the share of the planned training that so many updates or so much time are, 0..1."""
        done = updates / self.total_updates if self.total_updates else 0.0
        spent = elapsed_s / self.time_budget_s if self.time_budget_s else 0.0
        return min(1.0, max(done, spent))

    def __post_init__(self) -> None:
        validate_weights(self.reward, "[reward]")
