from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from policyloop.core.clock import VirtualClock
from policyloop.errors import ConfigError
from policyloop.robot.notify import Notifier

SECOND_NS = 1_000_000_000


class Supervisor(NamedTuple):
    """What systemd is to the program: a socket, and its name."""

    socket: socket.socket
    name: str

    def heard(self) -> list[list[str]]:
        """Return every message that is there, as lines."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages


def _path(folder: Path) -> tuple[str, str | bytes]:
    return str(folder / "notify"), str(folder / "notify")


def _abstract(folder: Path) -> tuple[str, str | bytes]:
    name = f"policyloop-{os.getpid()}-{folder.name}"
    return f"@{name}", b"\0" + name.encode()


@pytest.fixture(params=[_path, _abstract], ids=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Supervisor]:
    name, address = request.param(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.setblocking(False)
        yield Supervisor(listening, name)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(5 * SECOND_NS)


@pytest.fixture
def make(supervisor: Supervisor, clock: VirtualClock) -> Iterator[Callable[..., Notifier]]:
    """Return `make(status=..., **environment)`: a notifier that speaks to the supervisor."""
    made: list[Notifier] = []

    def start(status: Callable[[], str] = lambda: "drives", **environment: object) -> Notifier:
        texts = {"NOTIFY_SOCKET": supervisor.name, **environment}
        made.append(Notifier(clock, status, {name: str(text) for name, text in texts.items()}))
        return made[-1]

    yield start
    for notifier in made:
        notifier.stopping()


def signs_of_life(messages: list[list[str]]) -> int:
    return sum("WATCHDOG=1" in message for message in messages)


def fill(supervisor: Supervisor) -> None:
    """Send until not even a sender with an empty buffer of its own gets anything through."""
    sent = 1
    while sent:
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(BlockingIOError):
            sender.setblocking(False)
            while True:
                sender.sendto(b"STATUS=another", supervisor.socket.getsockname())
                sent += 1


def test_the_program_is_ready_when_its_first_tick_is_done_and_says_so_once(
    make: Callable[..., Notifier], supervisor: Supervisor, clock: VirtualClock
) -> None:
    notifier = make(WATCHDOG_USEC=1_000_000, WATCHDOG_PID=os.getpid())
    notifier.alive()  # before the first tick
    assert supervisor.heard() == []
    clock.advance_ns(SECOND_NS // 10)
    notifier.alive()
    assert supervisor.heard() == [["READY=1", "WATCHDOG=1", "STATUS=drives"]]
    clock.advance_ns(SECOND_NS)
    notifier.alive()
    assert supervisor.heard() == [["WATCHDOG=1", "STATUS=drives"]]


def test_signs_of_life_come_three_times_in_an_interval_whatever_the_rate(
    make: Callable[..., Notifier], supervisor: Supervisor, clock: VirtualClock
) -> None:
    notifier = make(WATCHDOG_USEC=900_000)
    heard = 0
    for _ in range(451):  # nine seconds at 50 Hz
        notifier.alive()
        heard += signs_of_life(supervisor.heard())
        clock.advance_ns(SECOND_NS // 50)
    assert heard == 30


def test_a_loop_that_hangs_is_silent(
    make: Callable[..., Notifier], supervisor: Supervisor, clock: VirtualClock
) -> None:
    notifier = make(WATCHDOG_USEC=1_000_000)
    notifier.alive()
    notifier.alive()
    assert signs_of_life(supervisor.heard()) == 1
    clock.advance_ns(60 * SECOND_NS)
    assert supervisor.heard() == []
    notifier.alive()
    assert signs_of_life(supervisor.heard()) == 1


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": 0}, {"WATCHDOG_USEC": 1_000_000, "WATCHDOG_PID": os.getppid()}]
)
def test_where_no_sign_of_life_is_expected_of_this_process_it_says_only_how_it_is(
    environment: dict[str, int], make: Callable[..., Notifier], supervisor: Supervisor, clock: VirtualClock
) -> None:
    notifier = make(**environment)
    for _ in range(121):
        notifier.alive()
        clock.advance_ns(SECOND_NS // 10)
    heard = supervisor.heard()
    assert heard == [["READY=1", "STATUS=drives"], ["STATUS=drives"], ["STATUS=drives"]]


def test_a_full_socket_is_passed_over_and_tried_again_in_the_next_tick(
    make: Callable[..., Notifier], supervisor: Supervisor, clock: VirtualClock
) -> None:
    notifier = make(WATCHDOG_USEC=1_000_000)
    fill(supervisor)
    notifier.alive()
    notifier.alive()  # returns: that is the point
    assert ["STATUS=another"] in (full := supervisor.heard())
    assert signs_of_life(full) == 0
    clock.advance_ns(1)
    notifier.alive()
    assert supervisor.heard() == [["READY=1", "WATCHDOG=1", "STATUS=drives"]]


def test_a_supervisor_that_is_gone_does_not_disturb(make: Callable[..., Notifier], supervisor: Supervisor) -> None:
    notifier = make(WATCHDOG_USEC=1_000_000)
    supervisor.socket.close()
    notifier.alive()
    notifier.alive()
    notifier.stopping()


def test_stopping_is_the_last_thing_that_is_said(
    make: Callable[..., Notifier], supervisor: Supervisor, clock: VirtualClock
) -> None:
    notifier = make(WATCHDOG_USEC=1_000_000)
    notifier.stopping()
    clock.advance_ns(SECOND_NS)
    notifier.alive()
    notifier.alive()
    notifier.stopping()
    assert supervisor.heard() == [["STOPPING=1", "STATUS=stopping"]]


def test_a_status_stays_one_line(make: Callable[..., Notifier], supervisor: Supervisor) -> None:
    notifier = make(status=lambda: "one\nREADY=0\n")
    notifier.alive()
    notifier.alive()
    assert supervisor.heard() == [["READY=1", "STATUS=one READY=0"]]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_supervisor_nothing_happens(environment: dict[str, str], clock: VirtualClock) -> None:
    notifier = Notifier(clock, lambda: "drives", environment)
    notifier.alive()
    notifier.alive()
    notifier.stopping()


@pytest.mark.parametrize("name", ["WATCHDOG_USEC", "WATCHDOG_PID"])
def test_an_environment_made_by_hand_is_refused(name: str, clock: VirtualClock) -> None:
    with pytest.raises(ConfigError, match="'soon'"):
        Notifier(clock, lambda: "", {name: "soon"})
