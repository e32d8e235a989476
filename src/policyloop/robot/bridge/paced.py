"""A bridge where the controller sets the pace: it asks, and each question is answered once."""

from __future__ import annotations

from typing import Protocol

from policyloop.core.step import Observation, TimedCommand

__all__ = ["PacedBridge"]


class PacedBridge(Protocol):
    """A `SensorSource` and a `CommandSink` that is asked: wait, read, write, and again."""

    @property
    def driving(self) -> bool:
        """Whether the controller does what the policy says; True where it does not tell."""

    def wait(self, deadline_ns: int) -> bool:
        """Return True when a whole new frame has come, False at `deadline_ns` (monotonic) without one."""

    def read(self) -> Observation:
        """Return the newest state; ConnectionFailed if none has come yet."""

    def begin_episode(self) -> bool:
        """Return False: the robot stays where it is."""

    def write(self, order: TimedCommand) -> None:
        """Answer the frame that was read last; dropped if it has been answered."""

    def close(self) -> None:
        """End the connection."""
