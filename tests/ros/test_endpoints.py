"""What can never come is said at the start, not discovered by silence; and what ceases to come stops the motors."""

from __future__ import annotations

import math

import pytest

from policyloop.robot.ros.endpoints import Endpoint, look_at_publishers
from policyloop.robot.ros.time_to_live import TimeToLive

IMAGE, TWIST, STAMPED = "sensor_msgs/msg/Image", "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"
MS = 1_000_000
STILL = (0.0,) * 6


@pytest.mark.parametrize("quality", ["sensor", "command"])
def test_nobody_publishes(quality: str) -> None:
    found = look_at_publishers("/rgb", IMAGE, quality, [])  # type: ignore[arg-type]
    assert (found.level, found.message) == ("error", f"nobody publishes /rgb ({IMAGE})")
    assert look_at_publishers("/joy", TWIST, "command", [], needed=False).level == "ok"


def test_somebody_publishes_another_type() -> None:
    found = look_at_publishers("/cmd_vel", TWIST, "command", [Endpoint("teleop", STAMPED, True)])
    assert found.level == "error"
    assert f"subscribed to as {TWIST}, but comes from teleop ({STAMPED})" in found.message


def test_best_effort_never_reaches_a_reliable_subscription_but_the_other_way_round_is_fine() -> None:
    assert "nothing will come" in look_at_publishers("/c", TWIST, "command", [Endpoint("joy", TWIST, False)]).message
    for reliable in (True, False):
        assert look_at_publishers("/rgb", IMAGE, "sensor", [Endpoint("camera", IMAGE, reliable)]).level == "ok"


def test_commands_pass_as_long_as_they_keep_coming() -> None:
    latch = TimeToLive(0.25)
    assert latch.now(0) == STILL
    driven = (0.1, 0.0, 0.0, 0.0, 0.0, -0.2)
    assert latch.accept(driven, 1000 * MS) == driven
    assert latch.now(1249 * MS) == driven
    assert latch.now(1250 * MS) == STILL
    assert latch.accept(driven, 2000 * MS) == driven
    assert latch.diagnosis().level == "ok"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_command_that_is_no_number_stands_still(bad: float) -> None:
    latch = TimeToLive(0.25)
    latch.accept((0.1, 0.0, 0.0, 0.0, 0.0, 0.0), 0)
    assert latch.accept((0.1, 0.0, 0.0, 0.0, 0.0, bad), 10 * MS) == STILL
    assert latch.now(11 * MS) == STILL
    assert latch.diagnosis().values["refused"] == "1"


def test_nothing_counts_longer_than_half_a_second() -> None:
    latch = TimeToLive(60.0)
    latch.accept((0.1, 0.0, 0.0, 0.0, 0.0, 0.0), 0)
    assert latch.now(501 * MS) == STILL
