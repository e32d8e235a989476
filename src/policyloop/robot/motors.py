"""What stands between commands and motors: obey the newest, as long as it is valid, and then stand still.

The last stage of every robot must do this by itself, in the process (or the chip) that drives the motors; this is its
reference, and what simulated motors do.
"""

from __future__ import annotations

from policyloop.core.step import TimedCommand

__all__ = ["LONGEST_NS", "MotorLatch"]

LONGEST_NS = 500_000_000
"""No command is valid for longer, whatever it says."""


class MotorLatch:
    """Holds one command.

    Args:
        size: Of the action vector.
    """

    def __init__(self, size: int) -> None:
        self._stop = tuple(0.0 for _ in range(size))
        self._order: TimedCommand | None = None
        self._newest = 0

    def accept(self, order: TimedCommand, now_ns: int) -> bool:
        """Take a command; False if it is older than one that came before, too late, or valid for suspiciously long."""
        if order.sequence <= self._newest or len(order.command.values) != len(self._stop):
            return False
        if not 0 < order.valid_until_ns - now_ns <= LONGEST_NS:
            return False
        self._newest, self._order = order.sequence, order
        return True

    def values(self, now_ns: int) -> tuple[float, ...]:
        """Return what the motors do now."""
        if self._order is None or now_ns >= self._order.valid_until_ns:
            return self._stop
        return self._order.command.values

    def restart(self) -> None:
        """The sender was started again and counts from one."""
        self._order, self._newest = None, 0
