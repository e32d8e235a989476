"""A teacher at the side of a policy: takes over where it stands still (HG-DAgger, Kelly et al., 1810.02890)."""

from __future__ import annotations

from policyloop.core.profile import RobotProfile
from policyloop.core.reward import REWARD_TERMS
from policyloop.core.step import Action, Command, Observation
from policyloop.robot.io import Driver

__all__ = ["AssistedDriver"]

_PATIENCE_S = 1.0
_HELP_S = 2.5


class AssistedDriver:
    """Lets a pupil drive; once it has stood idle for a second, a teacher drives for 2.5 s.

    That is what a person with a gamepad does for a robot that is stuck. The teacher's steps are
    demonstrations of just what the pupil does not know.

    Args:
        pupil: Drives as a rule.
        teacher: Looks on all the time: it may have to remember what it saw.
        profile: The robot's.

    Attributes:
        interventions: How often the teacher took over.
    """

    def __init__(self, pupil: Driver, teacher: Driver, profile: RobotProfile) -> None:
        self._pupil, self._teacher, self._profile = pupil, teacher, profile
        self._patience_ticks = round(_PATIENCE_S * profile.rates.control_hz)
        self._help_ticks = round(_HELP_S * profile.rates.control_hz)
        self._idle_ticks = self._left_ticks = 0
        self.interventions = 0

    def propose(self, observation: Observation) -> Action:
        """Ask the teacher while it helps, the pupil otherwise."""
        advice = self._teacher.propose(observation)
        if self._left_ticks == 0 and self._stuck(observation):
            self._left_ticks, self._idle_ticks = self._help_ticks, 0
            self.interventions += 1
        if self._left_ticks > 0:
            self._left_ticks -= 1
            return advice
        return self._pupil.propose(observation)

    def _stuck(self, observation: Observation) -> bool:
        idle = REWARD_TERMS["idle"](self._profile.outcome(observation.arrays["proprio"]))
        self._idle_ticks = self._idle_ticks + 1 if idle else 0
        return self._idle_ticks >= self._patience_ticks

    def executed(self, command: Command) -> None:
        """Tell both what was done."""
        self._pupil.executed(command)
        self._teacher.executed(command)

    def reset(self) -> None:
        """Begin a new episode."""
        self._idle_ticks = self._left_ticks = 0
        self._pupil.reset()
        self._teacher.reset()
