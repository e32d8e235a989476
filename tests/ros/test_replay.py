"""A recording is played to the robot: it sees what the same recording teaches, and drives behind the gate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from tests.ros.conftest import KINDS

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import TimedCommand
from policyloop.data.bag import import_bag
from policyloop.link.journal import Journal
from policyloop.robot.actor import Actor
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.recorder import Recorder
from policyloop.robot.ros.topics import TopicSettings, TopicSource
from policyloop.robot.ros.twist_sink import TwistSink
from policyloop.runtime.reload import PolicySlot
from policyloop.safety.gate import SafetyGate

M = Any
MS = 1_000_000
START_NS = 1_750_000_000 * 10**9
RGB, DEPTH, ODOM, IMU, TWIST = "/color/image/compressed", "/depth/image", "/odom", "/imu", "/cmd_vel"
NAMES = {RGB: "jpeg", DEPTH: "image", ODOM: "odometry", IMU: "imu", TWIST: "twist"}
FRAMES = 60


def drive(m: M) -> Iterator[tuple[str, int, M]]:
    """Yield (topic, ms, message) of two seconds at 30 Hz, with a sensor that stops in the middle for half a second."""
    rng = np.random.default_rng(0)
    for i in range(FRAMES):
        ms = i * 1000 // 30
        ns = START_NS + ms * MS
        yield ODOM, ms, m.odometry(0.1 + 0.001 * i, 0.05, ns)
        yield IMU, ms, m.imu(0.02, stamp_ns=ns)
        yield TWIST, ms, m.twist(0.15, 0.0)
        if not 1000 <= ms < 1500:
            yield RGB, ms + 3, m.jpeg(np.full((36, 64, 3), 60 + i, np.uint8), ns)
            yield DEPTH, ms + 5, m.image(rng.integers(3000, 3100, (36, 64)).astype(np.uint16), "16UC1", ns)


@pytest.fixture(params=[StoragePlugin.SQLITE3, StoragePlugin.MCAP], ids=["sqlite", "mcap"])
def bag(request: pytest.FixtureRequest, messages: M, tmp_path: Path) -> Path:
    with Writer(tmp_path / "bag", version=9, storage_plugin=request.param) as writer:
        connections = {
            topic: writer.add_connection(topic, KINDS[name], typestore=messages.store) for topic, name in NAMES.items()
        }
        for topic, ms, message in drive(messages):
            writer.write(connections[topic], START_NS + ms * MS, messages.cdr(NAMES[topic], message))
    return tmp_path / "bag"


def played(bag: Path, messages: M, source: TopicSource, clock: VirtualClock) -> Iterator[int]:
    """Play a bag to a source; yields its time after every message."""
    with Reader(bag) as reader:
        for connection, at_ns, data in reader.messages():
            clock.sleep_until_ns(at_ns - START_NS)
            if connection.topic in source.topics:
                message = messages.store.deserialize_cdr(data, connection.msgtype)
                source.put(connection.topic, message, clock.now_ns())
            yield at_ns


def source_of(profile: RobotProfile, clock: VirtualClock) -> TopicSource:
    settings = TopicSettings(rgb=RGB, depth=DEPTH, odom=ODOM, imu=IMU)
    return TopicSource(profile, settings, clock, lambda: clock.now_ns() + START_NS)


def test_the_robot_sees_what_the_recording_teaches(bag: Path, messages: M, mini: RobotProfile, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", mini, writable=True)
    import_bag(bag, journal, robot="bagged", topics={"rgb": RGB, "depth": DEPTH})
    taught = {journal.read(i).record.stamps.captured_ns: journal.read(i).observation for i in range(journal.next)}
    journal.close()
    assert len(taught) > 10
    clock = VirtualClock()
    source = source_of(mini, clock)
    compared = 0
    for at_ns in played(bag, messages, source, clock):
        # The import knows a picture by its time of arrival: 3 ms after its stamp.
        if at_ns - 2 * MS in taught:
            seen, step = source.read().arrays, taught[at_ns - 2 * MS]
            np.testing.assert_array_equal(seen["depth"], step["depth"])
            np.testing.assert_allclose(seen["rgb"].astype(int), step["rgb"].astype(int), atol=8)
            np.testing.assert_allclose(seen["proprio"], step["proprio"], rtol=1e-6)
            compared += 1
    assert compared >= len(taught)


def test_the_robot_drives_stops_where_the_camera_did_and_drives_on(
    bag: Path, messages: M, mini: RobotProfile, exported: Bundle, tmp_path: Path
) -> None:
    clock = VirtualClock()
    source = source_of(mini, clock)
    sent: list[tuple[float, float, float]] = []
    sink = TwistSink(mini, lambda linear, angular: sent.append((clock.now_ns() / 1e9, linear, angular)))
    slot = PolicySlot(Store(tmp_path / "store").add(exported), mini)
    actor = Actor(mini, source, sink, PolicyDriver(slot, 2), SafetyGate(mini), Recorder(mini, "r", "b"), clock)
    due_ns = 50 * MS
    for at_ns in played(bag, messages, source, clock):
        if at_ns - START_NS >= due_ns:
            actor.tick()
            due_ns += 100 * MS
    sink.write(TimedCommand(mini.stop("shutdown"), 1000, 0))
    slot.close()
    assert len(sent) > 15
    assert all(math.isfinite(linear) and math.isfinite(angular) for _, linear, angular in sent)
    moving = {round(at_s, 1): (linear, angular) != (0.0, 0.0) for at_s, linear, angular in sent[:-1]}
    assert all(moves for at_s, moves in moving.items() if 0.2 < at_s < 1.0 or at_s > 1.7)
    assert not any(moves for at_s, moves in moving.items() if 1.25 < at_s < 1.5)
    assert sent[-1][1:] == (0.0, 0.0)
