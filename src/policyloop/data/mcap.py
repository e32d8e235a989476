"""Journal -> MCAP with ROS 2 messages: Foxglove opens it, and so does anything that reads bags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policyloop.core.files import staged
from policyloop.core.step import Step, StepRecord
from policyloop.errors import MissingExtra, StorageError, UsageError
from policyloop.link.journal import Journal
from policyloop.robot.ros.cdr import RosMessages
from policyloop.wire.codec import decode_step

__all__ = ["CaptureTimes", "export_mcap"]


class CaptureTimes:
    """When steps were captured, ns since 1970.

    The robot's monotonic clock tells the time between steps; where it stands is known from the first
    step of each start: by the trainer's clock if the robot knew it, so that several robots agree,
    else by the robot's own wall clock.
    """

    def __init__(self) -> None:
        self._offsets_ns: dict[tuple[str, str], int] = {}

    def of(self, record: StepRecord) -> int:
        """Return one step's time."""
        start = (record.robot, record.boot)
        if start not in self._offsets_ns:
            known = record.trainer_clock
            by_wall_clock_ns = round(record.wall_clock_s * 1e9) - record.stamps.captured_ns
            self._offsets_ns[start] = by_wall_clock_ns if known is None else known.offset_ns
        return record.stamps.captured_ns + self._offsets_ns[start]


def export_mcap(journal: Journal, output: Path) -> int:
    """Write every intact step; returns how many.

    Args:
        journal: Where steps are.
        output: A new `.mcap` file.

    Raises:
        UsageError: `output` exists.
        MissingExtra: `mcap` or `rosbags` are not installed.
        StorageError: The disk refuses; no half file is left under its final name.
    """
    if output.exists():
        raise UsageError(f"{output} exists already", "choose another --output")
    messages = RosMessages(journal.profile)
    try:
        with staged(output) as staging, staging.open("wb") as file:
            return _write(journal, messages, file)
    except OSError as error:
        raise StorageError.cannot_write(output, error) from error


def _write(journal: Journal, messages: RosMessages, file: Any) -> int:
    try:
        from mcap.writer import Writer
    except ImportError as error:
        raise MissingExtra("mcap", "data") from error
    writer: Any = Writer(file)
    writer.start(profile="ros2", library="policyloop")
    schemas: dict[str, int] = {}
    channels: dict[str, int] = {}
    names = list(journal.profile.observation_specs)
    times = CaptureTimes()
    written = 0

    def read(position: int) -> tuple[Step, list[bytes]]:
        header, frames, _ = journal.parts(position)
        return decode_step(header, frames, journal.profile), frames

    for _, (step, frames) in journal.intact(read):
        stamp_ns = times.of(step.record)
        rgb_frame = frames[names.index("rgb")] if "rgb" in names else b""
        for topic, kind, data in messages.step(step.record, step.observation, rgb_frame, stamp_ns):
            if kind not in schemas:
                schemas[kind] = writer.register_schema(kind, "ros2msg", messages.definition(kind))
            full = f"/{step.record.robot}/{topic}"
            if full not in channels:
                channels[full] = writer.register_channel(full, "cdr", schemas[kind])
            writer.add_message(channels[full], stamp_ns, data, stamp_ns, step.record.sequence & 0xFFFFFFFF)
        written += 1
    writer.finish()
    return written
