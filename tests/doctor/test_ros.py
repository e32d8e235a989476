"""What our nodes say of topics becomes lines of the table; under a real rclpy, a real node is listened to."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from policyloop.doctor import ros
from policyloop.doctor.finding import Finding
from policyloop.doctor.scope import Scope
from policyloop.robot.ros.diagnosis import Diagnosis

RCLPY = importlib.util.find_spec("rclpy") is not None


def test_ros_is_not_asked_for_by_itself() -> None:
    assert ros.checks(Scope()) == []
    assert len(ros.checks(Scope(ros=True))) == 2


@pytest.mark.parametrize(("domain", "state"), [("0", "fine"), ("42", "fine"), ("102", "wrong"), ("rover", "wrong")])
def test_a_domain_that_no_middleware_can_use_is_wrong(domain: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    found = ros.surroundings()
    assert found.state == state
    assert f"domain {domain}" in found.found


@pytest.mark.skipif(RCLPY, reason="rclpy is here: the test below is the one")
def test_without_rclpy_the_topics_are_absent() -> None:
    found = ros.topics("rover")
    assert isinstance(found, Finding)
    assert (found.state, "rclpy" in found.found) == ("absent", True)


@pytest.mark.parametrize(
    ("level", "state", "code"), [("ok", "fine", 0), ("warning", "doubtful", 0), ("error", "wrong", 4)]
)
def test_a_diagnosis_becomes_a_finding(level: str, state: str, code: int) -> None:
    diagnosis = msgspec.convert({"level": level, "name": "/odom", "message": "m", "values": {"hz": "49.8"}}, Diagnosis)
    found = ros.finding_of(diagnosis, 10.0)
    assert (found.state, found.exit_code, found.found) == (state, code, "m, 49.8 Hz")


def test_a_sensor_that_is_slower_than_the_control_loop_is_doubtful() -> None:
    camera = Diagnosis("ok", "/camera", "fresh", {"hz": "15.0"})
    assert ros.finding_of(camera, 15.0).state == "fine"
    slow = ros.finding_of(camera, 30.0)
    assert (slow.state, slow.found) == ("doubtful", "fresh, 15.0 Hz, for a control loop of 30 Hz")


_TALKER = """
import time, rclpy
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
rclpy.init()
node = rclpy.create_node("talker")
twist = node.create_publisher(Twist, "/imu/data", 1)
odometry = node.create_publisher(Odometry, "/odom", 10)
print("talking", flush=True)
while True:
    message = Odometry()
    message.header.stamp = node.get_clock().now().to_msg()
    odometry.publish(message)
    twist.publish(Twist())
    time.sleep(0.02)
"""


@pytest.mark.ros
@pytest.mark.skipif(not RCLPY, reason="NOT TESTED, rclpy does not import here: see docs/ros.md")
def test_topics_without_publishers_or_of_another_type_are_wrong() -> None:
    package = Path(__file__).parents[2] / "ros" / "policyloop_ros"
    environment = {**os.environ, "PYTHONPATH": f"{package}:{os.environ.get('PYTHONPATH', '')}", "ROS_DOMAIN_ID": "43"}
    code = (
        "import msgspec; from policyloop.doctor.ros import topics; print(msgspec.json.encode(topics('rover')).decode())"
    )
    talker = subprocess.Popen([sys.executable, "-c", _TALKER], env=environment, stdout=subprocess.PIPE)
    try:
        assert talker.stdout is not None
        assert talker.stdout.readline() == b"talking\n"
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
    finally:
        talker.kill()
        talker.communicate()
    found = {one.what: one for one in msgspec.json.decode(result.stdout, type=list[Finding])}
    camera, imu = (found[f"publishers of {topic}"] for topic in ("/camera/camera/color/image_raw", "/imu/data"))
    assert (camera.state, camera.exit_code) == ("wrong", 4)
    assert "nobody publishes" in camera.found
    assert (imu.state, "geometry_msgs/msg/Twist" in imu.found) == ("wrong", True)
    assert found["/odom"].state == "fine"
