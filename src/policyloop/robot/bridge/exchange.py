"""Which frame is to be read, and which is to be answered: each exactly once, whichever thread answers."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from policyloop.core.clock import Clock
from policyloop.core.step import Observation, TimedCommand
from policyloop.errors import ConnectionFailed
from policyloop.robot.bridge.frames import DAMP, encode_order
from policyloop.robot.bridge.intake import Intake

__all__ = ["Answer", "Exchange"]

Answer = Callable[[bytes], None]
"""Sends a reply to whoever asked; never blocks, never raises."""


class Exchange:
    """Holds one frame.

    While a frame waits for its answer, nothing but that answer is sent or received: so `write` may be called from any
    thread, although the socket is one of the loop's.

    Args:
        intake: Makes observations of states.
        targets: How many numbers a reply has.
        clock: The robot's.
        where: Names the socket.
    """

    def __init__(self, intake: Intake, targets: int, clock: Clock, where: str) -> None:
        self._intake, self._targets, self._clock, self._where = intake, targets, clock, where
        self._lock = threading.Lock()
        self._newest: Observation | None = None
        self._fresh: Answer | None = None
        self._due: Answer | None = None

    @property
    def fresh(self) -> bool:
        """Whether a frame has come that was not read yet."""
        return self._fresh is not None

    def arrived(self, values: NDArray[np.float32], answer: Answer) -> None:
        """A whole frame has come; `answer` takes the reply."""
        self._newest = self._intake.observation(values, self._clock.now_ns())
        self._fresh = answer

    def read(self) -> Observation:
        """Return the newest state; from now on it may be answered. ConnectionFailed if none has come yet."""
        if self._newest is None:
            raise ConnectionFailed(f"no state has come through {self._where} yet", "start the controller")
        with self._lock:
            if self._fresh is not None:
                self._due, self._fresh = self._fresh, None
        return self._newest

    def write(self, order: TimedCommand) -> None:
        """Answer what was read last, if that is still to be done."""
        self._answer(encode_order(order, self._targets, self._clock.now_ns()))

    def give_up(self) -> None:
        """Answer what was read and forgotten: no command."""
        self._answer(DAMP)

    def _answer(self, reply: bytes) -> None:
        with self._lock:
            answer, self._due = self._due, None
            if answer is not None:
                answer(reply)
