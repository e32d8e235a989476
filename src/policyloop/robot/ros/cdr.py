"""Steps as ROS 2 messages, encoded without ROS: what the MCAP export writes. Bags are decoded by the same.

Topics, under the robot's name:

    color/compressed | color/image   sensor_msgs/CompressedImage (the JPEG as it was streamed) | Image rgb8
    depth/image                      sensor_msgs/Image 16UC1, mm, 0 = no measurement
    proprio, action, command         std_msgs/Float32MultiArray, labelled in the profile's order
    cmd_vel                          geometry_msgs/Twist, if the profile drives by linear and angular velocity
    step                             std_msgs/String, the whole record as JSON
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays, StepRecord
from policyloop.errors import MissingExtra, WireError
from policyloop.wire.rgb import JPEG_START

__all__ = ["Encoded", "RosMessages"]

Encoded = tuple[str, str, bytes]
"""Topic without the robot's name, message type, CDR bytes."""


class RosMessages:
    """Encodes and decodes messages of ROS 2 Humble, which later releases share.

    Args:
        profile: Gives names, units and order.

    Raises:
        MissingExtra: `rosbags` is not installed.
    """

    def __init__(self, profile: RobotProfile) -> None:
        try:
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise MissingExtra("rosbags", "data") from error
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._profile = profile
        self._types: Any = self._store.types

    def definition(self, kind: str) -> bytes:
        """Return a message type's definition with everything that it contains."""
        text, _ = self._store.generate_msgdef(kind, ros_version=2)
        return text.encode()

    def decode(self, kind: str, data: bytes) -> Any:
        """Decode CDR bytes; WireError if they are no message of this kind."""
        try:
            return self._store.deserialize_cdr(data, kind)
        except Exception as error:  # of damaged bytes rosbags raises whatever it stumbles on
            raise WireError("message", f"no {kind}: {error}") from error

    def step(self, record: StepRecord, observation: Arrays, rgb_frame: bytes, stamp_ns: int) -> Iterator[Encoded]:
        """Encode one step.

        Args:
            record: All but the arrays.
            observation: Decoded arrays.
            rgb_frame: The picture as it was streamed; empty without a camera.
            stamp_ns: Time of capture, ns since 1970.
        """
        if "rgb" in observation:
            yield self._color(observation["rgb"], rgb_frame, stamp_ns)
        if "depth" in observation:
            yield self._image("depth/image", "16UC1", observation["depth"], stamp_ns)
        profile = self._profile
        names = [q.name if q.size == 1 else f"{q.name}[{i}]" for q in profile.proprio for i in range(q.size)]
        yield self._numbers("proprio", names, observation["proprio"])
        actions = [quantity.name for quantity in profile.action]
        yield self._numbers("action", actions, record.action.values)
        yield self._numbers("command", actions, record.command.values)
        if {"linear", "angular"} <= set(actions):
            yield self._twist(dict(zip(actions, record.command.values, strict=True)))
        text = msgspec.json.encode(record).decode()
        yield self._encoded("step", "std_msgs/msg/String", self._types["std_msgs/msg/String"](text))

    def _encoded(self, topic: str, kind: str, message: Any) -> Encoded:
        return topic, kind, bytes(self._store.serialize_cdr(message, kind))

    def _header(self, stamp_ns: int, frame: str) -> Any:
        time = self._types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
        return self._types["std_msgs/msg/Header"](time, frame)

    def _color(self, rgb: NDArray[np.uint8], frame: bytes, stamp_ns: int) -> Encoded:
        if not frame.startswith(JPEG_START) or len(frame) == rgb.nbytes:
            return self._image("color/image", "rgb8", rgb, stamp_ns)
        kind = "sensor_msgs/msg/CompressedImage"
        message = self._types[kind](self._header(stamp_ns, "camera"), "jpeg", np.frombuffer(frame, np.uint8))
        return self._encoded("color/compressed", kind, message)

    def _image(self, topic: str, encoding: str, picture: NDArray[Any], stamp_ns: int) -> Encoded:
        kind = "sensor_msgs/msg/Image"
        height, width = picture.shape[:2]
        data = np.ascontiguousarray(picture).view(np.uint8).reshape(-1)
        row = picture.nbytes // height
        message = self._types[kind](self._header(stamp_ns, "camera"), height, width, encoding, 0, row, data)
        return self._encoded(topic, kind, message)

    def _numbers(self, topic: str, names: Sequence[str], values: Sequence[float] | NDArray[np.float32]) -> Encoded:
        kind = "std_msgs/msg/Float32MultiArray"
        dimension = self._types["std_msgs/msg/MultiArrayDimension"]
        layout = self._types["std_msgs/msg/MultiArrayLayout"]([dimension(",".join(names), len(names), len(names))], 0)
        return self._encoded(topic, kind, self._types[kind](layout, np.asarray(values, np.float32)))

    def _twist(self, command: dict[str, float]) -> Encoded:
        kind, vector = "geometry_msgs/msg/Twist", self._types["geometry_msgs/msg/Vector3"]
        message = self._types[kind](vector(command["linear"], 0.0, 0.0), vector(0.0, 0.0, command["angular"]))
        return self._encoded("cmd_vel", kind, message)
