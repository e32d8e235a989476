"""What all nodes share: parameters from the table, subscriptions, `/diagnostics`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from policyloop.errors import ConfigError
from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop.robot.ros.endpoints import Endpoint, look_at_publishers
from policyloop.robot.ros.parameters import why_refused
from policyloop.robot.ros.topics import TopicSource
from policyloop_ros.entities import KINDS, QUALITIES, RosLog, Velocities, descriptor, diagnostic_status, twist_publisher
from policyloop_ros.interface import DIAGNOSTICS, Interface, Topic

__all__ = ["Shell"]


class Shell(Node):
    """A node built from its table.

    Attributes:
        values: Its parameters.

    Raises:
        ConfigError: One of them makes no sense.
    """

    def __init__(self, interface: Interface) -> None:
        super().__init__(interface.name)
        logging.getLogger("policyloop").addHandler(RosLog(self.get_logger()))
        logging.getLogger("policyloop").setLevel(logging.INFO)
        self.interface = interface
        self.values: dict[str, Any] = {}
        for parameter in interface.parameters:
            self.declare_parameter(parameter.name, parameter.default, descriptor(parameter))
            self.values[parameter.name] = self.get_parameter(parameter.name).value
        if problem := why_refused(interface.parameters, {}, self.values):
            raise ConfigError(problem)
        self._heard: list[tuple[str, str, Topic, bool]] = []
        self._levels: dict[str, str] = {}
        kind, quality = KINDS[DIAGNOSTICS.kinds[0]], QUALITIES[DIAGNOSTICS.quality]
        self._diagnostics = self.create_publisher(kind, DIAGNOSTICS.name, quality)
        self.every(1.0, self._diagnose)
        self.add_on_set_parameters_callback(self._on_set)

    def ros_ns(self) -> int:
        """Return the time that stamps are made with."""
        return int(self.get_clock().now().nanoseconds)

    def every(self, period_s: float, call: Callable[[], None]) -> None:
        """Call something again and again, by a clock that neither jumps nor waits for a simulator."""
        self.create_timer(period_s, call, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _topic(self, parameter: str) -> tuple[Topic, str, str]:
        """Return the row of a topic, what it is called, and its type."""
        topic = next(topic for topic in self.interface.topics if topic.name == parameter)
        name = self.values[parameter]
        second = {
            "rgb_topic": name.endswith("/compressed"),
            "min_distance_topic": self.values.get("min_distance_is_range", False),
        }.get(parameter, self.values.get("enable_stamped_cmd_vel", False))
        return topic, name, topic.kinds[-1] if second else topic.kinds[0]

    def listen(self, parameter: str, put: Callable[[Any, int], None], *, needed: bool = True) -> None:
        """Subscribe to the topic that a parameter names; `put` takes a message and its arrival, monotonic ns."""
        topic, name, kind = self._topic(parameter)
        quality = QUALITIES[topic.quality]
        self.create_subscription(KINDS[kind], name, lambda message: put(message, time.monotonic_ns()), quality)
        self._heard.append((name, kind, topic, needed))

    def listen_to_sensors(self, source: TopicSource) -> None:
        """Subscribe to everything that a source needs."""
        for name in source.topics:
            parameter = next(topic.name for topic in self.interface.topics if self.values.get(topic.name) == name)
            self.listen(parameter, lambda message, at_ns, name=name: source.put(name, message, at_ns))

    def twists(self, parameter: str) -> Callable[[Velocities], None]:
        """Return what publishes velocities on the topic that a parameter names."""
        topic, name, kind = self._topic(parameter)
        return twist_publisher(self, name, kind, topic.quality)

    def change(self, new: dict[str, Any]) -> str:
        """Change parameters; returns why that is refused, or an empty string."""
        refused = why_refused(self.interface.parameters, self.values, new)
        if not refused:
            self.values.update(new)
        return refused

    def diagnoses(self) -> Iterable[Diagnosis]:
        """Return how the node does."""
        raise NotImplementedError

    def close(self) -> None:
        """Stand still and release everything."""
        raise NotImplementedError

    def _on_set(self, changed: list[Any]) -> SetParametersResult:
        ours = {parameter.name for parameter in self.interface.parameters}
        refused = self.change({one.name: one.value for one in changed if one.name in ours})
        return SetParametersResult(successful=not refused, reason=refused)

    def _diagnose(self) -> None:
        message = KINDS[DIAGNOSTICS.kinds[0]]()
        message.header.stamp = self.get_clock().now().to_msg()
        for found in [*self.diagnoses(), *self.at_the_other_ends()]:
            message.status.append(diagnostic_status(found, self.get_name(), self.values.get("robot_name", "")))
            if found.level not in ("ok", self._levels.get(found.name)):
                self.get_logger().warning(f"{found.name}: {found.message}")
            self._levels[found.name] = found.level
        self._diagnostics.publish(message)

    def at_the_other_ends(self) -> Iterable[Diagnosis]:
        """Return who publishes what is subscribed to, and whether it can match."""
        for name, kind, topic, needed in self._heard:
            endpoints = [
                Endpoint(one.node_name, one.topic_type, one.qos_profile.reliability == ReliabilityPolicy.RELIABLE)
                for one in self.get_publishers_info_by_topic(name)
            ]
            yield look_at_publishers(name, kind, topic.quality, endpoints, needed=needed)
