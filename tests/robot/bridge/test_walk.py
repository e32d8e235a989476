"""The vendor's policy walks the simulated Lite3 through a controller in C++: four programs, as on a robot."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

Until = Callable[..., None]

STALL_S = 0.06
"""Commands are valid for 0.1 s, and a tick takes 0.012 s."""
PATIENT = ["--sensor-timeout-ms", 500, "--reply-valid-ms", 100]
"""A simulator that waits for its turn on this machine is no broken sensor."""


def command(*words: object) -> str:
    """Run policyloop, which must succeed; returns what it printed."""
    line = [sys.executable, "-m", "policyloop", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def signed(lite3_policy_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vendor's policy as a signed bundle, `vendor`, and whom this robot trusts, `trusted`."""
    folder = tmp_path_factory.mktemp("signed")
    command("keys", "new", "me", "--signing", "--keys", folder / "keys")
    words = ("--profile", "lite3", "--sign", folder / "keys", "--output", folder / "vendor")
    command("import", lite3_policy_file, *words)
    public = command("keys", "show", "--signing", "--keys", folder / "keys").split()[1]
    command("keys", "allow", "me", public, "--signing", "--keys", folder / "trusted")
    return folder


class Stalls:
    """Looks for how long this machine lets somebody wait who wants to run every few milliseconds."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        before_s = time.monotonic()
        while not self._stop.wait(0.005):
            now_s = time.monotonic()
            self.worst_s, before_s = max(self.worst_s, now_s - before_s), now_s

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class Walk(NamedTuple):
    """How it went.

    Attributes:
        let_go: The policy's program was killed while the robot walked, and the controller damped after that.
        stalled_s: For how long somebody had to wait for this machine.
        controller: What it told.
        hardware: What it told.
        program: The same of the policy's.
    """

    let_go: bool
    stalled_s: float
    controller: str
    hardware: str
    program: str


class Robot:
    """The four programs: the policy's, the controller, its hardware; and this one, which only looks."""

    def __init__(self, folder: Path, signed: Path, programs: Path, io: str, until: Until) -> None:
        self._folder, self._signed, self._programs, self._until = folder, signed, programs, until
        self._io = io
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def _start(self, name: str, *words: object) -> None:
        with (self._folder / name).open("wb") as out:
            line = [str(word) for word in words]
            self._running[name] = subprocess.Popen(line, stdout=out, stderr=subprocess.STDOUT)

    def _policyloop(self, name: str, *words: object) -> None:
        self._start(name, sys.executable, "-m", "policyloop", *words, "--profile", "lite3")

    def told(self, name: str) -> str:
        """What a program has told so far."""
        return (self._folder / name).read_text()

    def _end(self, name: str, how: signal.Signals) -> None:
        self._running[name].send_signal(how)
        self._running[name].wait(60)

    def _made(self, path: Path, name: str) -> bool:
        assert self._running[name].poll() is None, self.told(name)
        return path.exists() and (not path.is_file() or path.stat().st_size > 0)

    def walk(self, seconds: float) -> Walk:
        """Stand up, be handed over, walk; then kill the policy's program."""
        stalls = Stalls()
        try:
            let_go = self._walked(seconds)
        finally:
            stalls.close()
            for program in self._running.values():
                program.kill()
                program.wait()
        told = {name: self.told(name) for name in self._running}
        worst_ms = re.search(r"worst ([\d.]+) ms", told["controller"])
        stalled = max(stalls.worst_s, float(worst_ms[1]) / 1000 if worst_ms else 0.0, _worst_tick_s(told["program"]))
        return Walk(let_go, stalled, told["controller"], told["hardware"], told["program"])

    def _walked(self, seconds: float) -> bool:
        agent, hardware = self._folder / "agent", self._folder / "hardware.shm"
        for path in (agent, hardware):
            path.unlink(missing_ok=True)
        words = ("run", "--policy", self._signed / "vendor", "--trusted", self._signed / "trusted", "--arm", "--json")
        self._policyloop("program", *words, "--io", f"{self._io}:{agent}", "--name", "walker")
        self._until(lambda: self._made(agent, "program"))
        self._policyloop("hardware", "sim", "--hardware", hardware)
        self._until(lambda: self._made(hardware, "hardware"))
        way = "--program" if self._io == "bridge" else "--unix"
        self._start("controller", self._programs / "lite3_controller", "--hardware", hardware, way, agent, *PATIENT)
        self._until(lambda: "mode policy" in self.told("controller") or self._over())
        end_s = time.monotonic() + seconds
        self._until(lambda: time.monotonic() > end_s or self._over())
        walked = not self._over()
        self._end("program", signal.SIGKILL if walked else signal.SIGTERM)
        if walked:
            self._until(self._damps)
        self._end("hardware", signal.SIGTERM)  # at once: it does not lie yet
        self._end("controller", signal.SIGTERM)
        return walked

    def _over(self) -> bool:
        assert self._running["program"].poll() is None, self.told("program")
        return self._damps() or "the robot is tripped" in self.told("program")

    def _damps(self) -> bool:
        assert self._running["controller"].poll() is None, self.told("controller")
        return "mode damping" in self.told("controller")


def _worst_tick_s(told: str) -> float:
    """Return the worst tick that a program reports which was ended in order."""
    lines = [line for line in told.splitlines() if line.startswith("{")]
    if not lines:
        return 0.0
    report = json.loads("".join(told[told.index("{") :]))
    return max(report["lateness_max_ms"], report["work_max_ms"]) / 1000


@pytest.fixture
def robot(
    tmp_path: Path, signed: Path, programs: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Robot]]:
    """Return `robot(io)`: the programs, which talk to each other that way."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield lambda io: Robot(tmp_path, signed, programs, io, until)


def wrong(walk: Walk) -> str:
    """Return what is wrong with a walk, or an empty string."""
    modes = [line for line in walk.controller.splitlines() if line.startswith("mode ")]
    if modes != ["mode idle", "mode stand_up: request", "mode policy: request", "mode damping: no valid command"]:
        return f"modes {modes}"
    if not walk.let_go:
        return "let go before its program died"
    if not re.search(r"idle at .*, stand_up at .*, policy at .*, damping at ", walk.hardware):
        return "the hardware saw other modes"
    if "FELL" in walk.hardware:
        return "it fell"
    speed = re.search(r"walked at (-?[\d.]+) m/s", walk.hardware)
    return "" if speed is not None and 0.35 < float(speed[1]) < 0.60 else "its speed"


def stalled(walk: Walk) -> bool:
    """Whether somebody had to wait for this machine for longer than a walking robot bears.

    It is seen by a thread that only sleeps, in the worst tick of the controller, in that of the policy's program and by
    its watchdog. Nobody else sees how long the simulator waits: for half a second, and the controller misses its
    sensors; for 50 ms, and the policy's program lets the joints go because what it sees is stale.
    """
    missed = ("let go: stale" in walk.program, "let go: late" in walk.program, "damping: sensors" in walk.controller)
    return walk.stalled_s > STALL_S or any(missed)


@pytest.mark.parametrize(("io", "seconds"), [("bridge", 5.0), ("unix", 3.0)])
def test_the_vendors_policy_stands_up_walks_and_is_let_go_when_its_program_dies(
    io: str, seconds: float, robot: Callable[[str], Robot]
) -> None:
    walk = robot(io).walk(seconds)
    if (problem := wrong(walk)) and stalled(walk):
        print(f"once more, this machine stalled: {problem}; {walk}")  # noqa: T201
        walk = robot(io).walk(seconds)
    assert not wrong(walk), walk
    assert "the robot is armed" in walk.program


def test_a_policy_that_nobody_trusted_has_signed_does_not_drive(
    signed: Path, lite3_bundle: Path, tmp_path: Path
) -> None:
    words = ["run", "--profile", "lite3", "--policy", lite3_bundle, "--trusted", signed / "trusted", "--arm"]
    line = [sys.executable, "-m", "policyloop", *map(str, words), "--io", f"bridge:{tmp_path}/agent"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 5, done.stderr
    assert not (tmp_path / "agent").exists()
