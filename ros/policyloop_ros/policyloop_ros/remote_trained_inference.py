"""The node that drives: see `policyloop.robot.ros.inference`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_srvs.srv import Trigger

from policyloop.core.clock import MonotonicClock
from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop.robot.ros.inference import Inference
from policyloop_ros.interface import INFERENCE
from policyloop_ros.shell import Shell
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
        # In a group of its own: a reload takes long, and sensors must go on.
        group = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, INFERENCE.services[0].name, self._reload, callback_group=group)
        self._inference.start()

    def _reload(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._inference.reload()
        return response

    def change(self, new: dict[str, Any]) -> str:
        """See `Shell.change`."""
        return self._inference.change(new)

    def diagnoses(self) -> Iterable[Diagnosis]:
        """See `Shell.diagnoses`."""
        return self._inference.diagnoses()

    def close(self) -> None:
        """See `Shell.close`."""
        self._inference.close()


def main() -> int:
    """Run the node."""
    return run(RemoteTrainedInference)
