"""What ROS 2 messages say: pictures, velocities, posture, distance.

A message is anything with the attributes of one: rclpy's, and those that `rosbags` reads. Pictures arrive as
`array.array` or numpy and are looked at where they lie. Metres, radians, seconds; x forward, y left, z up (REP-103).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.errors import WireError
from policyloop.wire.rgb import unpack_rgb

__all__ = ["color", "commanded", "depth_mm", "distance_m", "motion", "posture", "stamp_ns"]

_MM = 0.001
_OPTICAL = "_optical_frame"
"""Frames in which z looks forward, x right and y down (REP-103): a RealSense's IMU is in one."""
_UNIT_LENGTH = (0.9, 1.1)
_LEAST_GRAVITY_MPS2 = 5.0
"""What feels less than half of its weight does not know where down is."""


def stamp_ns(message: Any) -> int | None:
    """Return when the sensor read what a message holds, ns of ROS time; None if it does not say."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return (int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)) or None


def color(message: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an Image (rgb8, bgr8) or CompressedImage (JPEG) as (H, W, 3) RGB; WireError `bad-rgb` otherwise."""
    if not hasattr(message, "encoding"):
        return unpack_rgb(bytes(message.data), shape)
    picture = _pixels(message, {"rgb8": "u1", "bgr8": "u1"}, shape, "bad-rgb")
    return picture if message.encoding == "rgb8" else np.ascontiguousarray(picture[..., ::-1])


def depth_mm(
    message: Any, shape: tuple[int, ...], *, unit_m: float = _MM, clip_m: float = 65.535
) -> NDArray[np.uint16]:
    """Return a depth Image as (H, W) uint16 in mm, 0 = no measurement (REP-118); WireError `bad-depth` otherwise.

    Args:
        message: 16UC1 in units of `unit_m`, or 32FC1 in m.
        shape: (H, W).
        unit_m: What a 16UC1 pixel of 1 means.
        clip_m: What is further away is as far as this.
    """
    if not hasattr(message, "encoding"):
        raise WireError("bad-depth", "a CompressedImage is no depth; subscribe to the raw topic")
    pixels = _pixels(message, {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}, shape, "bad-depth")
    farthest_mm = min(round(clip_m * 1000), 65535)
    if pixels.dtype.kind == "u" and unit_m == _MM:
        return np.minimum(pixels, farthest_mm, dtype=np.uint16)
    metres = pixels.astype(np.float32) * np.float32(unit_m if pixels.dtype.kind == "u" else 1.0)
    metres[~(np.isfinite(metres) & (metres > 0))] = 0
    return np.minimum(np.rint(metres * np.float32(1000)), farthest_mm).astype(np.uint16)


def _pixels(message: Any, encodings: dict[str, str], shape: tuple[int, ...], reason: str) -> NDArray[Any]:
    """Look at an Image of exactly `shape`, rows of `step` bytes, in this machine's byte order."""
    if message.encoding not in encodings:
        raise WireError(reason, f"encoding '{message.encoding}', expected {' or '.join(encodings)}")
    height, width = shape[:2]
    if (message.height, message.width) != (height, width):
        raise WireError(reason, f"picture of {message.width}x{message.height}, expected {width}x{height}")
    dtype = np.dtype(encodings[message.encoding]).newbyteorder(">" if message.is_bigendian else "<")
    row = int(np.prod(shape[1:])) * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    if message.step < row or len(data) != message.step * height:
        raise WireError(reason, f"{len(data)} bytes in steps of {message.step} are no {height} rows of {row}")
    rows = data.reshape(height, message.step)[:, :row]
    return np.ascontiguousarray(rows.view(dtype).reshape(shape), dtype.newbyteorder("="))


def motion(message: Any) -> dict[str, float]:
    """Return `linear_vel` m/s and `angular_vel` rad/s of an Odometry; WireError `bad-odometry` if not finite."""
    twist = message.twist.twist
    return _finite("bad-odometry", linear_vel=twist.linear.x, angular_vel=twist.angular.z)


def commanded(message: Any, profile: RobotProfile) -> tuple[float, ...]:
    """Return a Twist or TwistStamped as the profile's action, within its range; WireError `bad-twist` if not finite."""
    twist = getattr(message, "twist", message)
    driven = _finite("bad-twist", linear=twist.linear.x, angular=twist.angular.z)
    return tuple(min(max(driven[q.name], q.low), q.high) for q in profile.action)


def distance_m(message: Any) -> float:
    """Return the free distance of a Range or Float32, m, 0 = as good as touching; WireError `bad-distance` otherwise.

    Of a Range (REP-117): nothing within its range is as far as it reaches, what is too close to measure is 0.
    """
    if not hasattr(message, "range"):
        distance = float(message.data)
        if math.isfinite(distance) and distance >= 0:
            return distance
        raise WireError("bad-distance", f"{distance} m")
    distance = float(message.range)
    if math.isnan(distance):
        raise WireError("bad-distance", "range is nan")
    farthest = _finite("bad-distance", max_range=message.max_range)["max_range"]
    return 0.0 if distance < float(message.min_range) else min(distance, farthest)


def posture(message: Any) -> dict[str, float]:
    """Return `roll` and `pitch` rad and `accel_mag` m/s^2 of an Imu; WireError `bad-imu` if it cannot be read.

    An IMU without an orientation of its own (REP-145: the first covariance is -1), or mounted in an optical frame,
    leans as gravity says, which is right as far as the robot does not accelerate.
    """
    felt = message.linear_acceleration
    _finite("bad-imu", x=felt.x, y=felt.y, z=felt.z)
    if message.linear_acceleration_covariance[0] == -1:
        raise WireError("bad-imu", "it says that it has no acceleration")
    strength = math.sqrt(felt.x**2 + felt.y**2 + felt.z**2)
    optical = str(message.header.frame_id).endswith(_OPTICAL)
    if optical or message.orientation_covariance[0] == -1:
        if strength < _LEAST_GRAVITY_MPS2:
            raise WireError("bad-imu", f"no orientation, and with {strength:.1f} m/s^2 no gravity either")
        x, y, z = (felt.z, -felt.x, -felt.y) if optical else (felt.x, felt.y, felt.z)
        roll, pitch = math.atan2(y, z), math.atan2(-x, math.hypot(y, z))
    else:
        roll, pitch = _leaning(message.orientation)
    return {"roll": roll, "pitch": pitch, "accel_mag": strength}


def _leaning(q: Any) -> tuple[float, float]:
    _finite("bad-imu", x=q.x, y=q.y, z=q.z, w=q.w)
    length = math.sqrt(q.x**2 + q.y**2 + q.z**2 + q.w**2)
    if not _UNIT_LENGTH[0] <= length <= _UNIT_LENGTH[1]:
        raise WireError("bad-imu", f"orientation of length {length:.2f} is no rotation")
    roll = math.atan2(2 * (q.w * q.x + q.y * q.z), 1 - 2 * (q.x * q.x + q.y * q.y))
    return roll, math.asin(max(-1.0, min(1.0, 2 * (q.w * q.y - q.z * q.x))))


def _finite(reason: str, **values: float) -> dict[str, float]:
    """Return the values as floats; WireError with the name of the first that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise WireError(reason, f"{name} is {value}")
    return {name: float(value) for name, value in values.items()}
