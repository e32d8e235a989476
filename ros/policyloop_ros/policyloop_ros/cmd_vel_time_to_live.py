"""The node before a driver without a time-out: see `policyloop.robot.ros.time_to_live`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop.robot.ros.time_to_live import TimeToLive
from policyloop_ros.interface import TIME_TO_LIVE
from policyloop_ros.shell import Shell
from policyloop_ros.spin import run


class CmdVelTimeToLive(Shell):
    """Commands in, the same commands out, or zeros."""

    def __init__(self) -> None:
        super().__init__(TIME_TO_LIVE)
        self._latch = TimeToLive(self.values["time_to_live_s"])
        self._publish = self.twists("cmd_vel_out")
        self.listen("cmd_vel_in", self._pass_on)
        self.every(1 / self.values["rate_hz"], lambda: self._publish(self._latch.now(time.monotonic_ns())))

    def _pass_on(self, message: Any, received_ns: int) -> None:
        twist = getattr(message, "twist", message)
        linear, angular = twist.linear, twist.angular
        velocities = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        self._publish(self._latch.accept(velocities, received_ns))

    def diagnoses(self) -> Iterable[Diagnosis]:
        """See `Shell.diagnoses`."""
        return [self._latch.diagnosis()]

    def close(self) -> None:
        """See `Shell.close`."""
        self._publish((0.0,) * 6)


def main() -> int:
    """Run the node."""
    return run(CmdVelTimeToLive)
