"""Listen for two seconds as our nodes do, and print what was found: for `policyloop doctor --ros`.

Takes the parameters of the collector, so that a robot's own topics can be given. Publishes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import msgspec
import rclpy

from policyloop.core.clock import MonotonicClock
from policyloop.errors import PolicyloopError
from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop.robot.ros.settings import profile_of, topics_of
from policyloop.robot.ros.topics import TopicSource
from policyloop_ros.interface import COLLECTOR
from policyloop_ros.shell import Shell

__all__ = ["main"]

_LISTEN_S = 2.0


class Look(Shell):
    """A node that only listens."""

    def __init__(self) -> None:
        super().__init__(COLLECTOR._replace(name="policyloop_doctor"))
        profile = profile_of(self.values, "collection_rate_hz")
        self._source = TopicSource(profile, topics_of(self.values), MonotonicClock(), self.ros_ns)
        self.listen_to_sensors(self._source)
        self.listen("cmd_vel_topic", lambda message, at_ns: None, needed=False)

    def diagnoses(self) -> Iterable[Diagnosis]:
        """See `Shell.diagnoses`."""
        return [*self._source.diagnoses(), *self.at_the_other_ends()]

    def _diagnose(self) -> None:
        """Publish nothing."""


def main() -> int:
    """Look, print the diagnoses as JSON, and return the exit code."""
    rclpy.init()
    try:
        node = Look()
    except PolicyloopError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    end_s = time.monotonic() + _LISTEN_S
    while time.monotonic() < end_s:
        rclpy.spin_once(node, timeout_sec=0.1)
    found = msgspec.json.encode(list(node.diagnoses()))
    node.destroy_node()
    rclpy.shutdown()
    sys.stdout.buffer.write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
