"""ROS 2 bag or MCAP -> journal: what a human drove becomes demonstrations.

Colour and depth are paired by `core.sync`; odometry, IMU and commands are the newest before a pair.
Where the bag has no proprioception of ours it is built from odometry, IMU and depth, just as on the robot.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from policyloop.core.corridor import column_distances, free_distance
from policyloop.core.step import Action, Arrays, Command, Observation, Stamps, Step
from policyloop.core.sync import Synchronizer
from policyloop.errors import MissingExtra, StorageError, UsageError, VerificationError, WireError
from policyloop.link.journal import Journal
from policyloop.robot.recorder import Recorder
from policyloop.robot.ros.cdr import RosMessages
from policyloop.robot.ros.messages import color, commanded, depth_mm, motion, posture
from policyloop.wire.codec import encode_step

__all__ = ["DEFAULT_TOPICS", "Imported", "import_bag"]

DEFAULT_TOPICS = {
    "rgb": "/camera/color/image_raw/compressed",
    "depth": "/camera/depth/image_rect_raw",
    "odom": "/odom",
    "imu": "/imu",
    "cmd_vel": "/cmd_vel",
}
"""What each sensor's topic is called unless the user says otherwise; `proprio` replaces `odom` and `imu`."""

_COMMAND_LASTS_S = 0.5
"""A command older than this no longer drives: the teleoperator let go."""
_GAP_PERIODS = 3.0

Messages = Iterator[tuple[str, str, int, bytes]]
"""Topic, message type, time in ns, CDR bytes."""


class Imported(msgspec.Struct, kw_only=True):
    """What became of a bag."""

    steps: int
    episodes: int
    unmatched: int
    """Pictures without a partner of the other kind."""
    undriven: int
    """Pairs at which nobody commanded anything: recorded as a command to stand."""


def import_bag(
    bag: Path,
    journal: Journal,
    *,
    robot: str,
    topics: dict[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Append a recording to a journal as human steps.

    Args:
        bag: A `.mcap` file, or a rosbag2 folder.
        journal: Open for writing; its profile says what an observation is.
        robot: Name under which the steps are stored.
        topics: Overrides of `DEFAULT_TOPICS`.
        progress: Called with (messages read, messages in all).

    Raises:
        UsageError: A topic that is needed is not in the bag; those that are there are named.
        VerificationError: A message is not what the profile says, or not one step comes of them all.
        StorageError: The bag cannot be read.
        MissingExtra: `rosbags` or `mcap` are not installed.
    """
    wanted = {**DEFAULT_TOPICS, **(topics or {})}
    held = Counter(topic for topic, *_ in _messages(bag))
    _check_topics(wanted, set(held))
    reader = _BagReader(journal, robot, wanted)
    read = 0
    for _, together in groupby(_messages(bag), key=lambda message: message[2]):
        # Of the same instant, what was sensed and commanded comes before the pictures that make a tick.
        for topic, kind, stamp_ns, data in sorted(together, key=lambda message: reader.is_picture(message[0])):
            reader.take(topic, kind, stamp_ns, data)
            read += 1
        if progress is not None:
            progress(read, held.total())
    journal.sync()
    result = reader.result
    if not result.steps:
        raise VerificationError(
            f"{bag} makes no step: {result.unmatched} of its pictures have no partner of the same moment",
            "it takes colour, depth and a command together, twice at least; check the topics: --topic SENSOR=TOPIC",
        )
    return result


def _check_topics(wanted: dict[str, str], seen: set[str]) -> None:
    """Raise UsageError if the bag lacks a topic without which there is no step, or one is named twice."""
    topic, times = Counter(wanted.values()).most_common(1)[0]
    if times > 1:
        names = " and ".join(name for name, where in wanted.items() if where == topic)
        raise UsageError(f"{topic} cannot be {names}", "give each sensor a topic of its own: --topic SENSOR=TOPIC")
    missing = [f"{name} ({wanted[name]})" for name in ("rgb", "depth", "cmd_vel") if wanted[name] not in seen]
    if missing:
        raise UsageError(
            f"the bag holds no {', '.join(missing)}",
            f"name topics with --topic rgb=/... ; it holds {', '.join(sorted(seen)) or 'nothing'}",
        )


def _messages(bag: Path) -> Messages:
    """Iterate over a bag in order of time."""
    if bag.is_file() and bag.suffix == ".mcap":
        yield from _mcap_messages(bag)
        return
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise MissingExtra("rosbags", "data") from error
    try:
        with Reader(bag) as reader:
            for connection, stamp_ns, data in reader.messages():
                yield connection.topic, connection.msgtype, stamp_ns, bytes(data)
    except Exception as error:
        raise _unreadable(bag, error) from error


def _mcap_messages(bag: Path) -> Messages:
    try:
        from mcap.reader import make_reader
    except ImportError as error:
        raise MissingExtra("mcap", "data") from error
    try:
        with bag.open("rb") as file:
            for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
                if schema is not None and channel.message_encoding == "cdr":
                    yield channel.topic, schema.name, message.log_time, message.data
    except Exception as error:
        raise _unreadable(bag, error) from error


def _unreadable(bag: Path, error: Exception) -> StorageError:
    """Return the error of a bag whose reader gives up; of damaged bytes it raises whatever it stumbles on."""
    return StorageError(
        f"cannot read {bag}: {error or type(error).__name__}",
        "give a .mcap file or a rosbag2 folder; a damaged one: `mcap recover`, or `ros2 bag reindex`",
    )


class _BagReader:
    """Turns messages into ticks, and ticks into steps."""

    def __init__(self, journal: Journal, robot: str, topics: dict[str, str]) -> None:
        self._journal, self._profile = journal, journal.profile
        if self._profile.camera is None:
            raise UsageError(f"profile '{self._profile.name}' has no camera", "bags of such robots are not supported")
        self._names = {topic: name for name, topic in topics.items()}
        self._messages = RosMessages(self._profile)
        self._readings: dict[str, Callable[[Any], Any]] = {
            "odom": motion,
            "imu": posture,
            "cmd_vel": lambda message: commanded(message, self._profile),
            "proprio": self._recorded_proprio,
        }
        period_ns = self._profile.rates.period_ns
        self._pairs = Synchronizer(("rgb", "depth"), period_ns // 2)
        self._newest: dict[str, tuple[int, Any]] = {}
        self._recorder = Recorder(self._profile, robot, secrets.token_hex(8), self._store)
        self._ticked_ns = -(1 << 62)
        self._undriven = self._steps = 0

    def is_picture(self, topic: str) -> bool:
        """Tell whether a topic completes a tick."""
        return self._names.get(topic) in ("rgb", "depth")

    def take(self, topic: str, kind: str, stamp_ns: int, data: bytes) -> None:
        """Take in one message of any topic."""
        name = self._names.get(topic)
        if name is None:
            return
        try:
            message = self._messages.decode(kind, data)
            if name not in ("rgb", "depth"):
                self._newest[name] = (stamp_ns, self._readings[name](message))
                return
            specs = self._profile.observation_specs
            picture = (color if name == "rgb" else depth_mm)(message, specs[name].shape)
        except (ValueError, KeyError, AttributeError, AssertionError, WireError) as error:
            raise VerificationError(
                f"a message of {topic} is not what profile '{self._profile.name}' says: {error}",
                "use the profile of the robot that recorded it; or give the right topic: --topic SENSOR=TOPIC",
            ) from error
        pair = self._pairs.add(name, stamp_ns, picture)
        if pair is not None and pair[0] - self._ticked_ns >= 0.9 * self._profile.rates.period_ns:
            self._tick(*pair)

    def _tick(self, stamp_ns: int, pictures: dict[str, Any]) -> None:
        arrays: Arrays = {"rgb": np.ascontiguousarray(pictures["rgb"]), "depth": pictures["depth"]}
        arrays["proprio"] = self._proprio(arrays)
        if stamp_ns - self._ticked_ns > _GAP_PERIODS * self._profile.rates.period_ns:
            self._recorder.miss()
        self._ticked_ns = stamp_ns
        observation = Observation(arrays, stamp_ns)
        self._recorder.observe(observation)
        values = self._command(stamp_ns)
        stamps = Stamps(stamp_ns, stamp_ns, stamp_ns)
        self._recorder.act(observation, Action(values, "human"), Command(values), stamps)

    def _recorded_proprio(self, message: Any) -> Any:
        values, shape = np.asarray(message.data, np.float32), self._profile.observation_specs["proprio"].shape
        if values.shape != shape:
            raise ValueError(f"{values.size} numbers, expected {shape[0]}")
        return values

    def _command(self, stamp_ns: int) -> tuple[float, ...]:
        """Return the newest command, or to stand if it is too old."""
        sent_ns, values = self._newest.get("cmd_vel", (-(1 << 62), ()))
        if stamp_ns - sent_ns <= _COMMAND_LASTS_S * 1e9:
            return values
        self._undriven += 1
        return self._profile.stop().values

    def _proprio(self, arrays: Arrays) -> Any:
        """Return the profile's vector from what was sensed last; what nobody sensed is at its center."""
        if "proprio" in self._newest:
            return self._newest["proprio"][1]
        camera, body = self._profile.camera, self._profile.body
        assert camera is not None
        columns = column_distances(arrays["depth"], camera)
        sensed = {"min_forward_dist": free_distance(columns, camera, body.corridor_half_width_m)}
        for name in ("odom", "imu"):
            sensed |= self._newest[name][1] if name in self._newest else {}
        return np.array([sensed.get(quantity.name, quantity.center) for quantity in self._profile.proprio], np.float32)

    def _store(self, step: Step) -> None:
        captured_s = step.record.stamps.captured_ns / 1e9
        record = msgspec.structs.replace(step.record, wall_clock_s=captured_s)
        self._journal.append(encode_step(msgspec.structs.replace(step, record=record), self._profile))
        self._steps += 1

    @property
    def result(self) -> Imported:
        """What became of the bag."""
        episodes = len(self._recorder.episodes) + (self._steps > sum(e.steps for e in self._recorder.episodes))
        return Imported(steps=self._steps, episodes=episodes, unmatched=self._pairs.unmatched, undriven=self._undriven)
