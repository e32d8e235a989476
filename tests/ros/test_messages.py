"""What messages say, read from bytes as they are on the wire of Humble and of Jazzy; and what makes no sense."""

from __future__ import annotations

import array
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.errors import WireError
from policyloop.robot.ros.messages import color, commanded, depth_mm, distance_m, motion, posture, stamp_ns

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
STAMP_NS = 1_750_000_000_123_456_789
M = Any


@pytest.fixture(params=["humble", "jazzy"])
def golden(request: pytest.FixtureRequest, release: Any) -> Any:
    """Return `golden(name)`: the message in the bytes of that name, and its bytes are checked."""
    messages = release(request.param)

    def decode(name: str) -> Any:
        data = bytes.fromhex(GOLDEN[name][request.param])
        message = messages.read(GOLDEN[name]["kind"], data)
        assert messages.cdr(GOLDEN[name]["kind"], message) == data
        return message

    return decode


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_golden_colour(golden: M, encoding: str) -> None:
    message = golden(encoding)
    expected = RGB if encoding == "rgb8" else RGB[..., ::-1]
    np.testing.assert_array_equal(color(message, (2, 3, 3)), expected)
    assert stamp_ns(message) == STAMP_NS


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("16UC1", [[0, 500, 1000], [2000, 4000, 6000]]), ("32FC1", [[0, 500, 1000], [0, 0, 6000]])],
)
def test_golden_depth(golden: M, encoding: str, expected: list[list[int]]) -> None:
    depth = depth_mm(golden(encoding), (2, 3), clip_m=6.0)
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth, expected)


def test_golden_motion_posture_command_and_distance(golden: M, mini: RobotProfile) -> None:
    assert motion(golden("odometry")) == {"linear_vel": 0.25, "angular_vel": -0.5}
    assert posture(golden("imu")) == pytest.approx({"roll": 0.1, "pitch": 0.0, "accel_mag": 5.0})
    assert commanded(golden("twist"), mini) == commanded(golden("stamped"), mini) == (0.1, -0.2)
    assert (distance_m(golden("range")), distance_m(golden("float32"))) == (0.75, 1.5)
    assert stamp_ns(golden("float32")) is None


def test_pictures_in_an_array_as_rclpy_gives_them_are_looked_at_where_they_lie(jazzy: M) -> None:
    message = jazzy.image(RGB, "rgb8")
    data = array.array("B", message.data.tobytes())
    picture = color(dataclasses.replace(message, data=data), (2, 3, 3))
    np.testing.assert_array_equal(picture, RGB)
    data[0] = 99
    assert picture[0, 0, 0] == 99


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pad", [0, 2, 5])
def test_step_and_byte_order_are_honoured(jazzy: M, encoding: str, big: bool, pad: int) -> None:
    mm = np.random.default_rng(0).integers(0, 9000, (36, 64)).astype(np.uint16)
    pixels = mm if encoding == "16UC1" else mm.astype(np.float32) / 1000
    depth = depth_mm(jazzy.image(pixels, encoding, pad=pad, big=big), (36, 64))
    np.testing.assert_array_equal(depth, mm)


def test_the_unit_of_depth_is_a_parameter(jazzy: M) -> None:
    message = jazzy.image(np.full((2, 3), 250, np.uint16), "16UC1")
    assert (depth_mm(message, (2, 3), unit_m=0.0001) == 25).all()
    assert (depth_mm(message, (2, 3), unit_m=0.01, clip_m=2.0) == 2000).all()


def test_a_jpeg_is_a_picture(jazzy: M) -> None:
    flat = np.full((36, 64, 3), (200, 100, 50), np.uint8)
    picture = color(jazzy.jpeg(flat), (36, 64, 3))
    assert np.abs(picture.astype(int) - flat).max() < 6


def test_what_is_no_picture_is_refused_by_name(jazzy: M) -> None:
    good = jazzy.image(RGB, "rgb8")
    cases = [
        (jazzy.image(RGB[..., 0], "mono8"), "encoding 'mono8', expected rgb8 or bgr8"),
        (jazzy.image(RGB, "yuv422"), "encoding 'yuv422'"),
        (dataclasses.replace(good, width=4), "picture of 4x2, expected 3x2"),
        (dataclasses.replace(good, step=8), "no 2 rows of 9"),
        (dataclasses.replace(good, data=good.data[:-1]), "17 bytes in steps of 9"),
        (jazzy.jpeg(np.zeros((36, 64, 3), np.uint8)), "JPEG of 64x36, expected 3x2"),
    ]
    for message, text in cases:
        with pytest.raises(WireError, match=text) as caught:
            color(message, (2, 3, 3))
        assert caught.value.reason == "bad-rgb"


def test_what_is_no_depth_is_refused_by_name(jazzy: M) -> None:
    for message, text in [
        (jazzy.image(RGB, "rgb8"), "encoding 'rgb8', expected 16UC1"),
        (jazzy.image(np.zeros((4, 3), np.uint16), "16UC1"), "picture of 3x4, expected 3x2"),
        (jazzy.jpeg(RGB), "CompressedImage is no depth"),
    ]:
        with pytest.raises(WireError, match=text) as caught:
            depth_mm(message, (2, 3))
        assert caught.value.reason == "bad-depth"


def test_a_list_is_never_taken_for_pixels(jazzy: M) -> None:
    with pytest.raises(TypeError):
        color(dataclasses.replace(jazzy.image(RGB, "rgb8"), data=RGB.reshape(-1).tolist()), (2, 3, 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(jazzy: M, mini: RobotProfile, bad: float) -> None:
    for read, message, reason in [
        (motion, jazzy.odometry(bad, 0.0), "bad-odometry"),
        (motion, jazzy.odometry(0.0, bad), "bad-odometry"),
        (lambda m: commanded(m, mini), jazzy.twist(bad, 0.0), "bad-twist"),
        (posture, jazzy.imu(0.0, (bad, 0.0, 0.0)), "bad-imu"),
        (distance_m, jazzy.float32(bad), "bad-distance"),
    ]:
        with pytest.raises(WireError) as caught:
            read(message)
        assert caught.value.reason == reason


def test_commands_are_kept_within_the_actions_range(jazzy: M, mini: RobotProfile) -> None:
    assert commanded(jazzy.twist(9.0, -9.0), mini) == (mini.action[0].high, mini.action[1].low)


@pytest.mark.parametrize(
    ("measured", "free"),
    [(0.5, 0.5), (math.inf, 4.0), (9.0, 4.0), (0.01, 0.0), (-math.inf, 0.0)],
)
def test_a_range_beyond_what_it_measures(jazzy: M, measured: float, free: float) -> None:
    assert distance_m(jazzy.range(measured)) == free


def test_a_range_without_a_number_or_a_negative_distance_is_refused(jazzy: M) -> None:
    for message in (jazzy.range(math.nan), jazzy.range(1.0, high=math.nan), jazzy.float32(-0.1)):
        with pytest.raises(WireError):
            distance_m(message)


def test_an_imu_without_orientation_leans_as_gravity_says(jazzy: M) -> None:
    roll, g = 0.2, 9.81
    body = (0.0, g * math.sin(roll), g * math.cos(roll))
    felt = posture(jazzy.imu(acceleration=body, oriented=False))
    assert felt == pytest.approx({"roll": roll, "pitch": 0.0, "accel_mag": g})
    pitched = posture(jazzy.imu(acceleration=(-g * math.sin(0.1), 0.0, g * math.cos(0.1)), oriented=False))
    assert pitched["pitch"] == pytest.approx(0.1)


def test_a_realsense_lies_on_its_side_and_leans_all_the_same(jazzy: M) -> None:
    x, y, z = 0.0, 9.81 * math.sin(0.2), 9.81 * math.cos(0.2)  # of the body: forward, left, up
    optical = (-y, -z, x)
    felt = posture(jazzy.imu(acceleration=optical, frame="camera_imu_optical_frame", oriented=False))
    assert felt == pytest.approx({"roll": 0.2, "pitch": 0.0, "accel_mag": 9.81}, abs=1e-6)


def test_an_imu_that_does_not_know_is_refused(jazzy: M) -> None:
    nothing = jazzy.imu()
    nothing.linear_acceleration_covariance[0] = -1
    zero = jazzy.imu()
    zero.orientation.w = 0.0
    falling = jazzy.imu(acceleration=(0.0, 0.0, 1.0), oriented=False)
    for message, text in [(nothing, "no acceleration"), (zero, "no rotation"), (falling, "no gravity")]:
        with pytest.raises(WireError, match=text):
            posture(message)
