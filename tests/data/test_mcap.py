"""A journal as MCAP: what `mcap` and `rosbags` read back is what was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.typesys import Stores, get_typestore

from policyloop.core.profile import RobotProfile, Stream
from policyloop.core.step import Step, StepRecord, TrainerClock
from policyloop.data.mcap import CaptureTimes, export_mcap
from policyloop.errors import StorageError, UsageError
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step
from policyloop.wire.rgb import unpack_rgb

STORE = get_typestore(Stores.ROS2_HUMBLE)


def messages(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return (time, message) by topic, decoded with the schemas that are in the file."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with path.open("rb") as file:
        for schema, channel, message in make_reader(file).iter_messages():
            assert schema is not None
            assert (schema.encoding, channel.message_encoding) == ("ros2msg", "cdr")
            decoded = STORE.deserialize_cdr(message.data, schema.name)
            found.setdefault(channel.topic, []).append((message.log_time, decoded))
    return found


def test_every_step_comes_back_equal(journal: Journal, steps: list[Step], mini: RobotProfile, tmp_path: Path) -> None:
    assert export_mcap(journal, tmp_path / "out.mcap") == len(steps) == 11
    found = messages(tmp_path / "out.mcap")
    for robot in ("r0", "r1"):
        mine = [step for step in steps if step.record.robot == robot]
        assert all(len(found[f"/{robot}/{topic}"]) == len(mine) for topic in ("step", "cmd_vel", "depth/image"))
        for index, step in enumerate(mine):
            time_ns, text = found[f"/{robot}/step"][index]
            assert msgspec.json.decode(text.data, type=StepRecord) == step.record
            assert time_ns == pytest.approx(step.record.wall_clock_s * 1e9, abs=1000)
            _, color = found[f"/{robot}/color/image"][index]
            assert (color.encoding, color.height, color.width, color.step) == ("rgb8", 36, 64, 192)
            np.testing.assert_array_equal(color.data.reshape(36, 64, 3), step.observation["rgb"])
            _, depth = found[f"/{robot}/depth/image"][index]
            assert (depth.encoding, depth.is_bigendian, depth.step) == ("16UC1", 0, 128)
            np.testing.assert_array_equal(depth.data.view("<u2").reshape(36, 64), step.observation["depth"])
            _, proprio = found[f"/{robot}/proprio"][index]
            np.testing.assert_array_equal(proprio.data, step.observation["proprio"])
            assert proprio.layout.dim[0].label.split(",")[0] == "linear_vel"
            _, twist = found[f"/{robot}/cmd_vel"][index]
            assert (twist.linear.x, twist.angular.z) == step.record.command.values
            _, action = found[f"/{robot}/action"][index]
            np.testing.assert_allclose(action.data, step.record.action.values, rtol=1e-6)


def test_a_jpeg_is_passed_on_as_it_is(mini: RobotProfile, steps: list[Step], tmp_path: Path) -> None:
    profile = msgspec.structs.replace(mini, stream=Stream(rgb_encoding="jpeg", jpeg_quality=85))
    journal = Journal(tmp_path / "journal", profile, writable=True)
    frames = encode_step(steps[0], profile)
    journal.append(frames)
    export_mcap(journal, tmp_path / "out.mcap")
    ((_, picture),) = messages(tmp_path / "out.mcap")["/r0/color/compressed"]
    assert picture.format == "jpeg"
    assert picture.data.tobytes() == frames[1]
    assert unpack_rgb(picture.data.tobytes(), (36, 64, 3)).shape == (36, 64, 3)
    journal.close()


def test_schemas_hold_everything_that_a_reader_without_ros_needs(journal: Journal, tmp_path: Path) -> None:
    export_mcap(journal, tmp_path / "out.mcap")
    with (tmp_path / "out.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    schemas = {schema.name: schema.data.decode() for schema in summary.schemas.values()}
    assert set(schemas) == {
        "sensor_msgs/msg/Image",
        "std_msgs/msg/Float32MultiArray",
        "geometry_msgs/msg/Twist",
        "std_msgs/msg/String",
    }
    assert "MSG: std_msgs/Header" in schemas["sensor_msgs/msg/Image"]
    counts = Counter({summary.channels[key].topic: n for key, n in summary.statistics.channel_message_counts.items()})
    assert counts["/r0/step"] == 8
    assert counts["/r1/step"] == 3


def test_a_damaged_record_is_left_out(journal: Journal, tmp_path: Path) -> None:
    journal.append([b"\xc1"])
    assert export_mcap(journal, tmp_path / "out.mcap") == 11


def test_time_is_the_trainers_where_the_robot_knew_it(steps: list[Step]) -> None:
    record = steps[2].record
    assert CaptureTimes().of(record) == pytest.approx(1_750_000_000_200_000_000, abs=1000)
    known = msgspec.structs.replace(record, trainer_clock=TrainerClock(5_000_000_000, 10))
    assert CaptureTimes().of(known) == 200_000_000 + 5_000_000_000


def test_a_wall_clock_that_jumps_moves_nothing(steps: list[Step]) -> None:
    times = CaptureTimes()
    first = times.of(steps[0].record)
    jumped = msgspec.structs.replace(steps[1].record, wall_clock_s=5.0)
    assert times.of(jumped) - first == 100_000_000


def test_an_existing_file_is_not_overwritten(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "out.mcap").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export_mcap(journal, tmp_path / "out.mcap")
    assert (tmp_path / "out.mcap").read_text() == "mine"


def test_a_full_disk_leaves_no_half_file(journal: Journal, tmp_path: Path, full_disk: Callable[[int], Any]) -> None:
    with full_disk(1000), pytest.raises(StorageError, match="cannot write"):
        export_mcap(journal, tmp_path / "out.mcap")
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]
