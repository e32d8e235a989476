"""The node that drives, on real time and without ROS: disarmed, armed, stale, taken over, swapped, ended."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import KeyRing
from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.clock import MonotonicClock
from policyloop.core.profile import RobotProfile
from policyloop.errors import SafetyRefusal
from policyloop.learn.networks import make_network
from policyloop.robot.control import Verb, ask_robot
from policyloop.robot.ros.inference import Inference
from policyloop.robot.ros.parameters import Parameter

M = Any
TABLE = (
    Parameter(name="max_linear_speed", default=0.18, about="", unit="m/s", low=0.01, high=10.0, live="down"),
    Parameter(name="max_angular_speed", default=1.0, about="", unit="rad/s", low=0.01, high=10.0, live="down"),
    Parameter(name="safety_distance", default=0.25, about="", unit="m", low=0.05, high=5.0, live="up"),
)


class Rover:
    """Publishes everything at 30 Hz from a thread of its own, and keeps the twists."""

    def __init__(self, messages: M, values: dict[str, Any]) -> None:
        self.messages = messages
        self.sent: list[tuple[float, float, float]] = []
        self.odometry = 0.0
        self.talks = threading.Event()
        self.talks.set()
        self._end = threading.Event()
        self.inference = Inference(TABLE, values, self._sent, MonotonicClock(), time.time_ns)
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _sent(self, linear: float, angular: float) -> None:
        self.sent.append((time.monotonic(), linear, angular))

    def _talk(self) -> None:
        m, rng = self.messages, np.random.default_rng(0)
        while not self._end.wait(1 / 30):
            if not self.talks.is_set():
                continue
            stamp_ns = time.time_ns()
            depth = rng.integers(4000, 4100, (36, 64)).astype(np.uint16)
            for topic, message in {
                "/odom": m.odometry(self.odometry, 0.0, stamp_ns),
                "/imu": m.imu(0.0, stamp_ns=stamp_ns),
                "/rgb": m.image(np.full((36, 64, 3), 90, np.uint8), "rgb8", stamp_ns),
                "/depth": m.image(depth, "16UC1", stamp_ns),
            }.items():
                self.inference.source.put(topic, message, time.monotonic_ns())

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self.inference.close()

    @property
    def moves(self) -> bool:
        return any(linear or angular for at, linear, angular in self.sent[-3:])

    def told(self, name: str) -> M:
        return {found.name: found for found in self.inference.diagnoses()}[name]


def bundle_of(profile: RobotProfile, version: int) -> Bundle:
    return export_bundle(
        make_network("spatial", profile),
        profile,
        profile.nominal_normalizer,
        network_name="spatial",
        version=version,
        noise_hold_ticks=1,
        observations=probe_features(profile, 2),
        training={},
    )


@pytest.fixture
def store(tmp_path: Path, mini: RobotProfile) -> Store:
    """Two versions, of which the first is good and drives."""
    store = Store(tmp_path / "store")
    paths = [store.add(bundle_of(mini, version)) for version in (1, 2)]
    store.activate(paths[0])
    store.mark(paths[0], "good")
    return store


@pytest.fixture
def start(jazzy: M, store: Store) -> Iterator[Callable[..., Rover]]:
    """Return `start(**changes)`: a rover whose node has been started."""
    with tempfile.TemporaryDirectory() as folder:
        rovers: list[Rover] = []
        values = {
            "profile": "rover-mini",
            "robot_name": "rover-7",
            "model_path": str(store.directory),
            "trusted_keys": "",
            "rgb_topic": "/rgb",
            "depth_topic": "/depth",
            "imu_topic": "/imu",
            "odom_topic": "/odom",
            "min_distance_topic": "",
            "depth_scale": 0.001,
            "depth_clip_m": 6.0,
            "sync_tolerance_s": 0.02,
            "teleop_topic": "/teleop",
            "max_linear_speed": 0.18,
            "max_angular_speed": 1.0,
            "safety_distance": 0.25,
            "inference_rate_hz": 10.0,
            "use_npu": False,
            "npu_core_mask": 0,
            "shadow_ticks": 3,
            "probation_s": 1.0,
            "server_address": "",
            "keys_dir": "",
            "gateway_key": "",
            "spool_dir": "",
            "control_socket": f"{folder}/rover.sock",
        }

        def started(**changes: Any) -> Rover:
            rovers.append(Rover(jazzy, {**values, **changes}))
            rovers[-1].inference.start()
            return rovers[-1]

        started.socket = Path(values["control_socket"])  # type: ignore[attr-defined]
        yield started
        for rover in rovers:
            rover.close()


def accepted(socket: Path, verb: Verb) -> bool:
    try:
        ask_robot(socket, verb)
    except SafetyRefusal:
        return False
    return True


@pytest.fixture
def arm(start: M, until: Callable[..., None]) -> Callable[[Rover], None]:
    """Return `arm(rover)`: as a person does it."""

    def armed(rover: Rover) -> None:
        until(lambda: accepted(start.socket, "arm"), 20)  # it needs a second of healthy input
        until(lambda: rover.inference.armed, 5)
        until(lambda: rover.moves, 10)

    return armed


def test_it_starts_disarmed_and_drives_when_somebody_arms_it(start: M, arm: M) -> None:
    rover = start()
    time.sleep(1.5)
    assert len(rover.sent) > 8
    assert {twist[1:] for twist in rover.sent} == {(0.0, 0.0)}
    assert rover.told("arming").message == "disarmed"
    assert "unsigned policies drive as well" in rover.told("policy").message
    arm(rover)
    assert rover.told("arming").message == "armed"
    assert int(rover.told("control loop").values["ticks"]) > 10
    assert all(abs(linear) <= 0.18 and abs(angular) <= 1.0 for _, linear, angular in rover.sent)


def test_silence_stops_it_within_the_time_out_and_trips_it(start: M, arm: M, until: M) -> None:
    rover = start()
    arm(rover)
    rover.talks.clear()
    silent_s = time.monotonic()
    until(lambda: rover.sent[-1][1:] == (0.0, 0.0), 5)
    assert time.monotonic() - silent_s < 0.2 + 0.3  # sensor_timeout_s, and the tick that notices
    until(lambda: rover.told("arming").level == "error", 5)
    assert "no healthy input" in rover.told("arming").message
    rover.talks.set()
    time.sleep(0.5)
    assert not rover.moves


def test_nan_odometry_stops_it_and_is_named(start: M, arm: M, until: M) -> None:
    rover = start()
    arm(rover)
    rover.odometry = math.nan
    until(lambda: rover.sent[-1][1:] == (0.0, 0.0), 5)
    until(lambda: rover.told("/odom").level == "error", 5)
    assert "bad-odometry: linear_vel is nan" in rover.told("/odom").message


def test_a_person_takes_over_and_lets_go(start: M, arm: M, until: M) -> None:
    rover = start()
    arm(rover)
    for _ in range(8):
        rover.inference.teleop.put(rover.messages.twist(0.0, 0.3), time.monotonic_ns())
        time.sleep(0.1)
    assert rover.told("arming").message == "human"
    assert rover.sent[-1][2] == pytest.approx(0.3, abs=0.05)
    until(lambda: rover.told("arming").message == "armed", 5)


def test_closing_stands_still_at_last(start: M, arm: M) -> None:
    rover = start()
    arm(rover)
    rover.inference.close()
    assert rover.sent[-1][1:] == (0.0, 0.0)


def test_limits_get_tighter_while_it_drives_and_never_wider(start: M, arm: M) -> None:
    rover = start()
    arm(rover)
    assert rover.inference.change({"max_linear_speed": 0.02, "max_angular_speed": 0.05}) == ""
    assert "can only be lowered" in rover.inference.change({"max_linear_speed": 0.1})
    assert "can only be raised" in rover.inference.change({"safety_distance": 0.2, "max_linear_speed": 0.01})
    assert "there is no parameter model_path" in rover.inference.change({"model_path": "/else"})
    time.sleep(0.5)
    assert all(abs(linear) <= 0.02 and abs(angular) <= 0.05 for _, linear, angular in rover.sent[-3:])


def test_without_a_policy_it_stands_and_says_why_until_there_is_one(start: M, store: Store, tmp_path: Path) -> None:
    rover = start(model_path=str(tmp_path / "later"))
    assert rover.told("policy").level == "error"
    assert "no policy at" in rover.told("policy").message
    success, message = rover.inference.reload()
    assert not success
    assert "no policy at" in message
    store.directory.rename(tmp_path / "later")
    assert rover.inference.reload() == (True, "started; it is disarmed")
    time.sleep(0.5)
    assert rover.told("policy").level == "warning"
    assert not rover.moves


def test_an_unsigned_policy_does_not_drive_where_signatures_count(start: M, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    assert KeyRing(tmp_path / "keys") is not None
    rover = start(trusted_keys=str(tmp_path / "keys"))
    assert rover.told("policy").level == "error"
    assert "sign" in rover.told("policy").message
    assert rover.sent == []


def test_a_reload_answers_after_the_swap(start: M, store: Store) -> None:
    rover = start()
    assert rover.inference.reload() == (True, "version 1 drives already")
    second = store.versions()[1]
    store.activate(second)
    store.mark(second, "good")
    assert rover.inference.reload() == (True, "version 2 drives")
    assert rover.told("policy").values["version"] == "2"


def test_a_reload_of_a_new_version_waits_for_its_proof(start: M, store: Store, arm: M) -> None:
    rover = start()
    store.activate(store.versions()[1])
    success, message = rover.inference.reload()
    assert not success
    assert "the robot is not armed" in message
    arm(rover)
    assert rover.inference.reload() == (True, "version 2 drives")


def test_a_reload_of_a_bad_version_says_why(start: M, store: Store, arm: M) -> None:
    rover = start()
    arm(rover)
    second = store.versions()[1]
    (second / "policy.onnx").write_bytes(b"")
    store.activate(second)
    success, message = rover.inference.reload()
    assert not success
    assert "000002" in message
    assert "policy.onnx" in message
    assert rover.told("policy").values["version"] == "1"


def test_a_single_bundle_cannot_be_reloaded(start: M, store: Store) -> None:
    rover = start(model_path=str(store.versions()[0]))
    success, message = rover.inference.reload()
    assert not success
    assert "give model_path a store" in message


def test_another_rate_than_the_profiles_is_refused(start: M, mini: RobotProfile) -> None:
    with pytest.raises(Exception, match="inference_rate_hz is 20, profile 'rover-mini' has control_hz = 10"):
        start(inference_rate_hz=20.0)
    assert msgspec.structs.asdict(mini)["name"] == "rover-mini"
