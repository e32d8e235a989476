"""The node that drives: see `policyloop.robot.ros.inference`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policyloop.core.clock import MonotonicClock
from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop.robot.ros.inference import Inference
from policyloop_ros.interface import INFERENCE
from policyloop_ros.shell import Shell
from policyloop_ros.slow_service import SlowService
from policyloop_ros.spin import run


class RemoteTrainedInference(Shell):
    """Topics in, twists out."""

    def __init__(self) -> None:
        super().__init__(INFERENCE)
        publish = self.twists("cmd_vel_topic")

        def drive(linear_mps: float, angular_radps: float) -> None:
            publish((linear_mps, 0.0, 0.0, 0.0, 0.0, angular_radps))

        self._inference = Inference(INFERENCE.parameters, self.values, drive, MonotonicClock(), self.ros_ns)
        self.listen_to_sensors(self._inference.source)
        if self.values["teleop_topic"]:
            self.listen("teleop_topic", self._inference.teleop.put, needed=False)
        self._inference.start()
        self._service = SlowService(INFERENCE.services[0].name, self._inference.reload)

    def change(self, new: dict[str, Any]) -> str:
        """See `Shell.change`."""
        return self._inference.change(new)

    def diagnoses(self) -> Iterable[Diagnosis]:
        """See `Shell.diagnoses`."""
        return self._inference.diagnoses()

    def close(self) -> None:
        """See `Shell.close`."""
        self._inference.close()
        self._service.close()


def main() -> int:
    """Run the node."""
    return run(RemoteTrainedInference)
