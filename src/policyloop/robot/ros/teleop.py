"""What a person does, from the topic that it really comes from (row S7)."""

from __future__ import annotations

from typing import Any

from policyloop.core.clock import Clock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action
from policyloop.errors import WireError
from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop.robot.ros.messages import commanded
from policyloop.robot.ros.stream import Stream

__all__ = ["LASTS_S", "Teleop"]

LASTS_S = 0.5
"""Who has said nothing for so long has let go."""


class Teleop:
    """The newest command of a person; one thread puts, another asks.

    Args:
        profile: Whose action a Twist is.
        topic: Where it comes from.
        clock: The robot's.
    """

    def __init__(self, profile: RobotProfile, topic: str, clock: Clock) -> None:
        self._profile, self._clock = profile, clock
        self._stream = Stream(topic, LASTS_S)
        self._newest: tuple[int, tuple[float, ...]] | None = None

    def put(self, message: Any, received_ns: int) -> None:
        """Take in a Twist or TwistStamped; one that makes no sense is refused and counted.

        Its age is that since its arrival: the clock of somebody's gamepad is not the robot's.
        """
        try:
            values = commanded(message, self._profile)
        except (AttributeError, TypeError, WireError) as error:
            self._stream.refuse(error, received_ns)
            return
        self._stream.accept(received_ns, received_ns)
        self._newest = received_ns, values

    def __call__(self) -> Action | None:
        """Return what the person does now, or None if nobody does anything."""
        if self._newest is None:
            return None
        received_ns, values = self._newest
        if self._clock.now_ns() - received_ns > LASTS_S * 1e9:
            return None
        return Action(values, "human")

    def diagnosis(self) -> Diagnosis:
        """Return whether somebody drives; that nobody does is fine."""
        found = self._stream.diagnosis(self._clock.now_ns())
        if found.level == "error":
            return Diagnosis("ok", found.name, "nobody drives by hand", found.values)
        return found
