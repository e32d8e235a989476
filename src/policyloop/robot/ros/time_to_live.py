"""What stands between `cmd_vel` and a driver that has no time-out of its own: `robot.motors` for velocities."""

from __future__ import annotations

import math
import threading

from policyloop.core.step import Command, TimedCommand
from policyloop.robot.motors import LONGEST_NS, MotorLatch
from policyloop.robot.ros.diagnosis import Diagnosis

__all__ = ["TimeToLive"]

Velocities = tuple[float, ...]
"""Linear x, y, z in m/s, angular x, y, z in rad/s."""

_STILL = (0.0,) * 6


class TimeToLive:
    """Passes velocities on as long as they keep coming; zeros otherwise.

    Args:
        lasts_s: How long one counts, half a second at most.
    """

    def __init__(self, lasts_s: float) -> None:
        self._lasts_ns = min(round(lasts_s * 1e9), LONGEST_NS)
        self._latch = MotorLatch(Command(_STILL))
        self._lock = threading.Lock()
        self._accepted = self._refused = 0

    def accept(self, velocities: Velocities, now_ns: int) -> Velocities:
        """Take in what was commanded; returns what to pass on. What is not finite is a command to stand."""
        with self._lock:
            fine = all(map(math.isfinite, velocities))
            self._accepted += 1
            self._refused += not fine
            command = Command(velocities if fine else _STILL)
            self._latch.accept(TimedCommand(command, self._accepted, now_ns + self._lasts_ns), now_ns)
            return self._latch.command(now_ns).values

    def now(self, now_ns: int) -> Velocities:
        """Return what holds at this moment."""
        with self._lock:
            return self._latch.command(now_ns).values

    def diagnosis(self) -> Diagnosis:
        """Return what has passed."""
        values = {"commands": str(self._accepted), "refused": str(self._refused)}
        if self._refused:
            return Diagnosis("warning", "time to live", f"{self._refused} commands were not finite", values)
        return Diagnosis("ok", "time to live", f"{self._accepted} commands", values)
