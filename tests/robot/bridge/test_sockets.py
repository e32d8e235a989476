from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from policyloop.core.step import Command, TimedCommand
from policyloop.errors import ConnectionFailed, SafetyRefusal, StorageError, UsageError
from policyloop.robot.bridge.listener import listen_tcp
from policyloop.robot.bridge.sockets import SocketBridge

SIZES = {"states": np.array([0, 1, 2]), "proprio_size": 5, "targets": 2}
MS = 1_000_000
SOON_NS, LATER_NS = 30 * MS, 20_000 * MS


def now_ns() -> int:
    return time.monotonic_ns()


def frame(*values: float) -> bytes:
    return struct.pack(f"<I{len(values)}f", len(values), *values)


def order(*values: float, damped: bool = False) -> TimedCommand:
    return TimedCommand(Command(values, damped=damped), 1, now_ns() + 1000 * MS)


@pytest.fixture(params=["unix", "tcp", "tcp6"])
def bridge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SocketBridge]:
    if request.param == "unix":
        bridge = SocketBridge.unix(tmp_path / "robot.sock", **SIZES)
    else:
        bridge = SocketBridge.tcp("127.0.0.1" if request.param == "tcp" else "[::1]", 0, **SIZES)
    yield bridge
    bridge.close()


def connect(bridge: SocketBridge) -> socket.socket:
    """Connect as a controller does, and send nothing."""
    link = socket.socket(bridge._listener.family)
    link.settimeout(20)
    link.connect(bridge._listener.getsockname())
    return link


@pytest.fixture
def controller(bridge: SocketBridge) -> Iterator[socket.socket]:
    with connect(bridge) as link:
        yield link


def received(link: socket.socket, size: int) -> bytes:
    return link.recv(size, socket.MSG_WAITALL)


def nothing_comes(bridge: SocketBridge) -> None:
    """Let the bridge accept, receive and refuse, however often this machine pauses in between."""
    for _ in range(4):
        assert not bridge.wait(now_ns() + SOON_NS // 3)


def is_closed(link: socket.socket) -> bool:
    try:
        return link.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_state_goes_in_and_targets_come_out(bridge: SocketBridge, controller: socket.socket) -> None:
    for n in range(3):
        controller.sendall(frame(n, 2, 3))
        assert bridge.wait(now_ns() + LATER_NS)
        before_ns = now_ns()
        observation = bridge.read()
        assert observation.arrays["proprio"].tolist() == [n, 2, 3, 0, 0]
        assert observation.captured_ns <= before_ns
        assert bridge.read().captured_ns == observation.captured_ns
        bridge.write(order(0.5, -0.25))
        assert received(controller, 12) == frame(0.5, -0.25)
    assert bridge.driving and not bridge.begin_episode()


def test_nothing_comes_before_the_deadline(bridge: SocketBridge) -> None:
    with pytest.raises(ConnectionFailed, match="start the controller"):
        bridge.read()
    began_ns = now_ns()
    assert not bridge.wait(began_ns + SOON_NS)
    assert now_ns() - began_ns >= SOON_NS
    assert not bridge.wait(began_ns)  # over already: looks once


def test_each_frame_is_answered_exactly_once(bridge: SocketBridge, controller: socket.socket) -> None:
    bridge.write(order(1, 1))  # nobody asked
    controller.sendall(frame(1, 2, 3) + frame(4, 5, 6))
    assert bridge.wait(now_ns() + LATER_NS)
    bridge.write(order(1, 1))  # it was not read yet
    bridge.read()
    bridge.write(order(0.5, 0.5))
    bridge.write(order(1, 1))
    assert received(controller, 12) == frame(0.5, 0.5)
    assert bridge.wait(now_ns() + LATER_NS) and bridge.wait(now_ns())  # the second one, and it stays
    assert bridge.read().arrays["proprio"][0] == 4
    nothing_comes(bridge)  # it was forgotten: no command
    assert received(controller, 4) == frame()
    bridge.write(order(1, 1))
    controller.settimeout(0.05)
    with pytest.raises(TimeoutError):
        controller.recv(1)


def test_an_order_to_damp_is_a_reply_without_targets(bridge: SocketBridge, controller: socket.socket) -> None:
    controller.sendall(frame(1, 2, 3))
    assert bridge.wait(now_ns() + LATER_NS)
    bridge.read()
    bridge.write(order(0.5, 0.5, damped=True))
    assert received(controller, 4) == frame()


def test_another_thread_may_answer_and_then_the_loop_does_not(bridge: SocketBridge, controller: socket.socket) -> None:
    for n in range(50):
        controller.sendall(frame(n, 2, 3))
        assert bridge.wait(now_ns() + LATER_NS)
        bridge.read()
        watchdog = threading.Thread(target=bridge.write, args=(order(0.0, 0.0, damped=True),))
        watchdog.start()
        bridge.write(order(0.5, 0.5))
        watchdog.join()
        answer = received(controller, 4)
        assert answer in (frame(), frame(0.5, 0.5)[:4])
        if answer != frame():
            received(controller, 8)
    controller.setblocking(False)
    with pytest.raises(BlockingIOError):
        controller.recv(1)


@pytest.mark.parametrize("count", [0, 2, 4, 2**32 - 1])
def test_who_lies_about_the_size_is_cut_off_with_one_line(
    bridge: SocketBridge, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        with connect(bridge) as link:
            link.sendall(struct.pack("<I", count) + bytes(8))
            nothing_comes(bridge)
            assert is_closed(link)
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["use the same profile"]


@pytest.mark.parametrize("sent", [1, 4, 15])
def test_half_a_frame_blocks_nobody_and_is_cut_off(
    bridge: SocketBridge, caplog: pytest.LogCaptureFixture, sent: int
) -> None:
    with connect(bridge) as link:
        link.sendall(frame(1, 2, 3)[:sent])
        deadline_ns = now_ns() + LATER_NS
        while "send whole frames" not in caplog.text:
            assert not bridge.wait(now_ns() + SOON_NS) and now_ns() < deadline_ns
        assert is_closed(link)


def test_who_goes_in_the_middle_of_a_frame_makes_room(bridge: SocketBridge) -> None:
    with connect(bridge) as link:
        link.sendall(frame(1, 2, 3)[:9])
        nothing_comes(bridge)
    with connect(bridge) as link:
        nothing_comes(bridge)
        link.sendall(frame(1, 2, 3))
        assert bridge.wait(now_ns() + LATER_NS)
        bridge.read()
    bridge.write(order(0.5, 0.5))  # nobody is there to read it
    nothing_comes(bridge)


def test_who_sends_and_never_reads_fills_no_memory_and_blocks_nobody(bridge: SocketBridge) -> None:
    with connect(bridge) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        link.setblocking(False)
        answered, deadline_ns = 0, now_ns() + LATER_NS
        flood, open_ = frame(1, 2, 3) * 1000, True
        while open_ and now_ns() < deadline_ns:
            try:
                link.send(flood[: len(flood)])
            except BlockingIOError:
                pass
            except OSError:
                open_ = False
            began_ns = now_ns()
            if bridge.wait(began_ns + 5 * MS):
                bridge.read()
                bridge.write(order(0.5, 0.5))
                answered += 1
            open_ = open_ and (bridge._connection is not None or answered == 0)
            if bridge._connection is not None:
                assert len(bridge._connection._out) <= 12
                assert len(bridge._connection._parser._data) <= 16
            if answered > 2000:
                break
    assert answered > 0


def test_a_reply_that_nobody_takes_ends_the_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sizes = {"states": np.arange(1), "proprio_size": 1, "targets": 1024}
    bridge = SocketBridge.unix(tmp_path / "robot.sock", **sizes)
    with connect(bridge) as link:
        nothing_comes(bridge)
        bridge._connection._peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        deadline_ns = now_ns() + LATER_NS
        link.setblocking(False)
        while "does not read its replies" not in caplog.text and now_ns() < deadline_ns:
            with suppress(OSError):
                link.send(frame(1.0))
            if bridge.wait(now_ns() + 10 * MS):
                bridge.read()
                bridge.write(order(*(0.5,) * 1024))
                assert bridge._connection is None or len(bridge._connection._out) <= 4100
    assert "does not read its replies" in caplog.text
    bridge.close()


def test_a_second_controller_is_refused_while_the_first_lives(
    bridge: SocketBridge, controller: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    nothing_comes(bridge)
    bridge._connection.heard_ns = now_ns() + LATER_NS  # however slow this machine is
    with connect(bridge) as second:
        nothing_comes(bridge)
        assert is_closed(second)
    assert "another controller is connected already" in caplog.text
    controller.sendall(frame(1, 2, 3))
    assert bridge.wait(now_ns() + LATER_NS)
    bridge.read()


def test_a_silent_controller_loses_its_place_to_another(bridge: SocketBridge, controller: socket.socket) -> None:
    nothing_comes(bridge)
    bridge._connection.heard_ns -= 1001 * MS
    with connect(bridge) as second:
        second.sendall(frame(7, 2, 3))
        assert bridge.wait(now_ns() + LATER_NS)
        assert bridge.read().arrays["proprio"][0] == 7
        assert is_closed(controller)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "[::]", "example.org", ""])
def test_a_port_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(SafetyRefusal, match="no authentication") as refused:
        listen_tcp(host, 0)
    assert refused.value.exit_code == 6


def test_a_taken_port_is_an_error(bridge: SocketBridge) -> None:
    with listen_tcp("localhost", 0) as taken, pytest.raises(ConnectionFailed):
        listen_tcp("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConnectionFailed):
        listen_tcp("127.0.0.1", 70000)


def test_only_this_user_may_open_the_socket(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        bridge = SocketBridge.unix(tmp_path / "robot.sock", **SIZES)
    finally:
        os.umask(before)
    assert (tmp_path / "robot.sock").stat().st_mode & 0o777 == 0o600
    bridge.close()
    assert not (tmp_path / "robot.sock").exists()


def test_a_dead_programs_socket_is_taken_over_and_a_living_ones_is_not(tmp_path: Path) -> None:
    path = tmp_path / "robot.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    bridge = SocketBridge.unix(path, **SIZES)
    with pytest.raises(UsageError, match="another program answers"):
        SocketBridge.unix(path, **SIZES)
    bridge.close()
    path.write_text("something else")
    with pytest.raises(StorageError):
        SocketBridge.unix(path, **SIZES)
    assert path.read_text() == "something else"
    with pytest.raises(StorageError):
        SocketBridge.unix(tmp_path / ("x" * 200), **SIZES)
