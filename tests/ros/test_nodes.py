"""The real nodes under real rclpy: they run wherever it imports; docs/ros.md has the line for docker.

Nothing here imitates rclpy: what can be tested without it is tested without it.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.errors import PolicyloopError
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.robot.control import ask_robot

pytestmark = [
    pytest.mark.ros,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # rclpy's own
    pytest.mark.skipif(
        importlib.util.find_spec("rclpy") is None, reason="NOT TESTED, rclpy does not import here: see docs/ros.md"
    ),
]

ROOT = Path(__file__).parents[2]
NODE = "remote_trained_inference"
DOMAIN = 42
TOPICS = {
    "rgb_topic": "/camera/color",
    "depth_topic": "/camera/depth",
    "odom_topic": "/odom",
    "imu_topic": "/imu/data",
    "min_distance_topic": "",
}
Until = Callable[..., None]


class Peer:
    """A rover's sensors and base as another node."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import Twist
        from nav_msgs.msg import Odometry
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image, Imu

        rclpy.init(domain_id=DOMAIN)
        self.node = rclpy.create_node("rover_under_test")
        self.types = {"image": Image, "imu": Imu, "odometry": Odometry, "twist": Twist}
        kinds = {"rgb_topic": Image, "depth_topic": Image, "odom_topic": Odometry, "imu_topic": Imu}
        self._publishers = {
            name: self.node.create_publisher(kind, TOPICS[name], qos_profile_sensor_data)
            for name, kind in kinds.items()
        }
        self._teleop = self.node.create_publisher(Twist, "cmd_vel_teleop", 1)
        self.twists: list[tuple[float, float, float]] = []
        self.diagnostics: dict[str, Any] = {}
        self.node.create_subscription(Twist, "cmd_vel_ai", self._on_twist, 10)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.talks = True
        self.by_hand: float | None = None
        self._frame = 0
        self.node.create_timer(1 / 30, self._talk)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin)
        self._thread.start()

    def _on_twist(self, message: Any) -> None:
        self.twists.append((time.monotonic(), message.linear.x, message.angular.z))

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            self.diagnostics[status.name.removeprefix(f"{NODE}: ")] = status

    def _talk(self) -> None:
        if self.by_hand is not None:
            message = self.types["twist"]()
            message.angular.z = self.by_hand
            self._teleop.publish(message)
        if self.talks:
            self._frame += 1
            for name, publisher in self._publishers.items():
                message = getattr(self, f"_{name.partition('_')[0]}")()
                message.header.stamp = self.node.get_clock().now().to_msg()
                publisher.publish(message)

    def _rgb(self) -> Any:
        return self._image(np.full((36, 64, 3), 90, np.uint8), "rgb8")

    def _depth(self) -> Any:
        return self._image(np.full((36, 64), 4000 + self._frame % 50, np.uint16), "16UC1")

    def _image(self, pixels: np.ndarray, encoding: str) -> Any:
        height, width = pixels.shape[:2]
        message = self.types["image"](height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
        message.data = pixels.tobytes()
        return message

    def _odom(self) -> Any:
        return self.types["odometry"]()

    def _imu(self) -> Any:
        message = self.types["imu"]()
        message.orientation.w, message.linear_acceleration.z = 1.0, 9.81
        return message

    @property
    def moves(self) -> bool:
        return any(linear or angular for _, linear, angular in self.twists[-3:])

    def call(self, kind: Any, name: str, request: Any, seconds: float = 30.0) -> Any:
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout_sec=10.0), f"nobody serves {name}"
        future = client.call_async(request)
        until_s = time.monotonic() + seconds
        while not future.done():
            assert time.monotonic() < until_s, f"{name} does not answer"
            time.sleep(0.02)
        return future.result()

    def set(self, name: str, value: float) -> Any:
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, f"/{NODE}/set_parameters", request).results[0]

    def reload(self) -> Any:
        from std_srvs.srv import Trigger

        return self.call(Trigger, "/reload_remote_model", Trigger.Request(), 130.0)

    def close(self) -> None:
        import rclpy

        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


@pytest.fixture
def store(exported: Bundle, tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    path = store.add(exported)
    store.activate(path)
    store.mark(path, "good")
    return store


class Started:
    """The node in a process of its own."""

    def __init__(self, folder: Path, values: dict[str, Any], node: str = NODE) -> None:
        self.socket = folder / "rover.sock"
        parameters = {**TOPICS, "profile": "rover-mini", "control_socket": self.socket, "use_npu": False, **values}
        command = [sys.executable, "-c", f"from policyloop_ros.{node} import main; raise SystemExit(main())"]
        command.append("--ros-args")
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else f"'{value}'" if value == "" else str(value)
            command += ["-p", f"{name}:={text}"]
        paths = [str(ROOT / "ros" / "policyloop_ros"), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ROS_DOMAIN_ID": str(DOMAIN)}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def arm(self) -> None:
        until_s = time.monotonic() + 30
        while True:
            try:
                ask_robot(self.socket, "arm")
                return
            except PolicyloopError:
                assert time.monotonic() < until_s, "it will not be armed"
                time.sleep(0.2)

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


@pytest.fixture
def start(store: Store) -> Iterator[Callable[..., Started]]:
    """Return `start(**parameters)`: the inference node."""
    with tempfile.TemporaryDirectory() as folder:
        running: list[Started] = []

        def started(**values: Any) -> Started:
            running.append(Started(Path(folder), {"model_path": store.directory, **values}))
            return running[-1]

        yield started
        for one in running:
            one.process.kill()
            one.process.communicate()


def test_it_stands_until_it_is_armed_drives_and_stops_when_sensors_fall_silent(
    peer: Peer, start: Callable[..., Started], until: Until
) -> None:
    node = start()
    until(lambda: len(peer.twists) > 10, 30)
    assert not any(linear or angular for _, linear, angular in peer.twists)
    node.arm()
    until(lambda: peer.moves, 10)
    peer.talks = False
    silent_s = time.monotonic()
    until(lambda: peer.twists[-1][1:] == (0.0, 0.0), 5)
    assert time.monotonic() - silent_s < 0.5
    until(lambda: "tripped" in peer.diagnostics["arming"].message, 5)


def test_limits_can_be_tightened_and_nothing_else(peer: Peer, start: Callable[..., Started], until: Until) -> None:
    start()
    until(lambda: peer.twists, 30)
    assert peer.set("max_linear_speed", 0.1).successful
    wider = peer.set("max_linear_speed", 0.5)
    assert not wider.successful
    assert "can only be lowered" in wider.reason
    assert not peer.set("safety_distance", 0.1).successful
    assert not peer.set("max_linear_speed", 99.0).successful
    assert not peer.set("depth_clip_m", 3.0).successful


def test_a_reload_answers_after_the_swap_or_with_the_reason(
    peer: Peer, start: Callable[..., Started], store: Store, until: Until
) -> None:
    start()
    until(lambda: peer.twists, 30)
    same = peer.reload()
    assert (same.success, same.message) == (True, "version 7 drives already")
    (store.directory / "current").unlink()
    gone = peer.reload()
    assert not gone.success
    assert "no current version" in gone.message


def test_a_person_wins(peer: Peer, start: Callable[..., Started], until: Until) -> None:
    node = start()
    node.arm()
    until(lambda: peer.moves, 10)
    peer.by_hand = 0.3
    until(lambda: peer.twists[-1][2] == pytest.approx(0.3, abs=0.05), 5)
    until(lambda: peer.diagnostics["arming"].message == "human", 5)
    peer.by_hand = None
    until(lambda: peer.diagnostics["arming"].message == "armed", 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_zero_and_is_disarmed_when_it_starts_again(
    peer: Peer, start: Callable[..., Started], number: int, until: Until
) -> None:
    node = start()
    node.arm()
    until(lambda: peer.moves, 10)
    assert node.end(number) == 0
    time.sleep(0.3)
    assert peer.twists[-1][1:] == (0.0, 0.0)
    peer.twists.clear()
    start()
    until(lambda: len(peer.twists) > 10, 30)
    assert not peer.moves


def test_what_is_missing_stands_in_the_diagnostics(peer: Peer, start: Callable[..., Started], until: Until) -> None:
    start(min_distance_topic="/nobody", model_path="/nowhere")
    until(lambda: "publishers of /nobody" in peer.diagnostics, 30)
    assert "nobody publishes /nobody" in peer.diagnostics["publishers of /nobody"].message
    assert "nothing on /nobody yet" in peer.diagnostics["/nobody"].message
    assert "no policy at" in peer.diagnostics["policy"].message
    assert peer.diagnostics["policy"].level == b"\x02"


def test_commands_of_another_type_are_named_at_the_start(
    peer: Peer, start: Callable[..., Started], until: Until
) -> None:
    from geometry_msgs.msg import TwistStamped

    peer.node.create_publisher(TwistStamped, "stamped", 1)
    start(teleop_topic="stamped")
    until(lambda: "publishers of stamped" in peer.diagnostics, 30)
    until(lambda: "geometry_msgs/msg/TwistStamped" in peer.diagnostics["publishers of stamped"].message, 10)


def test_stamped_commands_are_of_the_body(peer: Peer, start: Callable[..., Started], until: Until) -> None:
    from geometry_msgs.msg import TwistStamped

    heard: list[Any] = []
    peer.node.create_subscription(TwistStamped, "cmd_vel_stamped", heard.append, 10)
    start(enable_stamped_cmd_vel=True, cmd_vel_topic="cmd_vel_stamped")
    until(lambda: len(heard) > 3, 30)
    assert {message.header.frame_id for message in heard} == {"base_link"}
    assert all(message.header.stamp.sec for message in heard)


def test_a_persons_driving_reaches_the_trainer(peer: Peer, mini: RobotProfile, tmp_path: Path, until: Until) -> None:
    journal = Journal(tmp_path / "journal", mini, writable=True)
    gateway = Gateway(journal, mini, "tcp://127.0.0.1:*")
    gateway.start()
    peer.by_hand = 0.3
    node = Started(tmp_path, {"server_address": gateway.address, "robot_name": "r7"}, "remote_training_collector")
    try:
        until(lambda: journal.next >= 10, 40)
        assert node.end() == 0
        step = journal.read(5)
        assert (step.record.robot, step.record.action.source) == ("r7", "human")
        assert step.record.action.values == pytest.approx((0.0, 0.3))
        assert step.observation["depth"].min() >= 4000
    finally:
        node.process.kill()
        node.process.communicate()
        gateway.close()
        journal.close()


def test_another_rate_than_the_profiles_ends_it_with_a_sentence(start: Callable[..., Started]) -> None:
    node = start(inference_rate_hz=20.0)
    _, said = node.process.communicate(timeout=30)
    assert node.process.returncode == 3
    assert "inference_rate_hz is 20" in said


def test_a_peer_without_ros_is_heard(peer: Peer, start: Callable[..., Started], until: Until) -> None:
    pytest.importorskip("cyclonedds", reason="NOT TESTED: pip install cyclonedds")
    if os.environ.get("RMW_IMPLEMENTATION") != "rmw_cyclonedds_cpp":
        pytest.skip("NOT TESTED: cyclonedds refuses Fast DDS's type objects; set RMW_IMPLEMENTATION=rmw_cyclonedds_cpp")
    peer.talks = False
    start(profile="rover", model_path="/nowhere")
    command = [sys.executable, str(ROOT / "bench" / "ros_wire.py"), "--publish", str(DOMAIN), "--seconds", "8"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as publisher:
        for topic in ("/camera/color", "/camera/depth", "/odom", "/imu/data"):
            until(lambda topic=topic: topic in peer.diagnostics and peer.diagnostics[topic].level == b"\x00", 30)
        publisher.wait(60)


def test_a_base_without_a_time_out_is_stopped(peer: Peer, until: Until) -> None:
    heard: list[float] = []
    peer.node.create_subscription(peer.types["twist"], "cmd_vel", lambda message: heard.append(message.angular.z), 10)
    with tempfile.TemporaryDirectory() as folder:
        node = Started(Path(folder), {"cmd_vel_in": "cmd_vel_teleop"}, "cmd_vel_time_to_live")
        try:
            until(lambda: len(heard) > 5, 30)
            assert set(heard) == {0.0}
            peer.by_hand = 0.3
            until(lambda: heard[-1] == pytest.approx(0.3), 10)
            peer.by_hand = None
            until(lambda: heard[-1] == 0.0, 2)
        finally:
            node.process.kill()
            node.process.communicate()
