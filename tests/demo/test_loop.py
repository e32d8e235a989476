"""The whole loop, small: real processes, real sockets, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyloop.bundle.verify import open_bundle
from policyloop.config import load_settings
from policyloop.core.profile import RobotProfile
from policyloop.demo.loop import DemoResult, DemoSettings, run_loop
from policyloop.demo.report import write_report
from policyloop.errors import PolicyloopError, StorageError, UsageError
from policyloop.learn.checkpoint import latest_checkpoint
from policyloop.learn.settings import LearnerSettings
from policyloop.link.journal import Journal
from policyloop.link.summary import summarise

Until = Callable[..., None]
ProcessesOf = Callable[..., list[int]]

OVERHEAD_MIN = 110 / 60
"""What a demo keeps back for evaluation and report."""


def tiny(out: Path, seconds: float, **changes: Any) -> DemoSettings:
    """Return settings of a demo that trains for `seconds`, at least twelve."""
    settings = DemoSettings(
        out=out,
        minutes=OVERHEAD_MIN + seconds / 60,
        demonstrations=600,
        episodes=2,
        robot_processes=2,
        robots_per_process=2,
    )
    return msgspec.structs.replace(settings, **changes)


def silent(name: str, done: float, total: float, note: str) -> None:
    """Take no notice of progress."""


@pytest.mark.parametrize("name", ["journal", "checkpoints", "report.json"])
def test_a_folder_that_holds_a_demo_is_not_used_again_unasked(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="already holds a demo") as caught:
        run_loop(tiny(tmp_path, 12), threading.Event(), silent)
    assert caught.value.exit_code == 2
    assert "--resume" in caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write to") as caught:
        run_loop(tiny(tmp_path / "file" / "demo", 12), threading.Event(), silent)
    assert "--out" in caught.value.remedy


def check_result(result: DemoResult, out: Path, profile: RobotProfile, episodes: int) -> None:
    """Assert what every finished demo must show."""
    assert list(result.drivers) == ["scripted", "random", "clone", "learned", "clone + gate", "learned + gate"]
    for name, report in result.drivers.items():
        assert report.driver == name
        assert report.episodes == len(report.returns) == episodes
        assert report.gate == ("full" if name.endswith("gate") else "limits")
    assert result.drivers["scripted"].return_mean > result.drivers["random"].return_mean + 100
    for path in (result.clone, result.best):
        open_bundle(out / path, profile)
    assert result.clone == "checkpoints/000000/bundle"
    assert result.swaps >= 1
    assert {"starting the trainer", "choosing", "evaluating"} <= set(result.phases_s)


def check_report(result: DemoResult, settings: DemoSettings) -> None:
    """Assert that the report tells what the result holds."""
    page = write_report(result, settings)
    assert page == settings.out / "report.html"
    assert page.stat().st_size > 10_000
    written = msgspec.json.decode((settings.out / "report.json").read_bytes())
    for name in result.drivers:
        assert {"episodes", "return_mean", "return_ci", "collision_rate", "distance_m", "interventions"} <= set(
            written["drivers"][name]
        )


def test_a_miniature_demo_records_clones_ships_and_judges(
    tmp_path: Path, mini: RobotProfile, processes_of: ProcessesOf
) -> None:
    settings = tiny(tmp_path / "demo", 12, demonstrations=100, robot_processes=1)
    phases: list[str] = []
    result = run_loop(settings, threading.Event(), lambda name, *_: phases.append(name))
    check_result(result, settings.out, mini, episodes=2)
    assert phases[0] == "starting the trainer"
    assert phases[-1] == "report"
    assert processes_of(tmp_path) == []
    journal = Journal(settings.out / "journal")
    summary = summarise(journal)
    journal.close()
    assert summary.sources["scripted"] >= 100
    assert summary.sources["policy"] > 100
    learner = load_settings(LearnerSettings, settings.out / "learner.toml")
    assert (learner.demonstrations, learner.stop_and_go) == (100, True)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_small_demo_improves_by_ppo_and_reports(tmp_path: Path, mini: RobotProfile) -> None:
    settings = tiny(tmp_path / "demo", 75, robots_per_process=4)
    phases: list[str] = []
    result = run_loop(settings, threading.Event(), lambda name, *_: phases.append(name))
    check_result(result, settings.out, mini, episodes=2)
    check_report(result, settings)
    assert "improving by PPO" in phases
    updates = [line["update"] for line in result.progress if line.get("update")]
    assert updates == list(range(1, len(updates) + 1))
    assert result.swaps == 1 + len(updates)
    # robots stand still while the learner works: hardly a step is ever stale
    ledger = result.progress[-1]["ledger"]
    assert ledger.get("too-old", 0) + ledger.get("gap", 0) < 0.02 * ledger["trained"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_demo_from_nothing_that_is_too_short_to_learn_still_reports(tmp_path: Path) -> None:
    settings = tiny(tmp_path / "demo", 12, demonstrations=0, robot_processes=1, robots_per_process=1)
    result = run_loop(settings, threading.Event(), silent)
    assert {"untrained", "learned", "untrained + gate"} <= set(result.drivers)
    check_report(result, settings)


class TrainerKiller:
    """A report that kills the trainer once, when a phase begins.

    Args:
        out: The demo's folder.
        phase: When to kill.
        processes_of: Finds the trainer.
    """

    def __init__(self, out: Path, phase: str, processes_of: ProcessesOf) -> None:
        self._out, self._phase, self._processes_of = out, phase, processes_of
        self.killed = 0

    def __call__(self, name: str, done: float, total: float, note: str) -> None:
        if name == self._phase and not self.killed:
            (self.killed,) = self._processes_of(self._out, "train")
            os.kill(self.killed, signal.SIGKILL)


def test_a_killed_trainer_ends_the_demo_with_the_advice_to_resume(
    tmp_path: Path, processes_of: ProcessesOf, alive: Callable[[int], bool]
) -> None:
    out = tmp_path / "demo"
    killer = TrainerKiller(out, "recording and cloning", processes_of)
    with pytest.raises(PolicyloopError, match="trainer ended with exit code -9") as caught:
        run_loop(tiny(out, 12), threading.Event(), killer)
    assert "--resume" in caught.value.remedy
    assert caught.value.exit_code == 1
    assert not alive(killer.killed)
    assert processes_of(tmp_path) == []


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", ["recording and cloning", "driving the clone"])
def test_a_demo_whose_trainer_was_killed_completes_when_it_is_resumed(
    phase: str, tmp_path: Path, mini: RobotProfile, processes_of: ProcessesOf
) -> None:
    settings = tiny(tmp_path / "demo", 25)
    with pytest.raises(PolicyloopError, match="trainer ended with exit code -9"):
        run_loop(settings, threading.Event(), TrainerKiller(settings.out, phase, processes_of))
    resumed = msgspec.structs.replace(settings, resume=True)
    result = run_loop(resumed, threading.Event(), silent)
    check_result(result, settings.out, mini, episodes=2)
    check_report(result, resumed)
    assert processes_of(tmp_path) == []


def test_ctrl_c_leaves_no_process_behind_and_exits_with_130(
    tmp_path: Path, until: Until, processes_of: ProcessesOf
) -> None:
    out = tmp_path / "demo"
    child = subprocess.Popen(
        [sys.executable, "-m", "policyloop", "demo", "--out", str(out), "--minutes", "2.5", "--demonstrations", "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: len(processes_of(out, "sim")) == 2)
        until(lambda: (out / "spool").exists())
        assert len(processes_of(out)) == 4  # the demo, the trainer and two processes of robots
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 130
    assert processes_of(out) == []
    assert "Traceback" not in err
    assert "demo --resume --out" in err
    # what was recorded until then can be read, and gone on with
    journal = Journal(out / "journal")
    journal.close()
    assert latest_checkpoint(out / "checkpoints") is None
