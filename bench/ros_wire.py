"""A rover's topics over a real DDS, between two processes without ROS: what arrives in pairs, and how late.

python bench/ros_wire.py [--seconds 20]

A pip-only peer of cyclonedds publishes colour and depth (424x240, 30 Hz), IMU and odometry as a ROS 2 node would: the
same topic and type names, CDR bytes made by rosbags. This process feeds them to `TopicSource`, drives behind the gate,
and publishes the twists, which the peer counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from types import new_class
from typing import Any

import cyclonedds.idl.types as idl
import numpy as np
from cyclonedds.core import InstanceState, Policy, Qos, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

from policyloop.core.clock import MonotonicClock
from policyloop.core.profile import load_profile
from policyloop.core.step import Action, Command, Observation
from policyloop.robot.actor import Actor
from policyloop.robot.recorder import Recorder
from policyloop.robot.ros.topics import TopicSettings, TopicSource
from policyloop.robot.ros.twist_sink import TwistSink
from policyloop.safety.gate import SafetyGate

STORE = get_typestore(Stores.ROS2_JAZZY)
T: Any = STORE.types
LOOPBACK = (
    '<CycloneDDS><Domain Id="any"><General><Interfaces><NetworkInterface name="lo"/></Interfaces>'
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    '<Peers><Peer address="127.0.0.1"/></Peers></Discovery></Domain></CycloneDDS>'
)
RGB, DEPTH, ODOM, IMU, TWIST = "/camera/color", "/camera/depth", "/odom", "/imu/data", "/cmd_vel_ai"
KINDS = {
    RGB: "sensor_msgs/msg/Image",
    DEPTH: "sensor_msgs/msg/Image",
    ODOM: "nav_msgs/msg/Odometry",
    IMU: "sensor_msgs/msg/Imu",
    TWIST: "geometry_msgs/msg/Twist",
}
FRAME_S = 1 / 30
DISCOVERY_S = 15.0
_DOMAINS = range(100, 200)
"""Nobody else's, and not the same for two of these at a time."""


@lru_cache
def wire_type(kind: str) -> Any:
    """Return a message type as cyclonedds describes it; its samples hold bare CDR bytes."""
    package, _, name = kind.split("/")
    fields = {field: _field(node) for field, node in STORE.fielddefs[kind][1]}
    options = {"typename": f"{package}.msg.dds_.{name}_"}
    made = new_class(f"{name}_", (IdlStruct,), options, lambda body: body.update(__annotations__=fields))
    made = final(dataclass(made))

    class Raw(made):
        """Generic encoding makes a list of every pixel: 18 ms. The bytes are made by rosbags."""

        def __init__(self, data: bytes) -> None:
            self.data = data

        def serialize(self, *_: Any, **__: Any) -> bytes:
            return self.data

        @classmethod
        def deserialize(cls, data: bytes, *_: Any, **__: Any) -> Any:
            return cls(data)

    Raw.__idl__ = made.__idl__
    return Raw


def _field(node: Any) -> Any:
    what, detail = node
    if what == Nodetype.BASE:
        base = detail[0]
        return {"string": str, "bool": bool}.get(base) or getattr(idl, base)
    if what == Nodetype.NAME:
        return wire_type(detail).__mro__[1]
    inner = _field(detail[0])
    return idl.array[inner, detail[1]] if what == Nodetype.ARRAY else idl.sequence[inner]


def quality(*, reliable: bool, depth: int) -> Qos:
    """Return a quality of service as ROS 2 writes it on the wire."""
    reliability = Policy.Reliability.Reliable(duration(milliseconds=100)) if reliable else Policy.Reliability.BestEffort
    return Qos(
        reliability,
        Policy.Durability.Volatile,
        Policy.History.KeepLast(depth),
        Policy.DataRepresentation(use_cdrv0_representation=True),
    )


SENSOR, COMMAND = quality(reliable=False, depth=5), quality(reliable=True, depth=1)


def topic_of(participant: DomainParticipant, name: str) -> Topic:
    """Return a ROS topic as DDS names it."""
    return Topic(participant, "rt" + name, wire_type(KINDS[name]))


def header(stamp_ns: int, frame: str) -> Any:
    """Return a header."""
    return T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9)), frame)


def vector(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Any:
    """Return a vector."""
    return T["geometry_msgs/msg/Vector3"](x, y, z)


class Camera:
    """Makes the messages of a rover that stands in a room."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._rgb = rng.integers(0, 255, (8, 240 * 424 * 3), np.uint8)
        self._depth = rng.integers(3000, 3100, (8, 240 * 424)).astype("<u2").view(np.uint8)
        turn, zeros = T["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0), np.zeros(36)
        self._turn, self._nine = turn, np.zeros(9)
        point = T["geometry_msgs/msg/Point"](0.0, 0.0, 0.0)
        self._pose = T["geometry_msgs/msg/PoseWithCovariance"](T["geometry_msgs/msg/Pose"](point, turn), zeros)
        twist = T["geometry_msgs/msg/Twist"](vector(0.1), vector())
        self._twist = T["geometry_msgs/msg/TwistWithCovariance"](twist, zeros)

    def messages(self, n: int, stamp_ns: int) -> dict[str, bytes]:
        """Return the CDR bytes of the n-th frame."""
        image, optical = T["sensor_msgs/msg/Image"], header(stamp_ns, "camera_color_optical_frame")
        body = header(stamp_ns, "imu_link")
        imu = T["sensor_msgs/msg/Imu"](body, self._turn, self._nine, vector(), self._nine, vector(z=9.81), self._nine)
        made = {
            ODOM: T["nav_msgs/msg/Odometry"](header(stamp_ns, "odom"), "base_link", self._pose, self._twist),
            IMU: imu,
            RGB: image(optical, 240, 424, "rgb8", 0, 424 * 3, self._rgb[n % 8]),
            DEPTH: image(optical, 240, 424, "16UC1", 0, 424 * 2, self._depth[n % 8]),
        }
        return {topic: bytes(STORE.serialize_cdr(message, KINDS[topic])) for topic, message in made.items()}


def publish(seconds: float, domain: int) -> None:
    """Be the robot's sensors and its base, and report what arrived there."""
    participant = DomainParticipant(domain)
    writers = {name: DataWriter(participant, topic_of(participant, name), SENSOR) for name in (ODOM, IMU, RGB, DEPTH)}
    twists = DataReader(participant, topic_of(participant, TWIST), COMMAND)
    camera = Camera()
    until_s = time.monotonic() + DISCOVERY_S
    while any(not writer.get_matched_subscriptions() for writer in writers.values()) and time.monotonic() < until_s:
        time.sleep(0.05)
    moves = received = 0
    begun_s = time.monotonic()
    for n in range(round(seconds / FRAME_S)):
        time.sleep(max(0.0, begun_s + n * FRAME_S - time.monotonic()))
        for name, data in camera.messages(n, time.time_ns()).items():
            writers[name].write(wire_type(KINDS[name])(data))
        for raw in twists.take(16):
            if isinstance(raw, wire_type(KINDS[TWIST])):
                received += 1
                moves += STORE.deserialize_cdr(raw.data, KINDS[TWIST]).linear.x != 0
    time.sleep(0.5)
    print(json.dumps({"frames": round(seconds / FRAME_S), "twists": received, "moving": moves}), flush=True)


class Straight:
    """Drives straight on."""

    def propose(self, observation: Observation) -> Action:
        """See `Driver`."""
        return Action((0.1, 0.0), "scripted")

    def executed(self, command: Command) -> None:
        """See `Driver`."""

    def reset(self) -> None:
        """See `Driver`."""


class Ear:
    """Feeds what arrives to a TopicSource and notes when pairs are complete."""

    def __init__(self, participant: DomainParticipant, source: TopicSource) -> None:
        self._source = source
        self._readers = {
            name: DataReader(participant, topic_of(participant, name), SENSOR) for name in (ODOM, IMU, RGB, DEPTH)
        }
        self._waitset = WaitSet(participant)
        for reader in self._readers.values():
            mask = SampleState.Any | ViewState.Any | InstanceState.Any
            self._waitset.attach(ReadCondition(reader, mask))
        self.late_ms: list[float] = []
        self.work_ms: list[float] = []
        self._stamps: dict[str, set[int]] = {RGB: set(), DEPTH: set()}

    def listen(self, seconds: float) -> None:
        """Take in what comes within so long."""
        self._waitset.wait(duration(seconds=seconds))
        for name, reader in self._readers.items():
            for raw in reader.take(16):
                if isinstance(raw, wire_type(KINDS[name])):
                    self._put(name, raw.data)

    def _put(self, name: str, data: bytes) -> None:
        started_s = time.perf_counter()
        message = STORE.deserialize_cdr(data, KINDS[name])
        self._source.put(name, message, time.monotonic_ns())
        self.work_ms.append(1e3 * (time.perf_counter() - started_s))
        if name in self._stamps:
            stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            self._stamps[name].add(stamp_ns)
            if all(stamp_ns in stamps for stamps in self._stamps.values()):
                self.late_ms.append((time.time_ns() - stamp_ns) / 1e6)


def measure(seconds: float) -> dict[str, Any]:
    """Run both sides; returns what arrived."""
    os.environ.setdefault("CYCLONEDDS_URI", LOOPBACK)
    profile, clock = load_profile("rover"), MonotonicClock()
    settings = TopicSettings(rgb=RGB, depth=DEPTH, odom=ODOM, imu=IMU)
    source = TopicSource(profile, settings, clock, time.time_ns)
    domain = _DOMAINS[0] + os.getpid() % len(_DOMAINS)
    participant = DomainParticipant(domain)
    twists, kind = DataWriter(participant, topic_of(participant, TWIST), COMMAND), wire_type(KINDS[TWIST])

    def drive(linear: float, angular: float) -> None:
        message = T[KINDS[TWIST]](vector(linear), vector(z=angular))
        twists.write(kind(bytes(STORE.serialize_cdr(message, KINDS[TWIST]))))

    recorder, stop = Recorder(profile, "rover", "boot"), threading.Event()
    sink = TwistSink(profile, drive)
    actor = Actor(profile, source, sink, Straight(), SafetyGate(profile), recorder, clock)
    ear = Ear(participant, source)
    command = [sys.executable, __file__, "--publish", str(domain), "--seconds", str(seconds)]
    loop = threading.Thread(target=actor.run, args=(stop,))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
        loop.start()
        until_s = time.monotonic() + seconds + DISCOVERY_S + 10.0
        try:
            while peer.poll() is None and time.monotonic() < until_s:
                ear.listen(0.1)
        finally:
            stop.set()
            loop.join()
            peer.kill()
        said = json.loads(peer.stdout.read() or "{}")
    pairs = next(found for found in source.diagnoses() if found.name == "pairs")
    late_ms = np.array(ear.late_ms or [np.nan])
    return {
        **said,
        "pairs": len(ear.late_ms),
        "pairs_share": len(ear.late_ms) / said.get("frames", 1),
        "unmatched": int(pairs.values["unmatched"]),
        "late_p50_ms": round(float(np.percentile(late_ms, 50)), 2),
        "late_p95_ms": round(float(np.percentile(late_ms, 95)), 2),
        "late_max_ms": round(float(late_ms.max()), 2),
        "decode_p50_ms": round(float(np.percentile(ear.work_ms or [np.nan], 50)), 3),
        "decode_p95_ms": round(float(np.percentile(ear.work_ms or [np.nan], 95)), 3),
        "tick_p99_ms": round(actor.report().work_p99_ms, 2),
        "refused": sum(int(found.values.get("refused", 0)) for found in source.diagnoses()),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--publish", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish is not None:
        publish(arguments.seconds, arguments.publish)
    else:
        print(json.dumps(measure(arguments.seconds), indent=2))
