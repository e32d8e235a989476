"""Child processes: they end when they are told to, and never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policyloop.demo import processes
from policyloop.demo.processes import Crew
from policyloop.errors import PolicyloopError

Until = Callable[..., None]
ProcessesOf = Callable[..., list[int]]


def robot(spool: Path, *more: str) -> list[str]:
    """Return the command of a robot that drives until it is told to end."""
    return ["sim", "--profile", "rover-mini", "--spool", str(spool), *more]


@pytest.fixture
def start_robot(
    until: Until, processes_of: ProcessesOf, handles_sigterm: Callable[[int], bool]
) -> Callable[[Crew, Path], int]:
    """Return `start_robot(crew, spool)`: a robot that drives; returns its process id once it can be told to end."""

    def start(crew: Crew, spool: Path) -> int:
        crew.start(spool.name, robot(spool))
        until(lambda: [pid for pid in processes_of(spool) if handles_sigterm(pid)])
        (pid,) = processes_of(spool)
        return pid

    return start


StartRobot = Callable[[Crew, Path], int]


def test_children_end_with_the_crew(tmp_path: Path, start_robot: StartRobot, processes_of: ProcessesOf) -> None:
    with Crew(tmp_path / "logs") as crew:
        for name in ("first", "second"):
            start_robot(crew, tmp_path / name)
        assert len(processes_of(tmp_path)) == 2
        assert crew.running("first")
        crew.stop("first")
        assert len(processes_of(tmp_path)) == 1
        assert crew.running("second")
    assert processes_of(tmp_path) == []
    for name in ("first", "second"):  # they were asked, not killed: a robot says how it drove
        assert "steps/s" in (tmp_path / "logs" / f"{name}.log").read_text()


def test_children_end_when_the_work_fails(tmp_path: Path, start_robot: StartRobot, processes_of: ProcessesOf) -> None:
    with pytest.raises(ZeroDivisionError), Crew(tmp_path / "logs") as crew:
        start_robot(crew, tmp_path / "robot")
        raise ZeroDivisionError
    assert processes_of(tmp_path) == []


def test_a_child_that_does_not_heed_sigterm_is_killed(
    tmp_path: Path, start_robot: StartRobot, processes_of: ProcessesOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_GRACE_S", 0.3)
    with Crew(tmp_path / "logs") as crew:
        pid = start_robot(crew, tmp_path / "stubborn")
        os.kill(pid, signal.SIGSTOP)  # it will not see the signal that asks it to end
    assert processes_of(tmp_path) == []
    assert (tmp_path / "logs" / "stubborn.log").read_text() == ""


def test_a_child_is_out_of_reach_of_the_terminals_ctrl_c(tmp_path: Path, start_robot: StartRobot) -> None:
    with Crew(tmp_path / "logs") as crew:
        assert os.getpgid(start_robot(crew, tmp_path / "robot")) != os.getpgid(0)


def test_a_child_that_finished_runs_no_more(tmp_path: Path, until: Until) -> None:
    with Crew(tmp_path / "logs") as crew:
        crew.start("brief", robot(tmp_path / "spool", "--steps", "1"))
        until(lambda: not crew.running("brief"))


def test_a_child_that_failed_is_reported_with_its_last_words_and_what_to_do(tmp_path: Path, until: Until) -> None:
    with Crew(tmp_path / "logs") as crew:
        crew.start("lost", ["evaluate", str(tmp_path / "nowhere")])
        with pytest.raises(PolicyloopError, match=r"lost ended with exit code 1: .*no policy at") as caught:
            until(lambda: not crew.running("lost"))
    assert "--resume" in caught.value.remedy


def test_a_child_that_was_killed_is_reported(tmp_path: Path, start_robot: StartRobot, until: Until) -> None:
    with Crew(tmp_path / "logs") as crew:
        os.kill(start_robot(crew, tmp_path / "victim"), signal.SIGKILL)
        with pytest.raises(PolicyloopError, match="victim ended with exit code -9"):
            until(lambda: not crew.running("victim"))


def test_stopping_nobody_and_twice_is_fine(tmp_path: Path) -> None:
    with Crew(tmp_path / "logs") as crew:
        crew.start("brief", robot(tmp_path / "spool", "--steps", "1"))
        crew.stop("nobody")
        crew.stop("brief")
        crew.stop("brief")


def watching(parent: str) -> subprocess.CompletedProcess[str]:
    """Run a program that watches the process that `parent` names, and says how it ended."""
    program = """
import os, signal, threading
from policyloop.demo.processes import end_with_parent
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
end_with_parent(eval(PARENT))
print("asked to end" if stop.wait(1.2) else "left alone")
"""
    program = program.replace("eval(PARENT)", parent)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)


def test_a_living_parent_lets_the_child_live() -> None:
    assert watching("os.getppid()").stdout == "left alone\n"


def test_a_parent_that_is_not_there_asks_the_child_to_end() -> None:
    assert watching("os.getpid()").stdout == "asked to end\n"  # nobody is his own parent


@pytest.mark.parametrize("command", ["export", "journal"])
def test_every_command_can_be_a_child(tmp_path: Path, until: Until, command: str) -> None:
    with Crew(tmp_path / "logs") as crew:
        crew.start("child", [command, "--help"])
        until(lambda: not crew.running("child"))


PARENT = """
import sys, time
from pathlib import Path
from policyloop.demo.processes import Crew
with Crew(Path(sys.argv[1])) as crew:
    for index, command in enumerate(sys.argv[2].split("|")):
        crew.start(f"child-{index}", command.split())
    print("started", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def parent(tmp_path: Path, processes_of: ProcessesOf) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return `parent(*commands)`: a process that started these children; whatever is left is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*commands: list[str]) -> subprocess.Popen[str]:
        joined = "|".join(" ".join(command) for command in commands)
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PARENT, str(tmp_path / "logs"), joined], stdout=subprocess.PIPE, text=True
            )
        )
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "started\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for pid in processes_of(tmp_path):
        os.kill(pid, signal.SIGKILL)


def test_children_end_when_their_parent_is_killed(
    tmp_path: Path,
    parent: Callable[..., subprocess.Popen[str]],
    until: Until,
    processes_of: ProcessesOf,
    handles_sigterm: Callable[[int], bool],
) -> None:
    folders = [f"--{name}={tmp_path / name}" for name in ("journal", "store", "checkpoint-dir", "tensorboard-dir")]
    trainer = ["train", "--profile", "rover-mini", "--port", "0", *folders]
    process = parent(trainer, robot(tmp_path / "spool"))
    log = tmp_path / "logs" / "child-0.log"
    until(lambda: "waiting" in log.read_text() and any(map(handles_sigterm, processes_of(tmp_path, "sim"))))
    assert len(processes_of(tmp_path)) == 3
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: processes_of(tmp_path) == [], seconds=30)


def test_children_end_when_their_parent_was_killed_before_they_looked(
    tmp_path: Path, parent: Callable[..., subprocess.Popen[str]], until: Until, processes_of: ProcessesOf
) -> None:
    process = parent(robot(tmp_path / "spool"))
    until(lambda: processes_of(tmp_path, "sim"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: processes_of(tmp_path) == [], seconds=30)
