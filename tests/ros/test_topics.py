"""Topics become observations; what is missing, old, backwards or senseless becomes a complaint by name."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.spec import Quantity
from policyloop.core.step import Observation
from policyloop.errors import ConfigError, ConnectionFailed
from policyloop.robot.ros.topics import TopicSettings, TopicSource

MS = 1_000_000
EPOCH_NS = 1_750_000_000 * 10**9
RGB, DEPTH, ODOM, IMU, AHEAD = "/rgb", "/depth", "/odom", "/imu", "/ahead"
M = Any


class Rover:
    """Publishes to a TopicSource on virtual time; stamps are of a wall clock that runs along."""

    def __init__(self, profile: RobotProfile, messages: M, *, distance: str = "", ros: bool = True) -> None:
        self.clock = VirtualClock(5_000 * MS)
        self.messages = messages
        self.skew_ns = EPOCH_NS
        settings = TopicSettings(rgb=RGB, depth=DEPTH, odom=ODOM, imu=IMU, distance=distance)
        self.source = TopicSource(profile, settings, self.clock, (lambda: self.ros_ns) if ros else None)

    @property
    def ros_ns(self) -> int:
        return self.clock.now_ns() + EPOCH_NS

    def put(self, topic: str, message: M) -> None:
        self.source.put(topic, message, self.clock.now_ns())

    def make(self, topic: str, age_ms: float = 0.0, mm: int = 2000) -> M:
        stamp_ns = self.clock.now_ns() + self.skew_ns - round(age_ms * MS)
        return {
            RGB: lambda: self.messages.image(np.full((36, 64, 3), 90, np.uint8), "rgb8", stamp_ns),
            DEPTH: lambda: self.messages.image(np.full((36, 64), mm, np.uint16), "16UC1", stamp_ns),
            ODOM: lambda: self.messages.odometry(0.3, -0.2, stamp_ns),
            IMU: lambda: self.messages.imu(0.05, (3.0, 0.0, 4.0), stamp_ns),
            AHEAD: lambda: self.messages.range(0.5, stamp_ns=stamp_ns),
        }[topic]()

    def say(self, *topics: str, age_ms: float = 0.0) -> None:
        for topic in topics or (ODOM, IMU, RGB, DEPTH):
            self.put(topic, self.make(topic, age_ms))

    def wait(self, ms: float) -> None:
        self.clock.advance_ns(round(ms * MS))

    @property
    def complaint(self) -> str:
        with pytest.raises(ConnectionFailed) as caught:
            self.source.read()
        return caught.value.message

    def age_ms(self) -> float:
        return (self.clock.now_ns() - self.source.read().captured_ns) / MS

    def diagnosis(self, topic: str) -> M:
        return {found.name: found for found in self.source.diagnoses()}[topic]


@pytest.fixture
def rover(mini: RobotProfile, jazzy: M) -> Rover:
    return Rover(mini, jazzy)


def test_everything_that_was_said_is_in_the_observation(rover: Rover, mini: RobotProfile) -> None:
    rover.say()
    seen = rover.source.read()
    for name, spec in mini.observation_specs.items():
        spec.validate(seen.arrays[name])
    expected = {"linear_vel": 0.3, "angular_vel": -0.2, "roll": 0.05, "pitch": 0, "accel_mag": 5, "min_forward_dist": 2}
    for name, value in expected.items():
        assert seen.arrays["proprio"][mini.proprio_index(name)] == pytest.approx(value, abs=1e-6), name
    assert (seen.arrays["depth"] == 2000).all()
    assert seen.captured_ns == rover.clock.now_ns()
    assert not rover.source.begin_episode()
    assert {found.level for found in rover.source.diagnoses()} == {"ok"}


@pytest.mark.parametrize("silent", [RGB, DEPTH, ODOM, IMU])
def test_a_topic_that_says_nothing_is_missing_and_never_zeros(rover: Rover, silent: str) -> None:
    rover.say(*{RGB, DEPTH, ODOM, IMU} - {silent})
    assert f"nothing on {silent} yet" in rover.complaint
    assert rover.diagnosis(silent).level == "error"


@pytest.mark.parametrize("silent", [RGB, DEPTH, ODOM, IMU])
def test_a_topic_that_falls_silent_is_noticed(rover: Rover, silent: str) -> None:
    rover.say()
    for _ in range(3):
        rover.wait(70)
        rover.say(*{RGB, DEPTH, ODOM, IMU} - {silent})
    assert f"nothing on {silent} within 0.2 s" in rover.complaint


def test_what_the_program_tells_the_policy_needs_no_topic(mini: RobotProfile, jazzy: M) -> None:
    told = Quantity(name="last_action", unit="1", size=2), Quantity(name="delay", unit="s")
    rover = Rover(msgspec.structs.replace(mini, proprio=(told[0], *mini.proprio, told[1])), jazzy)
    rover.say()
    proprio = rover.source.read().arrays["proprio"]
    assert len(proprio) == 9
    np.testing.assert_array_equal(proprio[[0, 1, 8]], 0)
    assert proprio[2] == np.float32(0.3)


def test_an_observation_is_as_old_as_the_oldest_of_it(rover: Rover) -> None:
    rover.say()
    rover.wait(60)
    rover.say(RGB, DEPTH, IMU)
    assert rover.age_ms() == 60


def test_a_late_message_is_as_old_as_its_stamp_says(rover: Rover) -> None:
    rover.say(age_ms=80)
    assert rover.age_ms() == pytest.approx(80)


def test_a_message_that_was_held_up_is_old_whatever_clock_stamped_it(mini: RobotProfile, jazzy: M) -> None:
    rover = Rover(mini, jazzy, ros=False)
    rover.skew_ns = 77 * 10**9
    for _ in range(30):
        rover.wait(33)
        rover.say(age_ms=20)
    assert rover.age_ms() == pytest.approx(0, abs=0.1)  # what all have in common cannot be known
    rover.wait(33)
    rover.say(age_ms=50)
    assert rover.age_ms() == pytest.approx(30, abs=0.1)


def test_clocks_that_drift_apart_are_not_taken_for_a_delay(mini: RobotProfile, jazzy: M) -> None:
    rover = Rover(mini, jazzy, ros=False)
    rover.say()
    for _ in range(2000):
        rover.wait(100)
        rover.skew_ns -= 50_000  # 500 ppm
        rover.say()
    assert rover.age_ms() < 15


@pytest.mark.parametrize("skew_s", [-40, 40])
def test_stamps_of_another_clock_count_from_arrival(rover: Rover, skew_s: int) -> None:
    rover.skew_ns += skew_s * 10**9
    rover.say()
    assert rover.age_ms() == 0


def test_stamps_that_go_back_are_refused_counted_and_named(rover: Rover, caplog: pytest.LogCaptureFixture) -> None:
    rover.say()
    rover.wait(250)
    rover.skew_ns -= 3 * 10**9
    with caplog.at_level(logging.ERROR):
        rover.say()
    assert "bad-time: stamps go back by 2.750 s" in rover.complaint
    assert "/odom: bad-time" in caplog.text
    found = rover.diagnosis(ODOM)
    assert (found.level, found.values["bad-time"]) == ("error", "1")


def test_a_publisher_that_was_started_anew_is_believed_after_a_while(rover: Rover) -> None:
    rover.say()
    rover.skew_ns -= 3600 * 10**9
    rover.wait(150)
    for _ in range(9):
        rover.wait(100)
        rover.say()
        assert "bad-time" in rover.complaint
    for _ in range(2):
        rover.wait(100)
        rover.say()
    assert rover.age_ms() == 0
    assert rover.diagnosis(RGB).level == "warning"
    assert rover.diagnosis(RGB).values["refused"] == "9"


def test_nan_in_odometry_is_refused_and_the_robot_sees_nothing(rover: Rover) -> None:
    rover.say()
    for _ in range(5):
        rover.wait(50)
        rover.say(RGB, DEPTH, IMU)
        rover.put(ODOM, rover.messages.odometry(math.nan, 0.0, rover.clock.now_ns() + EPOCH_NS))
    assert "the last was refused: bad-odometry: linear_vel is nan" in rover.complaint
    assert rover.diagnosis(ODOM).values["bad-odometry"] == "5"


def test_depth_of_another_size_than_colour_is_named(rover: Rover) -> None:
    rover.say(ODOM, IMU, RGB)
    rover.put(DEPTH, rover.messages.image(np.zeros((48, 64), np.uint16), "16UC1", rover.ros_ns))
    assert "nothing on /depth yet, the last was refused: bad-depth: picture of 64x48, expected 64x36" in rover.complaint


def test_a_message_of_another_type_is_refused(rover: Rover) -> None:
    rover.put(ODOM, rover.messages.twist(0.1, 0.1))
    rover.put(RGB, dataclasses.replace(rover.make(RGB), data=[1, 2, 3]))
    assert "bad-message" in rover.diagnosis(ODOM).message
    assert "bad-message" in rover.diagnosis(RGB).message


def test_pictures_that_find_no_partner_are_named(rover: Rover) -> None:
    for _ in range(8):
        rover.wait(50)
        rover.say(ODOM, IMU, RGB)
        rover.put(DEPTH, rover.make(DEPTH, age_ms=25))
    assert "no pair of /rgb and /depth: their stamps differ by more than 0.02 s" in rover.complaint
    assert rover.diagnosis("pairs").level == "error"


def test_a_picture_without_a_stamp_is_refused(rover: Rover) -> None:
    rover.put(RGB, rover.messages.image(np.zeros((36, 64, 3), np.uint8), "rgb8", 0))
    assert "without a stamp" in rover.diagnosis(RGB).message


def test_a_sensor_ahead_may_only_shorten_the_free_distance(mini: RobotProfile, jazzy: M) -> None:
    rover = Rover(mini, jazzy, distance=AHEAD)
    rover.say()
    assert "nothing on /ahead yet" in rover.complaint
    rover.say(AHEAD)
    at = mini.proprio_index("min_forward_dist")
    assert rover.source.read().arrays["proprio"][at] == 0.5
    rover.put(AHEAD, jazzy.float32(9.0))
    assert rover.source.read().arrays["proprio"][at] == 2.0


def test_a_profile_that_senses_what_no_topic_says_is_refused(mini: RobotProfile) -> None:
    settings = TopicSettings(rgb=RGB, depth=DEPTH, odom=ODOM, imu=IMU)
    odd = msgspec.structs.replace(mini, proprio=(*mini.proprio, Quantity(name="battery", unit="1")))
    with pytest.raises(ConfigError, match="senses battery, which no topic says"):
        TopicSource(odd, settings, VirtualClock())
    with pytest.raises(ConfigError, match="has no camera"):
        TopicSource(load_profile("lite3"), settings, VirtualClock())
    with pytest.raises(ConfigError, match="a topic of its own"):
        TopicSource(mini, msgspec.structs.replace(settings, imu=ODOM), VirtualClock())


def test_only_what_the_profile_senses_is_subscribed_to(mini: RobotProfile) -> None:
    settings = TopicSettings(rgb=RGB, depth=DEPTH, odom=ODOM, imu="")
    blind = msgspec.structs.replace(mini, proprio=mini.proprio[:2])
    source = TopicSource(blind, settings, VirtualClock())
    assert source.topics == {RGB: "rgb", DEPTH: "depth", ODOM: "odom"}
    with pytest.raises(ConfigError):
        TopicSource(mini, settings, VirtualClock())


def test_the_same_pair_is_read_until_a_newer_one_comes(rover: Rover) -> None:
    rover.say()
    first: Observation = rover.source.read()
    assert rover.source.read().arrays["depth"] is first.arrays["depth"]
    rover.wait(33)
    rover.say()
    assert rover.source.read().arrays["depth"] is not first.arrays["depth"]
