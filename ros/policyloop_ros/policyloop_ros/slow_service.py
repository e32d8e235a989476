"""A service that may take minutes, while sensors go on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

__all__ = ["SlowService"]


class SlowService:
    """Serves std_srvs/Trigger from a node and a thread of its own.

    A callback group of its own would do it as well, but needs rclpy's MultiThreadedExecutor, which takes ten times the
    processor of the single-threaded one and makes the control loop late (bench/ros_node.py).

    Args:
        name: Of the service.
        answer: Does it; returns success and a sentence.
    """

    def __init__(self, name: str, answer: Callable[[], tuple[bool, str]]) -> None:
        self._answer = answer
        # Without the command line's arguments: a launch file that names the node would name this one as well.
        self._node = rclpy.create_node(
            name.strip("/").replace("/", "_"), use_global_arguments=False, start_parameter_services=False
        )
        self._node.create_service(Trigger, name, self._serve)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, name="service")
        self._thread.start()

    def _serve(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._answer()
        return response

    def close(self) -> None:
        """Serve no more; waits for an answer under way."""
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
