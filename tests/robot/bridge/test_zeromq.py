from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from policyloop.core.step import Command, TimedCommand
from policyloop.errors import ConnectionFailed, SafetyRefusal, UsageError
from policyloop.robot.bridge.zeromq import ZeroMqBridge

SIZES = {"states": np.array([0, 1, 2]), "proprio_size": 5, "targets": 2}
MS = 1_000_000
SOON_NS, LATER_NS = 30 * MS, 20_000 * MS


def now_ns() -> int:
    return time.monotonic_ns()


def frame(*values: float) -> bytes:
    return struct.pack(f"<I{len(values)}f", len(values), *values)


def order(*values: float) -> TimedCommand:
    return TimedCommand(Command(values), 1, now_ns() + 1000 * MS)


@pytest.fixture(params=["ipc", "tcp", "tcp6"])
def bridge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ZeroMqBridge]:
    address = {"ipc": f"ipc://{tmp_path}/robot", "tcp": "tcp://localhost:0", "tcp6": "tcp://[::1]:0"}[request.param]
    bridge = ZeroMqBridge(address, **SIZES)
    yield bridge
    bridge.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def connect(context: zmq.Context[Any], kind: int, bridge: ZeroMqBridge) -> zmq.Socket[bytes]:
    link = context.socket(kind)
    link.setsockopt(zmq.RCVTIMEO, 20_000)
    link.setsockopt(zmq.IPV6, 1)
    link.connect(bridge.address)
    return link


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_a_state_goes_in_and_targets_come_out(bridge: ZeroMqBridge, context: zmq.Context[Any], kind: int) -> None:
    with connect(context, kind, bridge) as controller:
        for n in range(3):
            controller.send(frame(n, 2, 3))
            assert bridge.wait(now_ns() + LATER_NS)
            assert bridge.read().arrays["proprio"].tolist() == [n, 2, 3, 0, 0]
            bridge.write(order(0.5, -0.25))
            bridge.write(order(1, 1))
            assert controller.recv() == frame(0.5, -0.25)
    assert bridge.driving and not bridge.begin_episode()


def test_what_was_read_and_forgotten_is_answered_without_a_command(
    bridge: ZeroMqBridge, context: zmq.Context[Any]
) -> None:
    with pytest.raises(ConnectionFailed):
        bridge.read()
    with connect(context, zmq.REQ, bridge) as controller:
        controller.send(frame(1, 2, 3))
        assert bridge.wait(now_ns() + LATER_NS)
        bridge.read()
        assert not bridge.wait(now_ns() + SOON_NS)
        assert controller.recv() == frame()


@pytest.mark.parametrize(
    "message",
    [
        [struct.pack("<I", 2**32 - 1)],
        [frame(1, 2)],
        [frame(1, 2, 3)[:-1]],
        [b""],
        [b"x", frame(1, 2, 3)],
        [b""] * 50,
    ],
)
def test_who_sends_something_else_gets_no_command(
    bridge: ZeroMqBridge, context: zmq.Context[Any], caplog: pytest.LogCaptureFixture, message: list[bytes]
) -> None:
    with connect(context, zmq.DEALER, bridge) as controller:
        controller.send_multipart(message)
        deadline_ns = now_ns() + LATER_NS
        while not caplog.records and now_ns() < deadline_ns:
            assert not bridge.wait(now_ns() + SOON_NS)
        assert controller.recv_multipart()[-1] == frame()
    assert len(caplog.records) == 1


def test_a_huge_message_is_cut_off_by_zeromq(bridge: ZeroMqBridge, context: zmq.Context[Any]) -> None:
    with connect(context, zmq.DEALER, bridge) as controller, controller.get_monitor_socket(zmq.EVENT_DISCONNECTED) as m:
        controller.send(bytes(1_000_000))
        assert m.poll(20_000)
        assert not bridge.wait(now_ns() + SOON_NS)
        controller.disable_monitor()


def test_a_second_controller_gets_no_command_while_the_first_lives(
    bridge: ZeroMqBridge, context: zmq.Context[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with connect(context, zmq.REQ, bridge) as first, connect(context, zmq.REQ, bridge) as second:
        first.send(frame(1, 2, 3))
        assert bridge.wait(now_ns() + LATER_NS)
        bridge.read()
        bridge.write(order(0.5, 0.5))
        assert first.recv() == frame(0.5, 0.5)
        bridge._heard_ns = now_ns() + LATER_NS  # however slow this machine is
        second.send(frame(1, 2, 3))
        deadline_ns = now_ns() + LATER_NS
        while not caplog.records and now_ns() < deadline_ns:
            assert not bridge.wait(now_ns() + SOON_NS)
        assert second.recv() == frame()
        bridge._heard_ns = now_ns() - 1001 * MS
        second.send(frame(9, 2, 3))
        assert bridge.wait(now_ns() + LATER_NS)
        assert bridge.read().arrays["proprio"][0] == 9


def test_who_goes_without_its_answer_blocks_nobody(bridge: ZeroMqBridge, context: zmq.Context[Any]) -> None:
    controller = connect(context, zmq.DEALER, bridge)
    controller.send(frame(1, 2, 3))
    assert bridge.wait(now_ns() + LATER_NS)
    bridge.read()
    controller.close(linger=0)
    time.sleep(0.05)
    bridge.write(order(0.5, 0.5))
    assert not bridge.wait(now_ns() + SOON_NS)


def test_only_this_user_may_open_the_socket(tmp_path: Path) -> None:
    bridge = ZeroMqBridge(f"ipc://{tmp_path}/robot", **SIZES)
    assert (tmp_path / "robot").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="another program answers"):
        ZeroMqBridge(f"ipc://{tmp_path}/robot", **SIZES)
    bridge.close()
    assert not (tmp_path / "robot").exists()


def test_an_address_that_others_can_reach_is_refused() -> None:
    for address in ("tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://192.168.1.5:0"):
        with pytest.raises(SafetyRefusal) as refused:
            ZeroMqBridge(address, **SIZES)
        assert refused.value.exit_code == 6
    for address in ("inproc://x", "tcp://127.0.0.1", "robot"):
        with pytest.raises(UsageError):
            ZeroMqBridge(address, **SIZES)
