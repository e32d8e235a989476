"""The one place from which commands leave: numbered, with an end to their validity, and stoppable from any thread."""

from __future__ import annotations

import threading

from policyloop.core.clock import Clock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command, TimedCommand
from policyloop.robot.io import CommandSink

__all__ = ["Outlet"]


class Outlet:
    """Writes commands to a sink.

    Args:
        profile: The robot's.
        sink: Takes them; whatever is behind it must obey `valid_until_ns`.
        clock: The robot's.
    """

    def __init__(self, profile: RobotProfile, sink: CommandSink, clock: Clock) -> None:
        self._sink, self._clock = sink, clock
        self._profile = profile
        self._valid_ns = profile.rates.command_valid_ns
        self._lock = threading.Lock()
        self._sequence = self._halts = 0

    def begin(self) -> int:
        """Begin a tick; returns what its command must be sent with."""
        return self._halts

    def send(self, command: Command, begun: int) -> Command:
        """Write the command of a tick, or a stop if `halt` came in between; returns what was written."""
        with self._lock:
            if begun != self._halts:
                command = self._profile.stop("halted")
            self._write(command)
        return command

    def halt(self, reason: str) -> None:
        """Stop now; the command of a tick that has begun already will not be written any more."""
        with self._lock:
            self._halts += 1
            self._write(self._profile.stop(reason))

    def _write(self, command: Command) -> None:
        self._sequence += 1
        self._sink.write(TimedCommand(command, self._sequence, self._clock.now_ns() + self._valid_ns))
