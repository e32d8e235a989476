"""The words of the interface table as rclpy has them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, Imu, Range
from std_msgs.msg import Float32

from policyloop.robot.ros.diagnosis import LEVELS, Diagnosis
from policyloop.robot.ros.parameters import Parameter

__all__ = ["KINDS", "QUALITIES", "RosLog", "Velocities", "descriptor", "diagnostic_status", "twist_publisher"]

KINDS = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/Imu": Imu,
    "sensor_msgs/msg/Range": Range,
    "nav_msgs/msg/Odometry": Odometry,
    "std_msgs/msg/Float32": Float32,
    "geometry_msgs/msg/Twist": Twist,
    "geometry_msgs/msg/TwistStamped": TwistStamped,
    "diagnostic_msgs/msg/DiagnosticArray": DiagnosticArray,
}
QUALITIES = {
    "sensor": qos_profile_sensor_data,
    "command": QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
    "state": QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE),
}

Velocities = tuple[float, ...]
"""Linear x, y, z in m/s, angular x, y, z in rad/s."""


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Return what `ros2 param describe` shows."""
    about = ParameterDescriptor(description=parameter.about, read_only=parameter.live == "fixed")
    if isinstance(parameter.default, float):
        about.floating_point_range = [FloatingPointRange(from_value=parameter.low, to_value=parameter.high)]
    elif type(parameter.default) is int:
        about.integer_range = [IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))]
    return about


def diagnostic_status(found: Diagnosis, node: str, robot: str) -> DiagnosticStatus:
    """Return one line of `/diagnostics`."""
    return DiagnosticStatus(
        level=bytes([LEVELS[found.level]]),
        name=f"{node}: {found.name}",
        message=found.message,
        hardware_id=robot,
        values=[KeyValue(key=key, value=value) for key, value in found.values.items()],
    )


def twist_publisher(node: Node, topic: str, kind: str, quality: str) -> Callable[[Velocities], None]:
    """Return what publishes velocities as Twist or TwistStamped; a command is of now, and of the body."""
    publisher = node.create_publisher(KINDS[kind], topic, QUALITIES[quality])

    def publish(velocities: Velocities) -> None:
        message: Any = KINDS[kind]()
        twist = message
        if kind.endswith("Stamped"):
            message.header.stamp = node.get_clock().now().to_msg()
            message.header.frame_id = "base_link"
            twist = message.twist
        twist.linear.x, twist.linear.y, twist.linear.z = velocities[:3]
        twist.angular.x, twist.angular.y, twist.angular.z = velocities[3:]
        publisher.publish(message)

    return publish


class RosLog(logging.Handler):
    """Passes policyloop's log on to /rosout.

    Args:
        logger: The node's.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on; rclpy refuses two severities from one line of code."""
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)
