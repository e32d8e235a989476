"""The node that records what a person does: see `policyloop.robot.ros.collector`."""

from __future__ import annotations

from collections.abc import Iterable

from policyloop.core.clock import MonotonicClock
from policyloop.robot.ros.collector import Collector
from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop_ros.interface import COLLECTOR
from policyloop_ros.shell import Shell
from policyloop_ros.spin import run


class RemoteTrainingCollector(Shell):
    """Topics in, steps to the trainer."""

    def __init__(self) -> None:
        super().__init__(COLLECTOR)
        self._collector = Collector(self.values, MonotonicClock(), self.ros_ns)
        self.listen_to_sensors(self._collector.source)
        self.listen("cmd_vel_topic", self._collector.teleop.put)
        self._collector.start()

    def diagnoses(self) -> Iterable[Diagnosis]:
        """See `Shell.diagnoses`."""
        return self._collector.diagnoses()

    def close(self) -> None:
        """See `Shell.close`."""
        self._collector.close()


def main() -> int:
    """Run the node."""
    return run(RemoteTrainingCollector)
