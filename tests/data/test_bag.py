"""A ROS 2 recording becomes demonstrations: synchronised, complete, and nothing invented."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import simplejpeg
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.data.bag import import_bag
from policyloop.data.mcap import export_mcap
from policyloop.errors import PolicyloopError, StorageError, UsageError, VerificationError
from policyloop.link.journal import Journal

STORE = get_typestore(Stores.ROS2_HUMBLE)
T: Any = STORE.types
MS = 1_000_000
START_NS = 1_750_000_000 * 10**9


def header(stamp_ns: int) -> Any:
    return T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9)), "camera")


def vector(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Any:
    return T["geometry_msgs/msg/Vector3"](x, y, z)


def twist(linear: float, angular: float) -> Any:
    return T["geometry_msgs/msg/Twist"](vector(linear), vector(0.0, 0.0, angular))


def odometry(stamp_ns: int, linear: float, angular: float) -> Any:
    pose = T["geometry_msgs/msg/PoseWithCovariance"](
        T["geometry_msgs/msg/Pose"](
            T["geometry_msgs/msg/Point"](0.0, 0.0, 0.0), T["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
        ),
        np.zeros(36),
    )
    moving = T["geometry_msgs/msg/TwistWithCovariance"](twist(linear, angular), np.zeros(36))
    return T["nav_msgs/msg/Odometry"](header(stamp_ns), "base_link", pose, moving)


def imu(stamp_ns: int, roll: float) -> Any:
    orientation = T["geometry_msgs/msg/Quaternion"](math.sin(roll / 2), 0.0, 0.0, math.cos(roll / 2))
    zeros = np.zeros(9)
    return T["sensor_msgs/msg/Imu"](header(stamp_ns), orientation, zeros, vector(), zeros, vector(3.0, 0.0, 4.0), zeros)


def jpeg(stamp_ns: int, width: int = 64) -> Any:
    picture = np.full((36, width, 3), 90, np.uint8)
    data = np.frombuffer(simplejpeg.encode_jpeg(picture), np.uint8)
    return T["sensor_msgs/msg/CompressedImage"](header(stamp_ns), "jpeg", data)


def depth(stamp_ns: int, mm: int) -> Any:
    data = np.full((36, 64), mm, "<u2").view(np.uint8).reshape(-1)
    return T["sensor_msgs/msg/Image"](header(stamp_ns), 36, 64, "16UC1", 0, 128, data)


KINDS = {
    "/camera/color/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera/depth/image_rect_raw": "sensor_msgs/msg/Image",
    "/odom": "nav_msgs/msg/Odometry",
    "/imu": "sensor_msgs/msg/Imu",
    "/cmd_vel": "geometry_msgs/msg/Twist",
}


def recording(ticks: int = 10) -> Iterator[tuple[str, int, Any]]:
    """Yield (topic, ms, message) of a robot that drives at 10 Hz and speeds up."""
    for i in range(ticks):
        ms = 100 * i
        ns = START_NS + ms * MS
        yield "/odom", ms - 20, odometry(ns, 0.1 + 0.01 * i, -0.2)
        yield "/imu", ms - 15, imu(ns, 0.05)
        yield "/cmd_vel", ms - 10, twist(0.2 + 0.01 * i, -0.3)
        yield "/camera/color/image_raw/compressed", ms, jpeg(ns)
        yield "/camera/depth/image_rect_raw", ms + 8, depth(ns, 2000 - 10 * i)


@pytest.fixture(params=["sqlite", "mcap"])
def write_bag(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Return `write_bag(messages)`: a rosbag2 folder as a robot records it."""

    def write(messages: Iterator[tuple[str, int, Any]]) -> Path:
        plugin = {"sqlite": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}[request.param]
        with Writer(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
            connections: dict[str, Any] = {}
            for topic, ms, message in messages:
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, KINDS[topic], typestore=STORE)
                data = STORE.serialize_cdr(message, KINDS[topic])
                writer.write(connections[topic], START_NS + ms * MS, data)
        return tmp_path / "bag"

    return write


@pytest.fixture
def target(mini: RobotProfile, tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "imported", mini, writable=True)
    yield journal
    journal.close()


def test_a_recording_becomes_human_steps(write_bag: Callable[..., Path], target: Journal, mini: RobotProfile) -> None:
    result = import_bag(write_bag(recording()), target, robot="bagged")
    assert result.steps == target.next == 9  # the last tick has no outcome
    for i in range(9):
        step = target.read(i)
        assert step.record.action.source == "human"
        assert step.record.robot == "bagged"
        assert (step.record.sequence, step.record.index) == (i, i)
        assert step.record.action.values == pytest.approx((0.2 + 0.01 * i, -0.3))
        assert step.record.stamps.captured_ns == START_NS + 100 * i * MS
        proprio = step.observation["proprio"]
        expected = {
            "linear_vel": 0.1 + 0.01 * i,
            "angular_vel": -0.2,
            "roll": 0.05,
            "pitch": 0.0,
            "accel_mag": 5.0,
            "min_forward_dist": 2.0 - 0.01 * i,
        }
        for name, value in expected.items():
            assert proprio[mini.proprio_index(name)] == pytest.approx(value, abs=1e-4), name
        assert (step.observation["depth"] == 2000 - 10 * i).all()
        assert step.observation["rgb"].shape == (36, 64, 3)
    assert target.read(0).record.gap  # nobody knows what was before the recording


def test_pictures_without_a_partner_are_dropped_and_counted(write_bag: Callable[..., Path], target: Journal) -> None:
    messages = [m for m in recording(12) if not (m[0].startswith("/camera/depth") and m[1] in (308, 608))]
    result = import_bag(write_bag(iter(messages)), target, robot="bagged")
    assert result.steps == 9
    assert result.unmatched == 2


def test_a_hole_in_the_recording_is_a_gap(write_bag: Callable[..., Path], target: Journal) -> None:
    messages = [m for m in recording(20) if not 650 < m[1] < 1270]
    import_bag(write_bag(iter(messages)), target, robot="bagged")
    gaps = [target.header(i).stamps.captured_ns for i in range(target.next) if target.header(i).gap]
    assert gaps == [START_NS, START_NS + 1300 * MS]


def test_a_command_that_is_too_old_does_not_drive(write_bag: Callable[..., Path], target: Journal) -> None:
    messages = [m for m in recording(12) if not (m[0] == "/cmd_vel" and m[1] > 200)]
    result = import_bag(write_bag(iter(messages)), target, robot="bagged")
    values = [target.header(i).action.values for i in range(target.next)]
    assert values[2][0] > 0.2
    assert values[6][0] > 0.2  # 410 ms old
    assert values[7] == values[9] == (0.0, 0.0)  # 510 ms
    assert result.undriven == sum(value == (0.0, 0.0) for value in values) + 1  # and the last tick


@pytest.mark.parametrize("topic", ["/camera/depth/image_rect_raw", "/cmd_vel"])
def test_a_bag_without_what_is_needed_is_refused_and_what_it_has_is_named(
    write_bag: Callable[..., Path], target: Journal, topic: str
) -> None:
    bag = write_bag(m for m in recording() if m[0] != topic)
    with pytest.raises(UsageError, match=topic) as caught:
        import_bag(bag, target, robot="bagged")
    assert "/odom" in caught.value.remedy
    assert target.next == 0


def test_pictures_of_another_size_are_refused_by_name(write_bag: Callable[..., Path], target: Journal) -> None:
    messages = ((t, ms, jpeg(START_NS, 80) if "color" in t else m) for t, ms, m in recording())
    with pytest.raises(VerificationError, match="80x36, expected 64x36"):
        import_bag(write_bag(messages), target, robot="bagged")
    assert target.next == 0


def test_a_bag_that_makes_no_step_is_refused(write_bag: Callable[..., Path], target: Journal) -> None:
    apart = [message for message in recording() if message[1] < 500 or "depth" not in message[0]]
    early = [message for message in apart if message[1] >= 500 or "color" not in message[0]]
    with pytest.raises(VerificationError, match=r"makes no step: \d+ of its pictures have no partner"):
        import_bag(write_bag(iter(early)), target, robot="bagged")


def test_one_topic_for_two_sensors_is_refused_by_name(write_bag: Callable[..., Path], target: Journal) -> None:
    with pytest.raises(UsageError, match="/odom cannot be rgb and odom"):
        import_bag(write_bag(recording()), target, robot="bagged", topics={"rgb": "/odom"})


@pytest.mark.parametrize("topic", ["/imu", "/odom"])
def test_a_topic_of_another_kind_is_refused_by_name(
    write_bag: Callable[..., Path], target: Journal, topic: str
) -> None:
    topics = {"cmd_vel": topic, **{name: "/nowhere" for name in ("odom", "imu") if topic == f"/{name}"}}
    with pytest.raises(VerificationError, match=f"a message of {topic} is not what profile"):
        import_bag(write_bag(recording()), target, robot="bagged", topics=topics)
    assert target.next == 0


def test_what_was_exported_can_be_imported_again(
    journal: Journal, steps: list[Step], target: Journal, mini: RobotProfile, tmp_path: Path
) -> None:
    export_mcap(journal, tmp_path / "out.mcap")
    names = {"rgb": "color/image", "depth": "depth/image", "proprio": "proprio", "cmd_vel": "cmd_vel"}
    result = import_bag(
        tmp_path / "out.mcap", target, robot="again", topics={name: f"/r0/{topic}" for name, topic in names.items()}
    )
    assert result.steps == 7
    for i in range(7):
        step = target.read(i)
        for name in mini.observation_specs:
            np.testing.assert_array_equal(step.observation[name], steps[i].observation[name])
    assert msgspec.structs.asdict(result)["unmatched"] == 0


@pytest.mark.parametrize("name", ["nothing.mcap", "broken.mcap", "folder"])
def test_what_is_no_bag_is_a_storage_error(target: Journal, tmp_path: Path, name: str) -> None:
    if name.startswith("broken"):
        (tmp_path / name).write_bytes(b"\x89MCAP0\r\n" + b"rubbish" * 10)
    elif name == "folder":
        (tmp_path / name).mkdir()
    with pytest.raises(StorageError, match="cannot read"):
        import_bag(tmp_path / name, target, robot="bagged")


def test_damage_anywhere_in_a_recording_is_an_error_of_ours(
    journal: Journal, mini: RobotProfile, tmp_path: Path
) -> None:
    export_mcap(journal, tmp_path / "out.mcap")
    names = {"rgb": "color/image", "depth": "depth/image", "proprio": "proprio", "cmd_vel": "cmd_vel"}
    topics = {name: f"/r0/{topic}" for name, topic in names.items()}
    whole, rng, refused = (tmp_path / "out.mcap").read_bytes(), np.random.default_rng(0), 0
    for number in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] ^= 1 << rng.integers(8)
        bag = tmp_path / "damaged.mcap"
        bag.write_bytes(damaged[: rng.integers(1, len(whole))] if number % 3 == 0 else damaged)
        target = Journal(tmp_path / f"journal-{number}", mini, writable=True)
        try:
            import_bag(bag, target, robot="bagged", topics=topics)
        except PolicyloopError:
            refused += 1
        finally:
            target.close()
    assert refused > 30
