"""What the command line's tests share: the command line itself, and a small recording with its policy."""

from __future__ import annotations

import logging
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from policyloop.cli import app, main
from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.link.journal import Journal
from policyloop.robot.actor import Actor
from policyloop.robot.recorder import Recorder
from policyloop.safety.gate import SafetyGate
from policyloop.sim.driver import ScriptedDriver
from policyloop.sim.robot import SimulatedRobot
from policyloop.wire.codec import encode_step

RECORDED = 80


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test's robots a folder of their own for their sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield


@contextmanager
def _process_left_as_it_was() -> Iterator[None]:
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers, level = logging.root.handlers[:], logging.root.level
    torch.set_num_threads(1)
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


@pytest.fixture
def policyloop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return `policyloop(*arguments)`: the console command in this process."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["policyloop", *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        with _process_left_as_it_was():
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        assert isinstance(code, int)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return `spawn(*arguments)`: the console command in a process of its own; killed when the test ends."""
    children: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "policyloop", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        children.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
            )
        )
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def on_a_terminal() -> Callable[..., bytes]:
    """Return `on_a_terminal(*arguments, **environment)`: what it writes there, standard output and error together."""

    def call(*arguments: object, **environment: str) -> bytes:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "policyloop", *map(str, arguments)]
        with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, **environment}):
            os.close(theirs)
            written = b""
            with suppress(OSError):  # the other end is closed
                while chunk := os.read(ours, 4096):
                    written += chunk
        os.close(ours)
        return written

    return call


@pytest.fixture(scope="session")
def recorded(mini: RobotProfile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of a scripted drive of the small rover."""
    directory = tmp_path_factory.mktemp("recorded") / "journal"
    journal = Journal(directory, mini, writable=True)
    rng, clock = np.random.default_rng(0), VirtualClock()
    robot = SimulatedRobot(mini, range(4), rng, clock)

    def emit(step: Step) -> None:
        journal.append(encode_step(step, mini))

    recorder = Recorder(mini, "rover-0", "boot", emit)
    actor = Actor(mini, robot, robot, ScriptedDriver(mini), SafetyGate(mini, "limits"), recorder, clock)
    for _ in range(RECORDED + 1):
        actor.tick()
    journal.close()
    return directory


@pytest.fixture(scope="session")
def cloned(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `checkpoints` and `store` of a clone of the recording, made by `policyloop train`."""
    out = tmp_path_factory.mktemp("cloned")
    folders = ["--checkpoint-dir", out / "checkpoints", "--tensorboard-dir", out / "runs", "--store", out / "store"]
    arguments = ["train", "--profile", "rover-mini", "--offline", "--learner", "bc", "--journal", recorded, *folders]
    with _process_left_as_it_was():
        result = CliRunner().invoke(app, [*map(str, arguments), "--demonstrations", "80", "--threads", "1"])
    assert result.exit_code == 0, result.output
    return out
