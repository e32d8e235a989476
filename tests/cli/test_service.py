"""`policyloop run` as a service: what it tells systemd, and what the shipped units ask of systemd."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest
import typer.main

from policyloop.cli import app

UNITS = Path(__file__).parents[2] / "systemd"
NAMES = ("policyloop-run.service", "policyloop-gateway.service")
START_S = 60.0


class Service:
    """A program under a supervisor's eyes, as systemd would start it.

    Args:
        folder: For the socket and for what it prints.
        arguments: Of `policyloop`.
    """

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "1000000"}
        program = [sys.executable, "-m", "policyloop", *map(str, arguments)]
        with (folder / "output").open("w") as output:
            self.process = subprocess.Popen(
                ["sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh", *program],
                stdout=output,
                stderr=output,
                cwd=folder,
                env={**environment, "OMP_NUM_THREADS": "1"},
            )

    def hear(self, seconds: float) -> list[str]:
        """Return the lines of the next message; empty if there is none in time."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return []

    def drain(self) -> list[str]:
        """Return the lines of everything that was said so far."""
        lines = []
        while message := self.hear(1e-6):
            lines += message
        return lines

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._socket.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Return `start(*arguments)`: `policyloop` under a supervisor; killed when the test ends."""
    started: list[Service] = []

    def begin(*arguments: object) -> Service:
        started.append(Service(tmp_path, *arguments))
        return started[-1]

    yield begin
    for service in started:
        service.close()


@pytest.fixture
def driving(start: Callable[..., Service], cloned: Path, tmp_path: Path) -> Service:
    """`policyloop run` in simulation, on a store of its own: a version dies on probation when the test kills it."""
    store = shutil.copytree(cloned / "store", tmp_path / "store", symlinks=True)
    return start("run", "--profile", "rover-mini", "--policy", store, "--big-cores")


def test_the_supervisor_hears_when_it_is_ready_that_it_lives_and_that_it_stops(
    driving: Service, tmp_path: Path
) -> None:
    first = driving.hear(START_S)
    assert first[0] == "READY=1", (tmp_path / "output").read_text()
    assert first[2].startswith("STATUS=disarmed, policy 1, 0 swaps")
    started_s = time.monotonic()
    assert ["WATCHDOG=1" in driving.hear(3.0) for _ in range(3)] == [True] * 3
    assert time.monotonic() - started_s < 3.0
    driving.process.send_signal(signal.SIGTERM)
    stopped_s = time.monotonic()
    assert driving.process.wait(10) == 0
    assert time.monotonic() - stopped_s < 2.0
    assert driving.drain()[-2:] == ["STOPPING=1", "STATUS=stopping"]


def test_a_program_that_hangs_gives_no_sign_of_life_until_it_goes_on(driving: Service) -> None:
    assert driving.hear(START_S)
    driving.process.send_signal(signal.SIGSTOP)
    os.waitpid(driving.process.pid, os.WUNTRACED)
    driving.drain()
    assert driving.hear(1.5) == []  # longer than the watchdog waits
    driving.process.send_signal(signal.SIGCONT)
    assert "WATCHDOG=1" in driving.hear(3.0)


def test_a_robot_without_a_policy_is_never_ready(start: Callable[..., Service], tmp_path: Path) -> None:
    service = start("run", "--profile", "rover-mini", "--policy", tmp_path / "nowhere")
    assert service.process.wait(START_S) == 1
    assert service.drain() == []


@pytest.mark.parametrize("priority", [-1, 81])
def test_a_priority_that_starves_the_system_is_refused(priority: int, policyloop: Callable[..., tuple]) -> None:  # type: ignore[type-arg]
    code, _, err = policyloop("run", "--policy", "nowhere", "--real-time", priority)
    assert code == 2
    assert "real-time" in err


def read(name: str) -> RawConfigParser:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((UNITS / name).read_text())
    assert unit.sections() == ["Unit", "Service", "Install"]
    return unit


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_runs_without_rights_and_comes_back(name: str) -> None:
    service = read(name)["Service"]
    assert service["User"] == "policyloop"
    assert service["Restart"] == "always"
    assert service["RestartSec"] == "2"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == ""
    assert service["ProtectSystem"] == "strict"
    assert "/var/lib/policyloop" in service["ReadWritePaths"].split()
    assert read(name)["Install"]["WantedBy"] == "multi-user.target"


def test_the_robots_unit_is_watched_and_may_run_in_real_time() -> None:
    service = read("policyloop-run.service")["Service"]
    assert service["Type"] == "notify"
    assert service["NotifyAccess"] == "main"
    assert service["WatchdogSec"] == "1"
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["TimeoutStopSec"]) >= 2  # the program takes two at most
    assert service["LimitRTPRIO"] == "80"
    assert service["RestrictRealtime"] == "no"


@pytest.mark.parametrize("name", NAMES)
def test_a_units_command_line_is_one_that_the_program_knows(name: str) -> None:
    program, command, *arguments = read(name)["Service"]["ExecStart"].replace("\\\n", " ").split()
    assert program == "/opt/policyloop/bin/policyloop"
    assert arguments.pop().startswith("$POLICYLOOP_")
    known = typer.main.get_group(app).commands[command]
    known.make_context(command, arguments)  # raises if it is not


@pytest.fixture
def verify(tmp_path: Path) -> Callable[[str], str]:
    """Return `verify(text)`: what systemd has to say about a unit."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NOT TESTED, there is no systemd-analyze: apt install systemd")

    def check(text: str) -> str:
        unit = tmp_path / "policyloop-tested.service"
        unit.write_text(text.replace("/opt/policyloop/bin/policyloop", "/bin/true"))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
        return "\n".join(line for line in done.stderr.splitlines() if "policyloop-tested" in line)

    return check


@pytest.mark.parametrize("name", NAMES)
def test_systemd_has_nothing_to_say_against_a_unit(name: str, verify: Callable[[str], str]) -> None:
    text = (UNITS / name).read_text()
    assert verify(text) == ""
    assert "RestartSecs" in verify(text.replace("RestartSec=", "RestartSecs="))
