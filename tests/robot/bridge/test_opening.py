"""Every form of `--io`, and what is none."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import TimedCommand
from policyloop.errors import ConfigError, ConnectionFailed, PolicyloopError, SafetyRefusal, UsageError
from policyloop.robot.bridge import opening
from policyloop.robot.bridge.opening import IO_FORMS, open_bridge
from policyloop.robot.bridge.record import IN_POLICY_MODE
from policyloop.robot.bridge.shared_file import SharedFile
from policyloop.robot.bridge.shared_memory import SharedMemoryBridge
from policyloop.robot.bridge.sockets import SocketBridge
from policyloop.robot.bridge.zeromq import ZeroMqBridge

Bridge = SharedMemoryBridge | SocketBridge | ZeroMqBridge


@pytest.fixture
def open_(lite3: RobotProfile) -> Iterator[Callable[[str], Bridge]]:
    """Return `open_(io)`: the Lite3's bridge."""
    opened: list[Bridge] = []

    def build(io: str) -> Bridge:
        opened.append(open_bridge(io, lite3, "dog"))  # type: ignore[arg-type]
        return opened[-1]

    yield build
    for bridge in opened:
        bridge.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_file_is_shared_memory_that_says_what_the_policy_was_made_for(
    open_: Callable[[str], Bridge], tmp_path: Path, lite3: RobotProfile
) -> None:
    bridge = open_(f"bridge:{tmp_path / 'robot'}")
    assert isinstance(bridge, SharedMemoryBridge)
    controller = SharedFile.open(tmp_path / "robot")
    header = controller.header
    assert (header.owner_floats, header.guest_floats) == (12, 33)
    assert header.digest.hex() == lite3.digest
    assert (header.kp, header.kd) == ((30.0,) * 12, (1.0,) * 12)
    assert header.pose == pytest.approx((0.0, -0.65, 1.3) * 4)
    assert header.longest_validity_ns == 100_000_000
    controller.writer.write(5, IN_POLICY_MODE, np.arange(33))
    observation = bridge.read()
    assert observation.arrays["proprio"].tolist() == [*range(33), *[0] * 12]
    assert observation.followed
    controller.close()


def test_a_bridge_without_a_file_is_named_after_the_robot(
    open_: Callable[[str], Bridge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "shared_path", lambda robot: tmp_path / f"of-{robot}")
    assert isinstance(open_("bridge"), SharedMemoryBridge)
    assert (tmp_path / "of-dog").is_file()


def test_a_robot_without_a_table_of_joints_has_no_gains_to_tell(walker: RobotProfile, tmp_path: Path) -> None:
    prompt = msgspec.structs.replace(walker.rates, control_hz=50.0, command_valid_s=0.05)
    bridge = open_bridge(f"bridge:{tmp_path / 'robot'}", msgspec.structs.replace(walker, rates=prompt), "w")
    controller = SharedFile.open(tmp_path / "robot")
    assert (controller.header.owner_floats, controller.header.guest_floats) == (3, 8)
    assert controller.header.kp == controller.header.pose == ()
    assert controller.header.longest_validity_ns == 50_000_000
    controller.close()
    bridge.close()


def test_commands_that_are_valid_for_too_long_are_refused_by_the_profiles_own_words(
    walker: RobotProfile, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"'walker' are valid for 0\.2 s, and a controller obeys none .* 0\.1 s"
    ) as caught:
        open_bridge(f"bridge:{tmp_path / 'robot'}", walker, "w")
    assert "command_valid_s" in caught.value.remedy
    assert not (tmp_path / "robot").exists()


def test_a_unix_socket(open_: Callable[[str], Bridge], tmp_path: Path) -> None:
    bridge = open_(f"unix:{tmp_path / 'sock'}")
    assert isinstance(bridge, SocketBridge)
    mode = (tmp_path / "sock").stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    with pytest.raises(ConnectionFailed, match="no state has come"):
        bridge.read()


@pytest.mark.parametrize("host", ["", "127.0.0.1:", "localhost:"])
def test_a_tcp_port_is_that_of_this_machine(host: str, open_: Callable[[str], Bridge]) -> None:
    port = free_port()
    bridge = open_(f"tcp:{host}{port}")
    assert isinstance(bridge, SocketBridge)
    assert bridge.port == port
    socket.create_connection(("127.0.0.1", port), timeout=10).close()


def test_a_zeromq_address(open_: Callable[[str], Bridge], tmp_path: Path) -> None:
    assert isinstance(open_(f"zmq:ipc://{tmp_path / 'zmq'}"), ZeroMqBridge)


def test_states_are_of_the_profiles_sizes(open_: Callable[[str], Bridge], tmp_path: Path, lite3: RobotProfile) -> None:
    bridge = open_(f"unix:{tmp_path / 'sock'}")
    assert isinstance(bridge, SocketBridge)
    with socket.socket(socket.AF_UNIX) as controller:
        controller.settimeout(10)
        controller.connect(str(tmp_path / "sock"))
        controller.sendall(b"\x21\0\0\0" + np.arange(33, dtype="<f4").tobytes())
        assert bridge.wait(bridge._clock.now_ns() + 10_000_000_000)
        assert bridge.read().arrays["proprio"].tolist() == [*range(33), *[0] * 12]
        valid_ns = bridge._clock.now_ns() + 10_000_000_000
        bridge.write(TimedCommand(msgspec.structs.replace(lite3.stop(), damped=False), 1, valid_ns))
        assert controller.recv(4) == b"\x0c\0\0\0"


@pytest.mark.parametrize(
    "io",
    [
        "",
        "ros",
        "simulator",
        "unix",
        "unix:",
        "tcp",
        "tcp:",
        "tcp:http",
        "tcp:127.0.0.1",
        "tcp:h:p",
        "tcp:-1",
        "zmq:",
        "Bridge",
        "bridges:x",
        " bridge",
        "udp:5",
    ],
)
def test_anything_else_is_a_usage_error_that_names_the_forms(io: str, lite3: RobotProfile) -> None:
    with pytest.raises(UsageError) as caught:
        open_bridge(io, lite3, "dog")
    assert caught.value.exit_code == 2
    assert f"--io {io}" in caught.value.message
    assert caught.value.remedy == f"use sim, {IO_FORMS}; or module:factory, a robot of your own"


@pytest.mark.parametrize("io", ["tcp:0.0.0.0:5123", "tcp:192.0.2.1:5123", "zmq:tcp://*:5123"])
def test_what_others_could_reach_is_refused(io: str, lite3: RobotProfile) -> None:
    with pytest.raises(SafetyRefusal):
        open_bridge(io, lite3, "dog")


def test_a_port_that_is_none_is_an_error_with_an_exit_code(lite3: RobotProfile) -> None:
    with pytest.raises(PolicyloopError):
        open_bridge("tcp:99999", lite3, "dog")


@pytest.mark.parametrize("io", ["bridge", "unix:/tmp/x"])
def test_a_robot_with_a_camera_is_refused(io: str, mini: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="'rover-mini' has a camera, and a bridge carries no pictures") as caught:
        open_bridge(io, mini, "rover")
    assert caught.value.exit_code == 3
    assert "[camera]" in caught.value.remedy
