"""A pupil drives, a teacher says at every step what it would have done (DAgger, Ross et al., 1011.0686)."""

from __future__ import annotations

from policyloop.core.step import Action, Command, Observation
from policyloop.robot.io import Driver

__all__ = ["Apprentice"]


class Apprentice:
    """Proposes what the teacher proposes; called as the actor's disturbance, it returns what the pupil does instead.

    So the steps that are recorded are the teacher's, in places to which only the pupil would have come.

    Args:
        pupil: What it proposes is driven.
        teacher: What it proposes is recorded.
    """

    def __init__(self, pupil: Driver, teacher: Driver) -> None:
        self._pupil, self._teacher = pupil, teacher
        self._driven: tuple[float, ...] = ()

    def propose(self, observation: Observation) -> Action:
        """Ask both; returns the teacher's proposal."""
        self._driven = self._pupil.propose(observation).values
        return self._teacher.propose(observation)

    def __call__(self, action: Action) -> tuple[float, ...]:
        """Return what the pupil proposed where the teacher proposed `action`."""
        return self._driven

    def executed(self, command: Command) -> None:
        """Tell both what was done."""
        self._pupil.executed(command)
        self._teacher.executed(command)

    def reset(self) -> None:
        """Begin a new episode."""
        self._pupil.reset()
        self._teacher.reset()
