"""What stands between commands and motors: obey the newest, as long as it is valid, and then stand still.

The last stage of every robot must do this by itself, in the process (or the chip) that drives the motors; this is its
reference, and what simulated motors do.
"""

from __future__ import annotations

from policyloop.core.step import Command, TimedCommand

__all__ = ["LONGEST_NS", "MotorLatch"]

LONGEST_NS = 500_000_000
"""No command is valid for longer, whatever it says."""


class MotorLatch:
    """Holds one command.

    Args:
        stop: What the motors do without a valid command: see `RobotProfile.stop`.
    """

    def __init__(self, stop: Command) -> None:
        self._stop = stop
        self._order: TimedCommand | None = None
        self._newest = 0

    def accept(self, order: TimedCommand, now_ns: int) -> bool:
        """Take a command; False if it is older than one that came before, too late, or valid for suspiciously long."""
        if order.sequence <= self._newest or len(order.command.values) != len(self._stop.values):
            return False
        if not 0 < order.valid_until_ns - now_ns <= LONGEST_NS:
            return False
        self._newest, self._order = order.sequence, order
        return True

    def command(self, now_ns: int) -> Command:
        """Return what the motors do now."""
        if self._order is None or now_ns >= self._order.valid_until_ns:
            return self._stop
        return self._order.command

    def restart(self) -> None:
        """The sender was started again and counts from one."""
        self._order, self._newest = None, 0
