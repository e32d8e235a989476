"""Where a rover's commands leave: as linear and angular velocity."""

from __future__ import annotations

import threading
from collections.abc import Callable

from policyloop.core.profile import RobotProfile
from policyloop.core.step import TimedCommand
from policyloop.errors import ConfigError

__all__ = ["TwistSink", "check_drives_by_twist"]


def check_drives_by_twist(profile: RobotProfile) -> None:
    """Raise ConfigError unless a Twist can say what the profile's robot does."""
    names = [quantity.name for quantity in profile.action]
    if not names or not set(names) <= {"linear", "angular"}:
        raise ConfigError(
            f"profile '{profile.name}' drives by {', '.join(names)}, a Twist says linear and angular",
            "robots with legs: docs/bridge.md",
        )


class TwistSink:
    """A `CommandSink`. A Twist says nothing about validity: what is behind it must stop by itself (docs/ros.md).

    Args:
        profile: Order of the command.
        publish: Takes m/s and rad/s; called by one thread at a time.

    Raises:
        ConfigError: The robot does not drive by velocities.
    """

    def __init__(self, profile: RobotProfile, publish: Callable[[float, float], None]) -> None:
        check_drives_by_twist(profile)
        self._names = [quantity.name for quantity in profile.action]
        self._publish = publish
        self._lock = threading.Lock()
        self._closed = False

    def write(self, order: TimedCommand) -> None:
        """See `CommandSink.write`."""
        driven = dict(zip(self._names, order.command.values, strict=True))
        with self._lock:
            if not self._closed:
                self._publish(float(driven.get("linear", 0.0)), float(driven.get("angular", 0.0)))

    def close(self) -> None:
        """Stand still; what is written from now on goes nowhere."""
        with self._lock:
            self._closed = True
            self._publish(0.0, 0.0)
