from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policyloop.core.step import Command, TimedCommand
from policyloop.errors import ConfigError, ConnectionFailed
from policyloop.robot.bridge.record import DRIVE, IN_POLICY_MODE
from policyloop.robot.bridge.shared_file import SharedFile
from policyloop.robot.bridge.shared_memory import SharedMemoryBridge

SIZES = {"proprio_size": 5, "targets": 2, "digest": "ab" * 32}


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[SharedMemoryBridge]:
    bridge = SharedMemoryBridge(tmp_path / "robot", states=np.array([0, 1, 4]), **SIZES)
    yield bridge
    bridge.close()


@pytest.fixture
def controller(bridge: SharedMemoryBridge, tmp_path: Path) -> Iterator[SharedFile]:
    file = SharedFile.open(tmp_path / "robot")
    yield file
    file.close()


def order(sequence: int, *values: float, damped: bool = False) -> TimedCommand:
    return TimedCommand(Command(values, damped=damped), sequence, 1000)


def test_no_state_yet_is_an_error_that_says_what_to_do(bridge: SharedMemoryBridge) -> None:
    with pytest.raises(ConnectionFailed, match="start the controller"):
        bridge.read()
    assert not bridge.driving


def test_a_state_goes_to_its_places_and_grows_old(bridge: SharedMemoryBridge, controller: SharedFile) -> None:
    controller.writer.write(123, IN_POLICY_MODE, [1, 2, 3])
    for _ in range(2):
        observation = bridge.read()
        assert observation.arrays["proprio"].dtype == np.float32
        assert observation.arrays["proprio"].tolist() == [1, 2, 0, 0, 3]
        assert observation.captured_ns == 123
        assert bridge.driving
    controller.writer.write(124, 0, [1, 2, 4])
    assert bridge.read().captured_ns == 124 and not bridge.driving


def test_a_torn_state_leaves_the_one_before(bridge: SharedMemoryBridge, controller: SharedFile, tmp_path: Path) -> None:
    controller.writer.write(123, 0, [1, 2, 3])
    bridge.read()
    with (tmp_path / "robot").open("r+b") as file:
        file.seek(controller.header.guest_offset + 40)
        file.write(b"\xff")
    assert bridge.read().captured_ns == 123


def test_a_command_arrives_with_its_end(bridge: SharedMemoryBridge, controller: SharedFile) -> None:
    bridge.write(order(1, 0.5, -0.25))
    record = controller.reader.read()
    assert record is not None and (record.time_ns, record.flags) == (1000, DRIVE)
    assert record.values.tolist() == [0.5, -0.25]


@pytest.mark.parametrize(
    "wrong",
    [
        order(2, 0.5, 0.5, damped=True),
        order(2, 0.5),
        order(2, 0.5, 0.5, 0.5),
        order(2, 0.5, float("nan")),
        order(2, 0.5, 1e39),
    ],
)
def test_what_cannot_be_driven_damps(bridge: SharedMemoryBridge, controller: SharedFile, wrong: TimedCommand) -> None:
    bridge.write(order(1, 0.5, 0.5))
    bridge.write(wrong)
    record = controller.reader.read()
    assert record is not None and record.flags == 0 and record.values.tolist() == [0, 0]


def test_an_older_command_does_not_take_the_place_of_a_newer_one(
    bridge: SharedMemoryBridge, controller: SharedFile
) -> None:
    bridge.write(order(5, 0.5, 0.5, damped=True))
    bridge.write(order(4, 0.5, 0.5))
    record = controller.reader.read()
    assert record is not None and record.flags == 0


def test_after_the_end_nothing_is_written(bridge: SharedMemoryBridge, controller: SharedFile) -> None:
    bridge.write(order(1, 0.5, 0.5))
    bridge.close()
    bridge.write(order(2, 0.1, 0.1))
    bridge.close()
    record = controller.reader.read()
    assert record is not None and record.values.tolist() == [0.5, 0.5]
    assert not bridge.begin_episode()


@pytest.mark.parametrize("states", [[], [0, 0], [-1], [5], [[0, 1]], list(range(1025))])
def test_places_that_make_no_sense_are_refused(tmp_path: Path, states: list[int]) -> None:
    with pytest.raises(ConfigError):
        SharedMemoryBridge(tmp_path / "robot", states=np.array(states, np.intp), **SIZES)
    assert not (tmp_path / "robot").exists()


def test_threads_that_write_at_the_same_time_are_never_seen_half_done(
    bridge: SharedMemoryBridge, controller: SharedFile
) -> None:
    stop, sequence = threading.Event(), itertools.count(1)

    def write(value: float) -> None:
        while not stop.is_set():
            bridge.write(order(next(sequence), value, value))

    threads = [threading.Thread(target=write, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    try:
        seen, deadline_s = 0, time.monotonic() + 30
        while seen < 300 and time.monotonic() < deadline_s:
            record = controller.reader.read()
            if record is not None:
                seen += 1
                assert record.values.tolist() in ([1, 1], [2, 2])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert seen == 300
