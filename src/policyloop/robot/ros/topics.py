"""Topics -> observations: colour and depth in pairs, and the newest of everything else.

What is missing is missing: no observation is made of a topic that has said nothing, or nothing lately.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from policyloop.core.clock import Clock
from policyloop.core.corridor import column_distances, free_distance
from policyloop.core.profile import TOLD_QUANTITIES, RobotProfile
from policyloop.core.step import Arrays, Observation
from policyloop.core.sync import Synchronizer
from policyloop.errors import ConfigError, ConnectionFailed, WireError
from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop.robot.ros.messages import color, depth_mm, distance_m, motion, posture, stamp_ns
from policyloop.robot.ros.stream import Stream

__all__ = ["TopicSettings", "TopicSource"]

_PICTURES = ("rgb", "depth")
_SENSED_BY = {
    "linear_vel": "odom",
    "angular_vel": "odom",
    "roll": "imu",
    "pitch": "imu",
    "accel_mag": "imu",
    "min_forward_dist": "depth",
}


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rover's sensors are, and what their numbers mean.

    Attributes:
        rgb, depth, odom, imu: Topics.
        distance: Topic of a sensor ahead beside the camera; empty = there is none.
        depth_unit_m: What a 16UC1 pixel of 1 means.
        depth_clip_m: What is further away is as far as this.
        tolerance_s: By how much the stamps of a pair may differ; half a frame.
    """

    rgb: str
    depth: str
    odom: str
    imu: str
    distance: str = ""
    depth_unit_m: float = 0.001
    depth_clip_m: float = 6.0
    tolerance_s: float = 0.02


class TopicSource:
    """A `SensorSource`; any thread puts, the control loop reads.

    Args:
        profile: The robot's: picture size, proprioception, how old an observation may be.
        settings: Topics.
        clock: The robot's.
        ros_now: Returns the time that stamps are made with, ns; None = unknown.

    Raises:
        ConfigError: The profile senses what these topics do not say.
    """

    def __init__(
        self,
        profile: RobotProfile,
        settings: TopicSettings,
        clock: Clock,
        ros_now: Callable[[], int] | None = None,
    ) -> None:
        if profile.camera is None:
            raise ConfigError(f"profile '{profile.name}' has no camera", "use a profile with a [camera] table")
        self._profile, self._settings = profile, settings
        self._camera = profile.camera
        self._clock, self._ros_now = clock, ros_now
        topics = {name: getattr(settings, name) for name in _needed(profile, settings)}
        self._names = {topic: name for name, topic in topics.items()}
        if len(self._names) < len(topics) or "" in self._names:
            raise ConfigError(f"topics {topics}", "give each sensor that the profile needs a topic of its own")
        self._streams = {name: Stream(topic, profile.rates.sensor_timeout_s) for name, topic in topics.items()}
        self._timeout_ns = round(profile.rates.sensor_timeout_s * 1e9)
        self._lock = threading.Lock()
        self._newest: dict[str, tuple[int, dict[str, float]]] = {}
        self._pair: tuple[int, Arrays] | None = None
        self._pairs = self._new_pairs()

    def _new_pairs(self) -> Synchronizer:
        return Synchronizer(_PICTURES, round(self._settings.tolerance_s * 1e9))

    @property
    def topics(self) -> dict[str, str]:
        """What must be subscribed to: sensor by topic."""
        return dict(self._names)

    def put(self, topic: str, message: Any, received_ns: int) -> None:
        """Take in one message; one that makes no sense is refused, counted and named.

        Args:
            topic: One of `topics`.
            message: What came.
            received_ns: When, monotonic.
        """
        name = self._names[topic]
        stream = self._streams[name]
        try:
            stamped_ns = stamp_ns(message)
            if stamped_ns is None and name in _PICTURES:
                raise WireError("bad-time", "a picture without a stamp finds no partner")
            reading = self._reading(name, message)
        except (AttributeError, TypeError, ValueError, WireError) as error:
            with self._lock:
                stream.refuse(error, received_ns)
            return
        with self._lock:
            self._take(name, stream, reading, stamped_ns, received_ns)

    def _reading(self, name: str, message: Any) -> Any:
        """Return a picture, or quantities by name."""
        specs, settings = self._profile.observation_specs, self._settings
        if name == "rgb":
            return color(message, specs["rgb"].shape)
        if name == "depth":
            unit_m, clip_m = settings.depth_unit_m, settings.depth_clip_m
            return depth_mm(message, specs["depth"].shape, unit_m=unit_m, clip_m=clip_m)
        if name == "distance":
            return {"min_forward_dist": distance_m(message)}
        return motion(message) if name == "odom" else posture(message)

    def _take(self, name: str, stream: Stream, reading: Any, stamped_ns: int | None, received_ns: int) -> None:
        restarts = stream.restarts
        try:
            captured_ns = stream.captured(stamped_ns, received_ns, self._ros_now() if self._ros_now else None)
        except WireError as error:
            stream.refuse(error, received_ns)
            return
        stream.accept(captured_ns, received_ns)
        if name not in _PICTURES or stamped_ns is None:
            self._newest[name] = captured_ns, reading
            return
        if stream.restarts > restarts:
            self._pairs = self._new_pairs()  # what waits there is of the time before
        completed = self._pairs.add(name, stamped_ns, (captured_ns, reading))
        if completed is not None:
            (rgb_ns, rgb), (depth_ns, depth) = (completed[1][picture] for picture in _PICTURES)
            self._pair = min(rgb_ns, depth_ns), {"rgb": rgb, "depth": depth}

    def read(self) -> Observation:
        """Return the newest pair with the newest of everything else; captured when the oldest of it was.

        Raises:
            ConnectionFailed: A topic says nothing about now, or pictures find no partners; named.
        """
        with self._lock:
            unfit = self._unfit(self._clock.now_ns())
            pair, readings = self._pair, list(self._newest.values())
        if unfit or pair is None:
            raise ConnectionFailed(unfit, "is its driver running? `ros2 topic hz` tells")
        captured_ns, pictures = pair
        columns = column_distances(pictures["depth"], self._camera)
        ahead_m = free_distance(columns, self._camera, self._profile.body.corridor_half_width_m)
        sensed: dict[str, float] = {}
        for read_ns, quantities in readings:
            captured_ns = min(captured_ns, read_ns)
            sensed |= quantities
        sensed["min_forward_dist"] = min(ahead_m, sensed.get("min_forward_dist", ahead_m))
        return Observation({**pictures, "proprio": self._profile.proprio_of(sensed)}, captured_ns)

    def _unfit(self, now_ns: int) -> str:
        """Return why there is no observation of now, or an empty string."""
        silent = filter(None, (stream.unfit(now_ns) for stream in self._streams.values()))
        return "; ".join(silent) or self._unpaired(now_ns)

    def _unpaired(self, now_ns: int) -> str:
        if self._pair is not None and now_ns - self._pair[0] <= self._timeout_ns:
            return ""
        rgb, depth = (self._streams[name].topic for name in _PICTURES)
        return f"no pair of {rgb} and {depth}: their stamps differ by more than {self._settings.tolerance_s:g} s"

    def begin_episode(self) -> bool:
        """Return False: the robot stays where it is."""
        return False

    def diagnoses(self) -> list[Diagnosis]:
        """Return how each topic does, and how pictures pair."""
        now_ns = self._clock.now_ns()
        with self._lock:
            found = [stream.diagnosis(now_ns) for stream in self._streams.values()]
            values = {"unmatched": str(self._pairs.unmatched)}
            unpaired = self._unpaired(now_ns)
            found.append(Diagnosis("error" if unpaired else "ok", "pairs", unpaired or "colour with depth", values))
        return found


def _needed(profile: RobotProfile, settings: TopicSettings) -> list[str]:
    """Return which sensors an observation needs."""
    sensed = [quantity.name for quantity in profile.proprio if quantity.name not in TOLD_QUANTITIES]
    unknown = [name for name in sensed if name not in _SENSED_BY]
    if unknown:
        raise ConfigError(
            f"profile '{profile.name}' senses {', '.join(unknown)}, which no topic says",
            f"topics say {', '.join(_SENSED_BY)}",
        )
    sensors = {_SENSED_BY[name] for name in sensed} | set(_PICTURES)
    return sorted(sensors | ({"distance"} if settings.distance else set()))
