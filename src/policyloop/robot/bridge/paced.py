"""A bridge where the controller sets the pace: it asks, and each question is answered once."""

from __future__ import annotations

from abc import ABC, abstractmethod

from policyloop.core.clock import Clock
from policyloop.core.step import Observation, TimedCommand
from policyloop.robot.bridge.exchange import Exchange

__all__ = ["PacedBridge"]


class PacedBridge(ABC):
    """A `SensorSource` and a `CommandSink` that is asked: wait, read, write, and again.

    Args:
        exchange: Holds the frame that is to be read or answered.
        clock: The robot's.
    """

    def __init__(self, exchange: Exchange, clock: Clock) -> None:
        self._exchange, self._clock = exchange, clock

    @property
    def driving(self) -> bool:
        """True: a frame does not tell what the controller does with the reply."""
        return True

    def wait(self, deadline_ns: int) -> bool:
        """Return True when a whole new frame has come, False at `deadline_ns` (monotonic) without one."""
        self._exchange.give_up()
        while not self._exchange.fresh:
            left_ns = deadline_ns - self._clock.now_ns()
            self._serve(max(0, left_ns))
            if left_ns <= 0:
                break
        return self._exchange.fresh

    @abstractmethod
    def _serve(self, timeout_ns: int) -> None:
        """Take in what has come, or comes within this time; may return earlier."""

    def read(self) -> Observation:
        """Return the newest state; its time is that of its arrival. ConnectionFailed if none has come yet."""
        return self._exchange.read()

    def begin_episode(self) -> bool:
        """Return False: the robot stays where it is."""
        return False

    def write(self, order: TimedCommand) -> None:
        """Answer the frame that was read last, from any thread; dropped if it has been answered."""
        self._exchange.write(order)

    @abstractmethod
    def close(self) -> None:
        """End the connection; what was not answered is answered: no command."""
