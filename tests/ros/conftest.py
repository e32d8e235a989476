"""ROS 2 messages of two releases, made by rosbags: what `Messages` returns has the attributes that rclpy's have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simplejpeg
from rosbags.typesys import Stores, get_typestore

RELEASES = {"humble": Stores.ROS2_HUMBLE, "jazzy": Stores.ROS2_JAZZY}
STAMP_NS = 1_750_000_000_123_456_789
ENCODINGS = {"16UC1": "u2", "32FC1": "f4"}
KINDS = {
    "image": "sensor_msgs/msg/Image",
    "jpeg": "sensor_msgs/msg/CompressedImage",
    "imu": "sensor_msgs/msg/Imu",
    "odometry": "nav_msgs/msg/Odometry",
    "twist": "geometry_msgs/msg/Twist",
    "stamped": "geometry_msgs/msg/TwistStamped",
    "range": "sensor_msgs/msg/Range",
    "float32": "std_msgs/msg/Float32",
}


class Messages:
    """Makes messages of one release, and their CDR bytes."""

    def __init__(self, release: str) -> None:
        self.store = get_typestore(RELEASES[release])
        self.types: Any = self.store.types

    def cdr(self, name: str, message: Any) -> bytes:
        return bytes(self.store.serialize_cdr(message, KINDS[name]))

    def read(self, name: str, data: bytes) -> Any:
        return self.store.deserialize_cdr(data, KINDS[name])

    def header(self, stamp_ns: int = STAMP_NS, frame: str = "camera") -> Any:
        return self.types["std_msgs/msg/Header"](
            self.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9)), frame
        )

    def vector(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Any:
        return self.types["geometry_msgs/msg/Vector3"](x, y, z)

    def image(
        self, pixels: np.ndarray, encoding: str, stamp_ns: int = STAMP_NS, *, pad: int = 0, big: bool = False
    ) -> Any:
        height, width = pixels.shape[:2]
        rows = np.ascontiguousarray(pixels, np.dtype(ENCODINGS.get(encoding, "u1")).newbyteorder(">" if big else "<"))
        rows = rows.view(np.uint8).reshape(height, -1)
        rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=255)
        return self.types[KINDS["image"]](
            self.header(stamp_ns), height, width, encoding, int(big), rows.shape[1], rows.reshape(-1)
        )

    def jpeg(self, pixels: np.ndarray, stamp_ns: int = STAMP_NS) -> Any:
        data = np.frombuffer(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90), np.uint8)
        return self.types[KINDS["jpeg"]](self.header(stamp_ns), "jpeg", data)

    def imu(
        self,
        roll: float = 0.0,
        acceleration: tuple[float, float, float] = (0.0, 0.0, 9.81),
        stamp_ns: int = STAMP_NS,
        *,
        frame: str = "imu_link",
        oriented: bool = True,
    ) -> Any:
        half = roll / 2
        w, x = (math.cos(half), math.sin(half)) if oriented else (0.0, 0.0)
        orientation = self.types["geometry_msgs/msg/Quaternion"](x, 0.0, 0.0, w)
        unknown = np.zeros(9)
        unknown[0] = 0.0 if oriented else -1.0
        zeros = np.zeros(9)
        return self.types[KINDS["imu"]](
            self.header(stamp_ns, frame), orientation, unknown, self.vector(), zeros, self.vector(*acceleration), zeros
        )

    def twist(self, linear: float, angular: float) -> Any:
        return self.types[KINDS["twist"]](self.vector(linear), self.vector(0.0, 0.0, angular))

    def stamped(self, linear: float, angular: float, stamp_ns: int = STAMP_NS) -> Any:
        return self.types[KINDS["stamped"]](self.header(stamp_ns), self.twist(linear, angular))

    def odometry(self, linear: float, angular: float, stamp_ns: int = STAMP_NS) -> Any:
        pose = self.types["geometry_msgs/msg/Pose"](
            self.types["geometry_msgs/msg/Point"](1.0, 2.0, 3.0),
            self.types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
        )
        covariance = np.zeros(36)
        return self.types[KINDS["odometry"]](
            self.header(stamp_ns, "odom"),
            "base_link",
            self.types["geometry_msgs/msg/PoseWithCovariance"](pose, covariance),
            self.types["geometry_msgs/msg/TwistWithCovariance"](self.twist(linear, angular), covariance),
        )

    def range(self, distance: float, low: float = 0.02, high: float = 4.0, stamp_ns: int = STAMP_NS) -> Any:
        values = {
            "header": self.header(stamp_ns),
            "radiation_type": 0,
            "field_of_view": 0.5,
            "min_range": low,
            "max_range": high,
            "range": distance,
            "variance": 0.0,
        }
        kind = self.types[KINDS["range"]]
        return kind(**{name: values[name] for name in kind.__dataclass_fields__ if name in values})

    def float32(self, value: float) -> Any:
        return self.types[KINDS["float32"]](value)


@pytest.fixture(scope="session", params=sorted(RELEASES))
def messages(request: pytest.FixtureRequest) -> Messages:
    """Messages of Humble, and of Jazzy."""
    return Messages(request.param)


@pytest.fixture(scope="session")
def jazzy() -> Messages:
    """Messages of Jazzy."""
    return Messages("jazzy")


@pytest.fixture(scope="session")
def release() -> Callable[[str], Messages]:
    """Return `release(name)`: the messages of one release."""
    return Messages
