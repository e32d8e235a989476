from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command, Step
from policyloop.dashboard.plotjuggler import PlotStream
from policyloop.dashboard.tail import Seen
from policyloop.errors import UsageError
from policyloop.wire.codec import encode_step


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What PlotJuggler's UDP server is: a socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        yield listener


def seen(step: Step, profile: RobotProfile) -> Seen:
    return Seen(0, step.record, encode_step(step, profile)[1:], time.monotonic(), 1_700_000_000 * 10**9, True)


def test_each_step_is_a_datagram_of_json(
    listener: socket.socket, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    stream = PlotStream(f"127.0.0.1:{listener.getsockname()[1]}")
    steps = [make_step(mini, i, robot="sim-0", command=Command((0.25, -0.5), ("slew",))) for i in range(3)]
    stream.send([seen(step, mini) for step in steps], mini)
    for step in steps:
        message = json.loads(listener.recv(65536))
        assert set(message) == {"timestamp", "sim-0"}
        assert message["timestamp"] == 1_700_000_000
        row = message["sim-0"]
        assert row["sequence"] == step.record.sequence
        assert row["command"] == {"linear": 0.25, "angular": -0.5}
        assert list(row["action"].values()) == pytest.approx(step.record.action.values)
        assert row["proprio"]["linear_vel"] == pytest.approx(float(step.observation["proprio"][0]))
        assert row["gate"] == "slew"
        assert sum(row["reward_terms"].values()) == pytest.approx(row["reward"])
    stream.close()


def test_a_robot_may_be_called_timestamp(
    listener: socket.socket, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    stream = PlotStream(f"127.0.0.1:{listener.getsockname()[1]}")
    stream.send([seen(make_step(mini, 0, robot="timestamp"), mini)], mini)
    assert json.loads(listener.recv(65536))["timestamp"] == 1_700_000_000
    stream.close()


def test_nobody_needs_to_listen_and_damage_stops_nothing(
    listener: socket.socket, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    stream = PlotStream(f"127.0.0.1:{listener.getsockname()[1]}")
    whole = seen(make_step(mini, 1), mini)
    stream.send([Seen(0, whole.record, [b""], 0.0, 0, True), whole], mini)
    assert json.loads(listener.recv(65536))["r0"]["sequence"] == 1
    listener.close()
    for _ in range(3):
        stream.send([whole], mini)
    stream.close()


@pytest.mark.parametrize("address", ["", "9870", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999999"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(UsageError, match="--plotjuggler"):
        PlotStream(address)
