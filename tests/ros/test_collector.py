"""The node that records: a person's driving arrives at the trainer; silence and standing about do not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyloop.core.calibration import sample_paths
from policyloop.core.clock import MonotonicClock, VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.robot.ros.collector import Collector

M = Any
VALUES: dict[str, Any] = {
    "profile": "rover-mini",
    "robot_name": "rover-7",
    "rgb_topic": "/rgb",
    "depth_topic": "/depth",
    "imu_topic": "/imu",
    "odom_topic": "/odom",
    "min_distance_topic": "",
    "depth_scale": 0.001,
    "depth_clip_m": 6.0,
    "sync_tolerance_s": 0.02,
    "cmd_vel_topic": "/cmd_vel_teleop",
    "collection_rate_hz": 10.0,
    "jpeg_quality": 85,
    "save_calibration_samples": False,
    "calibration_sample_interval": 0.1,
    "calibration_sample_count": 3,
    "calibration_data_dir": "calibration",
    "server_address": "tcp://127.0.0.1:9",
    "keys_dir": "",
    "gateway_key": "",
    "spool_dir": "",
}


def publish(collector: Collector, m: M, now_ns: int, linear: float | None = 0.1) -> None:
    for topic, message in {
        "/odom": m.odometry(0.1, 0.0, now_ns),
        "/imu": m.imu(stamp_ns=now_ns),
        "/rgb": m.image(np.full((36, 64, 3), 90, np.uint8), "rgb8", now_ns),
        "/depth": m.image(np.full((36, 64), 3000, np.uint16), "16UC1", now_ns),
    }.items():
        collector.source.put(topic, message, now_ns)
    if linear is not None:
        collector.teleop.put(m.twist(linear, 0.2), now_ns)


def test_a_persons_driving_arrives_at_the_trainer(
    mini: RobotProfile, jazzy: M, tmp_path: Path, until: Callable[..., None]
) -> None:
    journal = Journal(tmp_path / "journal", mini, writable=True)
    gateway = Gateway(journal, mini, "tcp://127.0.0.1:*")
    gateway.start()
    samples = {"save_calibration_samples": True, "calibration_data_dir": str(tmp_path / "samples")}
    collector = Collector({**VALUES, **samples, "server_address": gateway.address}, MonotonicClock())
    collector.start()

    def driven() -> bool:
        publish(collector, jazzy, time.monotonic_ns())
        time.sleep(0.03)
        return journal.next >= 5

    try:
        until(driven, 20)
        step = journal.read(0)
        assert (step.record.robot, step.record.action.source, step.record.action.behaviour) == (
            "rover-7",
            "human",
            None,
        )
        assert step.record.action.values == pytest.approx((0.1, 0.2))
        assert (step.observation["depth"] == 3000).all()
        assert journal.header(0).gap and not journal.header(2).gap
        assert collector.diagnoses()[0].level == "ok"
    finally:
        collector.close()
        gateway.close()
        journal.close()
    assert len(sample_paths(tmp_path / "samples")) == 3


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(10**9)


@pytest.fixture
def collector(clock: VirtualClock) -> Any:
    made = Collector(VALUES, clock)
    yield made
    made.close()


def tick(collector: Collector, clock: VirtualClock, m: M, linear: float | None = 0.1) -> None:
    clock.advance_ns(100_000_000)
    publish(collector, m, clock.now_ns(), linear)
    collector.tick()


def numbers(collector: Collector) -> tuple[int, int]:
    values = collector.diagnoses()[0].values
    return int(values["steps"]), int(values["idle_ticks"])


def test_nobody_at_the_controls_is_no_demonstration(collector: Collector, clock: VirtualClock, jazzy: M) -> None:
    for _ in range(5):
        tick(collector, clock, jazzy, None)
    assert numbers(collector) == (0, 5)
    for _ in range(4):
        tick(collector, clock, jazzy)
    assert numbers(collector) == (3, 5)  # the fourth has no outcome yet


def test_a_sensor_that_is_missing_records_nothing_and_is_named(
    collector: Collector, clock: VirtualClock, jazzy: M
) -> None:
    collector.teleop.put(jazzy.twist(0.1, 0.0), clock.now_ns())
    collector.tick()
    found = collector.diagnoses()[0]
    assert found.level == "error"
    assert "nothing on /depth yet" in found.message
    assert numbers(collector) == (0, 0)


def test_a_collector_without_a_trainer_is_refused() -> None:
    with pytest.raises(ConfigError, match="server_address is empty"):
        Collector({**VALUES, "server_address": ""}, MonotonicClock())
