"""Child processes: they end when they are told to, and never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policyloop.demo import processes
from policyloop.demo.processes import Crew, ends_with_parent
from policyloop.errors import PolicyloopError

Until = Callable[..., None]
ProcessesOf = Callable[..., list[int]]


def endless_robot(spool: Path) -> list[str]:
    """Return the command of a robot that drives until it is told to end; its spool appears once it listens."""
    return ["sim", "--profile", "rover-mini", "--connect", "tcp://127.0.0.1:9", "--spool", str(spool)]


def test_children_end_with_the_crew(tmp_path: Path, until: Until, processes_of: ProcessesOf) -> None:
    with Crew(tmp_path / "logs") as crew:
        for name in ("first", "second"):
            crew.start(name, ["gateway", "--journal", str(tmp_path / name), "--port", "0"])
        until(lambda: all((tmp_path / name / "journal.json").exists() for name in ("first", "second")))
        assert len(processes_of(tmp_path)) == 2
        assert crew.running("first")
        crew.stop("first")
        assert len(processes_of(tmp_path)) == 1
        assert crew.running("second")
    assert processes_of(tmp_path) == []
    # they were asked, not killed: a gateway says what it received
    assert (tmp_path / "logs" / "first.log").read_text().endswith("nothing received\n")
    assert (tmp_path / "logs" / "second.log").read_text().endswith("nothing received\n")


def test_children_end_when_the_work_fails(tmp_path: Path, until: Until, processes_of: ProcessesOf) -> None:
    with pytest.raises(ZeroDivisionError), Crew(tmp_path / "logs") as crew:
        crew.start("gateway", ["gateway", "--journal", str(tmp_path / "journal"), "--port", "0"])
        until(lambda: (tmp_path / "journal" / "journal.json").exists())
        raise ZeroDivisionError
    assert processes_of(tmp_path) == []


def test_a_child_that_does_not_heed_sigterm_is_killed(
    tmp_path: Path, until: Until, processes_of: ProcessesOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_GRACE_S", 0.3)
    with Crew(tmp_path / "logs") as crew:
        crew.start("stubborn", ["gateway", "--journal", str(tmp_path / "journal"), "--port", "0"])
        until(lambda: (tmp_path / "journal" / "journal.json").exists())
        (pid,) = processes_of(tmp_path)
        os.kill(pid, signal.SIGSTOP)  # it will not see the signal that asks it to end
    assert processes_of(tmp_path) == []
    assert "received" not in (tmp_path / "logs" / "stubborn.log").read_text()


def test_a_child_is_out_of_reach_of_the_terminals_ctrl_c(
    tmp_path: Path, until: Until, processes_of: ProcessesOf
) -> None:
    with Crew(tmp_path / "logs") as crew:
        crew.start("gateway", ["gateway", "--journal", str(tmp_path / "journal"), "--port", "0"])
        until(lambda: processes_of(tmp_path))
        (pid,) = processes_of(tmp_path)
        assert os.getpgid(pid) != os.getpgid(0)


def test_a_child_that_finished_runs_no_more(tmp_path: Path, until: Until) -> None:
    with Crew(tmp_path / "logs") as crew:
        crew.start("brief", ["--version"])
        until(lambda: not crew.running("brief"))


def test_a_child_that_failed_is_reported_with_its_last_words_and_what_to_do(tmp_path: Path, until: Until) -> None:
    with Crew(tmp_path / "logs") as crew:
        crew.start("lost", ["evaluate", str(tmp_path / "nowhere")])
        with pytest.raises(PolicyloopError, match=r"lost ended with exit code 1: .*no policy at") as caught:
            until(lambda: not crew.running("lost"))
    assert "--resume" in caught.value.remedy


def test_a_child_that_was_killed_is_reported(tmp_path: Path, until: Until, processes_of: ProcessesOf) -> None:
    with Crew(tmp_path / "logs") as crew:
        crew.start("victim", ["gateway", "--journal", str(tmp_path / "journal"), "--port", "0"])
        until(lambda: processes_of(tmp_path))
        os.kill(processes_of(tmp_path)[0], signal.SIGKILL)
        with pytest.raises(PolicyloopError, match="victim ended with exit code -9"):
            until(lambda: not crew.running("victim"))


def test_stopping_nobody_and_twice_is_fine(tmp_path: Path) -> None:
    with Crew(tmp_path / "logs") as crew:
        crew.start("brief", ["--version"])
        crew.stop("nobody")
        crew.stop("brief")
        crew.stop("brief")


def test_without_the_wish_nothing_watches_the_parent() -> None:
    threads = threading.active_count()
    with ends_with_parent(threading.Event(), wanted=False):
        assert threading.active_count() == threads


def test_the_watch_ends_with_the_work_and_leaves_a_living_parent_alone() -> None:
    stop, threads = threading.Event(), threading.active_count()
    with ends_with_parent(stop, wanted=True):
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert not stop.is_set()


PARENT = """
import sys, time
from pathlib import Path
from policyloop.demo.processes import Crew
with Crew(Path(sys.argv[1])) as crew:
    for index, command in enumerate(sys.argv[2].split("|")):
        crew.start(f"child-{index}", [*command.split(), "--follow-parent"])
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
    tmp_path: Path, parent: Callable[..., subprocess.Popen[str]], until: Until, processes_of: ProcessesOf
) -> None:
    folders = [f"--{name}={tmp_path / name}" for name in ("journal", "store", "checkpoint-dir", "tensorboard-dir")]
    trainer = ["train", "--profile", "rover-mini", "--port", "0", *folders]
    process = parent(trainer, endless_robot(tmp_path / "spool"))
    log = tmp_path / "logs" / "child-0.log"
    until(lambda: (tmp_path / "spool" / "sim-0").exists() and "waiting" in log.read_text())
    assert len(processes_of(tmp_path)) == 3
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: processes_of(tmp_path) == [], seconds=30)


@pytest.mark.xfail(strict=True, reason="a child whose parent died while it was starting takes its foster parent for it")
def test_children_end_when_their_parent_was_killed_before_they_looked(
    tmp_path: Path, parent: Callable[..., subprocess.Popen[str]], until: Until, processes_of: ProcessesOf
) -> None:
    process = parent(["sim", "--profile", "rover-mini", "--spool", str(tmp_path / "spool")])
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: processes_of(tmp_path) == [], seconds=5)
