"""The seams to a robot: where observations come from, where commands go, who proposes."""

from __future__ import annotations

from typing import Protocol

from policyloop.core.step import Action, Command, Observation, TimedCommand

__all__ = ["CommandSink", "Driver", "SensorSource"]


class SensorSource(Protocol):
    """Gives observations: a simulator, ROS topics, a recording."""

    def read(self) -> Observation:
        """Return the newest synchronised observation; never blocks longer than a tick."""

    def begin_episode(self) -> bool:
        """Get ready for a new episode; True if the robot now stands somewhere else, as a simulator's does."""


class CommandSink(Protocol):
    """Takes commands. Whatever is behind it must stop by itself when they cease to come: see `robot.motors`."""

    def write(self, order: TimedCommand) -> None:
        """Apply a command until the next one, or until it is no longer valid; may be called from several threads."""


class Driver(Protocol):
    """Proposes actions: a policy, a script, a human."""

    def propose(self, observation: Observation) -> Action:
        """Return what to do now."""

    def executed(self, command: Command) -> None:
        """Learn what was really done."""

    def reset(self) -> None:
        """A new episode begins."""
