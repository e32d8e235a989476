"""Motors at the far end of a bus or a radio: a command needs time to reach them."""

from __future__ import annotations

from collections import deque

import numpy as np

from policyloop.core.step import Command, TimedCommand
from policyloop.robot.motors import MotorLatch

__all__ = ["LateMotors"]


class LateMotors:
    """A `MotorLatch` that every command reaches late, in the order in which they were sent.

    What is no longer valid on arrival is not obeyed: a link that is slower than a command is valid stops the robot.

    Args:
        stop: What the motors do without a valid command.
        latency_ns: From sending to arriving.
        jitter_ns: Each command takes up to so much longer.
        rng: Draws by how much.
    """

    def __init__(self, stop: Command, latency_ns: int, jitter_ns: int, rng: np.random.Generator) -> None:
        self._latch = MotorLatch(stop)
        self._latency_ns, self._jitter_ns, self._rng = latency_ns, jitter_ns, rng
        self._under_way: deque[tuple[int, TimedCommand]] = deque()
        self._last_ns = 0

    def accept(self, order: TimedCommand, now_ns: int) -> bool:
        """Take a command; False if it arrives at once and is refused."""
        late_ns = self._latency_ns
        if self._jitter_ns:
            late_ns += int(self._rng.integers(self._jitter_ns + 1))
        if not late_ns and not self._under_way:
            return self._latch.accept(order, now_ns)
        self._last_ns = max(self._last_ns, now_ns + late_ns)
        self._under_way.append((self._last_ns, order))
        return True

    def command(self, now_ns: int) -> Command:
        """Return what the motors do now; time does not run backwards."""
        while self._under_way and self._under_way[0][0] <= now_ns:
            arrived_ns, order = self._under_way.popleft()
            self._latch.accept(order, arrived_ns)
        return self._latch.command(now_ns)
