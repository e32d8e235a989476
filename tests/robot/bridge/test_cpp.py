"""The robot's program and a controller in C++, across shared memory and sockets, with one of them dying."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from policyloop.core.step import Command, TimedCommand
from policyloop.robot.bridge.header import Header
from policyloop.robot.bridge.paced import PacedBridge
from policyloop.robot.bridge.record import DRIVE
from policyloop.robot.bridge.shared_file import SharedFile
from policyloop.robot.bridge.sockets import SocketBridge

MS = 1_000_000
CPP = Path(__file__).parents[3] / "cpp"


def run(*words: object, timeout_s: float = 240) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_programs_own_tests_pass(programs: Path) -> None:
    run("ctest", "--test-dir", programs, "--output-on-failure")


@pytest.mark.long
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_programs_own_tests_pass_with_sanitizers(built: Callable[[str], Path], sanitizer: str) -> None:
    run("ctest", "--test-dir", built(sanitizer), "--output-on-failure")


def test_a_program_of_somebody_else_finds_the_installed_package(programs: Path, tmp_path: Path) -> None:
    run("cmake", "--install", programs, "--prefix", tmp_path / "prefix")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(mine LANGUAGES CXX)\n"
        "find_package(policyloop_bridge 1.0 REQUIRED)\nadd_executable(mine mine.cpp)\n"
        "target_link_libraries(mine PRIVATE policyloop::bridge)\n"
    )
    (tmp_path / "mine.cpp").write_text(
        "#include <policyloop_bridge.hpp>\n#include <policyloop_frames.hpp>\n#include <policyloop_modes.hpp>\n"
        'int main() { return policyloop::crc32("123456789", 9) == 0xCBF43926U ? 0 : 1; }\n'
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={tmp_path}/prefix")
    run("cmake", "--build", tmp_path / "build")
    run(tmp_path / "build" / "mine")


def opened(programs: Path, path: Path) -> str:
    return subprocess.run([programs / "probe", "open", path], capture_output=True, text=True, timeout=60).stdout.strip()


def test_what_python_made_is_opened_and_what_is_damaged_is_refused(
    programs: Path, owned: SharedFile, tmp_path: Path
) -> None:
    path = tmp_path / "robot"
    whole = path.read_bytes()
    assert opened(programs, path) == "fine"
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged"
    damaged.touch(0o600)
    for at in rng.choice(owned.header.owner_offset, 25, replace=False):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0x04]) + whole[at + 1 :])
        assert opened(programs, damaged) not in ("fine", "")
    for data in (b"", whole[:100], whole[:-1], whole + b"\0", rng.bytes(len(whole))):
        damaged.write_bytes(data)
        assert opened(programs, damaged) not in ("fine", "")
    damaged.write_bytes(whole)
    assert opened(programs, damaged) == "fine"
    damaged.chmod(0o644)
    assert "others may open it" in opened(programs, damaged)
    assert "cannot be opened" in opened(programs, tmp_path / "nothing")


def test_cpp_reads_no_torn_record_of_a_busy_cpp_writer(programs: Path) -> None:
    report = json.loads(run(programs / "probe", "race", 300_000))
    assert report["torn"] == report["backwards"] == 0 and report["reads"] == 300_000


def test_cpp_reads_no_torn_record_of_a_busy_python_writer(programs: Path, owned: SharedFile, tmp_path: Path) -> None:
    owned.writer.write(0, 0, np.zeros(12, np.float32))
    with started(programs / "probe", "read", tmp_path / "robot", 300_000) as probe:
        n = 0
        while probe.poll() is None:
            n = (n + 1) % 4096
            owned.writer.write(n, 0, np.full(12, n, np.float32))
        report = json.load(probe.stdout)
    assert report["torn"] == report["backwards"] == 0 and report["reads"] == 300_000


def test_python_reads_no_torn_record_of_a_busy_cpp_writer(programs: Path, owned: SharedFile, tmp_path: Path) -> None:
    with started(programs / "probe", "write", tmp_path / "robot", 1.0) as probe:
        seen, newest = set(), 0
        while probe.poll() is None:
            record = owned.reader.read()
            if record is not None:
                assert (record.values == record.flags).all() and record.counter >= newest
                newest = record.counter
                seen.add(newest)
    assert len(seen) > 5


def test_random_bytes_in_the_record_are_never_obeyed(programs: Path, owned: SharedFile, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with started(programs / "probe", "watch", tmp_path / "robot", 0.4, 5000) as probe:
        with (tmp_path / "robot").open("r+b", buffering=0) as file:
            while probe.poll() is None:
                file.seek(owned.header.owner_offset)
                garbage = rng.bytes(40 + 48)
                file.write(bytes([garbage[0] & 0xFE]) + garbage[1:])
        assert probe.stdout.read() == ""


WRITER = """
import sys, time
from pathlib import Path
from policyloop.robot.bridge.header import Header
from policyloop.robot.bridge.shared_file import SharedFile
gains = {"kp": (30.0,) * 12, "kd": (1.0,) * 12, "pose": (0.0, -0.65, 1.3) * 4}
file = SharedFile.create(Path(sys.argv[1]), Header(owner_floats=12, guest_floats=33, **gains))
print("ready", flush=True)
while True:
    file.writer.write(time.monotonic_ns() + 24_000_000, 1, (0.1,) * 12)
    time.sleep(0.012)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_controller_damps_within_100_ms_of_the_programs_death(
    programs: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "robot"
    with started(sys.executable, "-c", WRITER, path) as writer:
        writer.stdout.readline()
        with started(programs / "probe", "watch", path, 2, 1000) as probe:
            while not probe.stdout.readline().startswith("drive"):
                pass
            died_ns = time.monotonic_ns()
            writer.send_signal(number)
            told = probe.communicate(timeout=60)[0].splitlines()
    what, at, pause = told[-1].split() if told else ("damp", died_ns, 0)  # this machine paused, and it had ended before
    after_ms, pause_ms = (int(at) - died_ns) / MS, int(pause) / MS
    print(f"{number.name}: damping after {after_ms:.1f} ms; it had looked {pause_ms:.1f} ms before")  # noqa: T201
    # How long a shared machine lets the controller wait for its turn is not the bridge's.
    assert what == "damp" and after_ms - pause_ms < 100


def test_a_writer_killed_in_the_middle_of_a_record_ends_in_damping(
    programs: Path, owned: SharedFile, tmp_path: Path
) -> None:
    path, told = tmp_path / "robot", tmp_path / "told"

    def until_told(what: str, each: Callable[[], object] = lambda: None) -> None:
        deadline_s = time.monotonic() + 30
        while not told.read_text().rstrip().rpartition("\n")[2].startswith(what):
            assert time.monotonic() < deadline_s
            each()
            time.sleep(0.005)

    def command() -> None:
        owned.writer.write(time.monotonic_ns() + 90 * MS, DRIVE, (0.1,) * 12)

    with told.open("w") as out:
        probe = subprocess.Popen([programs / "probe", "watch", path, "60", "1000"], stdout=out)
    try:
        until_told("drive", command)
        with path.open("r+b", buffering=0) as file:  # the lock is odd, and half of the numbers are others
            file.seek(owned.header.owner_offset)
            lock = int.from_bytes(file.read(8), "little")
            file.seek(owned.header.owner_offset)
            file.write((lock | 1).to_bytes(8, "little"))
            file.seek(owned.header.owner_offset + 40)
            file.write(b"\xff" * 20)
        until_told("damp")
        until_told("drive", command)  # the next one repairs the lock
    finally:
        probe.kill()
        probe.wait()


def answer(bridge: PacedBridge, until: Callable[[], bool]) -> list[float]:
    """Be the robot's program: answer each state with the double of its first number; every fourth with "damp"."""
    seen = []
    while not until():
        if bridge.wait(time.monotonic_ns() + 50 * MS):
            first = float(bridge.read().arrays["proprio"][0])
            command = Command((2 * first,) * 12, damped=first % 4 == 3)
            bridge.write(TimedCommand(command, len(seen) + 1, time.monotonic_ns() + 1000 * MS))
            seen.append(first)
    return seen


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_the_frame_client_and_the_bridge_understand_each_other(
    programs: Path, tmp_path: Path, places: np.ndarray, kind: str
) -> None:
    sizes = {"states": places, "proprio_size": 45, "targets": 12}
    if kind == "unix":
        bridge = SocketBridge.unix(tmp_path / "sock", **sizes)
        where = str(tmp_path / "sock")
    else:
        bridge = SocketBridge.tcp("127.0.0.1", 0, **sizes)
        where = str(bridge.port)
    with started(programs / "probe", "frames", kind, where, 40) as probe:
        seen = answer(bridge, lambda: probe.poll() is not None)
        told = probe.stdout.read().split()
    bridge.close()
    assert seen == list(range(40))
    assert told == ["damp" if n % 4 == 3 else f"{2 * n}" for n in range(40)]


def test_the_frame_client_is_told_when_sizes_differ(programs: Path, tmp_path: Path) -> None:
    bridge = SocketBridge.unix(tmp_path / "sock", states=np.arange(5), proprio_size=5, targets=12)
    with started(programs / "probe", "frames", "unix", tmp_path / "sock", 1) as probe:
        answer(bridge, lambda: probe.poll() is not None)
        assert probe.stdout.read().split() == ["closed"]
    bridge.close()


class Robot:
    """A simulated robot without physics: its joints are where they are told to be; owns the "hardware" file."""

    def __init__(self, path: Path) -> None:
        self.file = SharedFile.create(path, Header(owner_floats=34, guest_floats=36))
        self.joints = np.array([0.1, -1.2, 2.4] * 4, np.float32)
        self.gravity, self.request = (0.0, 0.0, -1.0), 0
        self.mode, self.target, self.kp, self.kd = -1, *np.zeros((3, 12), np.float32)

    def tick(self) -> None:
        """Tell the sensors, take the set-points."""
        sensors = np.concatenate([np.zeros(3), self.gravity, np.zeros(3), self.joints, np.zeros(12), [self.request]])
        self.file.writer.write(time.monotonic_ns(), 0, sensors)
        record = self.file.reader.read()
        if record is not None:
            self.mode = record.flags
            self.target, self.kp, self.kd = np.split(record.values, 3)
            self.joints = np.where(self.kp > 0, self.target, self.joints).astype(np.float32)


IDLE, STAND_UP, POLICY, DAMPING = range(4)
LOOSE = ["--sensor-timeout-ms", 2000]
"""This machine's other work may keep the simulated robot waiting."""


def tick_until(robot: Robot, condition: Callable[[], bool], each: Callable[[], object] = lambda: None) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s, f"mode {robot.mode}"
        each()
        robot.tick()
        time.sleep(0.002)


def walk(robot: Robot, command: Callable[[], object]) -> None:
    """Get it to walk, however often a pause of this machine ends that: commands are valid for 90 ms."""
    for _ in range(5):
        robot.request = 0
        tick_until(robot, lambda: robot.mode in (IDLE, DAMPING))
        robot.request = STAND_UP + 1
        tick_until(robot, lambda: robot.mode == STAND_UP)
        robot.request = POLICY + 1
        tick_until(robot, lambda: robot.mode in (POLICY, DAMPING), command)
        for _ in range(5):
            command()
            robot.tick()
            time.sleep(0.002)
        if robot.mode == POLICY:
            return
    raise AssertionError("it never walked")


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    robot = Robot(tmp_path / "hardware")
    robot.tick()
    yield robot
    robot.file.close()


@pytest.fixture
def command(owned: SharedFile) -> Callable[[float], None]:
    return lambda value=0.7: owned.writer.write(time.monotonic_ns() + 90 * MS, DRIVE, (value,) * 12)


def controller_words(programs: Path, tmp_path: Path, *options: object) -> list[object]:
    files = ["--hardware", tmp_path / "hardware", "--program", tmp_path / "robot"]
    return [programs / "lite3_controller", *files, *options]


def test_the_example_stands_up_walks_and_damps_when_the_program_is_silent(
    programs: Path, owned: SharedFile, robot: Robot, command: Callable[..., None], tmp_path: Path
) -> None:
    with started(*controller_words(programs, tmp_path, *LOOSE)) as controller:
        tick_until(robot, lambda: robot.mode == IDLE)
        assert not robot.kp.any() and not robot.kd.any()
        robot.request = STAND_UP + 1
        tick_until(robot, lambda: robot.mode == STAND_UP)
        tick_until(robot, lambda: bool(np.allclose(robot.target, [0, -0.65, 1.3] * 4, atol=1e-6)))
        assert (robot.kp == 100).all() and (robot.kd == 2.5).all()
        robot.request = POLICY + 1
        for _ in range(20):  # nobody commands: it goes on standing
            robot.tick()
            time.sleep(0.002)
            assert robot.mode == STAND_UP
        robot.request = 1  # idle, which from here is damping
        tick_until(robot, lambda: robot.mode == DAMPING)
        states = []

        def watch_and_command() -> None:
            states.append(owned.reader.read())
            command()

        walk(robot, watch_and_command)
        assert (robot.kp == 30).all() and (robot.kd == 1).all() and (robot.target == np.float32(0.7)).all()
        assert {state.flags for state in states if state is not None} == {0, 1}
        assert states[0] is None or states[0].values[3:6].tolist() == [0, 0, -1]
        tick_until(robot, lambda: robot.mode == DAMPING)  # silence
        assert not robot.kp.any() and (robot.kd == 4).all()
        for _ in range(20):  # latched, even if somebody commands again
            command()
            robot.tick()
            time.sleep(0.002)
            assert robot.mode == DAMPING
        controller.send_signal(signal.SIGTERM)
        told = controller.communicate(timeout=30)[0]
        assert controller.returncode == 0
    assert told.startswith("mode idle\nmode stand_up: request\nmode damping: request\nmode stand_up: request"), told
    assert "mode damping: no valid command" in told and "ticks of 1.000 ms" in told


@pytest.mark.parametrize(
    ("mishap", "cause"),
    [
        ("fall", "the robot leans"),
        ("not a number", "no valid command"),
        ("valid for too long", "no valid command"),
        ("stop", "stop request"),
        ("no sensors", "sensors"),
    ],
)
def test_the_example_damps_when_something_is_wrong(
    programs: Path,
    owned: SharedFile,
    robot: Robot,
    command: Callable[..., None],
    tmp_path: Path,
    mishap: str,
    cause: str,
) -> None:
    def happen() -> None:
        if mishap == "fall":
            robot.gravity = (0.0, math.sin(0.6), -math.cos(0.6))
        elif mishap == "stop":
            robot.request = 4
        if mishap == "valid for too long":
            owned.writer.write(time.monotonic_ns() + 1000 * MS, DRIVE, (0.7,) * 12)
        else:
            command(math.nan if mishap == "not a number" else 0.7)

    timeout_ms = 500 if mishap == "no sensors" else 2000
    with started(*controller_words(programs, tmp_path, "--sensor-timeout-ms", timeout_ms)) as controller:
        tick_until(robot, lambda: robot.mode == IDLE)
        walk(robot, command)
        deadline_s = time.monotonic() + 30
        while robot.mode != DAMPING and time.monotonic() < deadline_s:
            happen()
            if mishap == "no sensors":
                record = robot.file.reader.read()
                robot.mode = robot.mode if record is None else record.flags
            else:
                robot.tick()
            time.sleep(0.002)
        controller.send_signal(signal.SIGTERM)
        told = controller.communicate(timeout=30)[0]
    assert robot.mode == DAMPING
    # A pause of this machine that is longer than a command is valid ends in damping as well.
    assert f"mode damping: {cause}\n" in told or "mode damping: no valid command" in told, told


def test_the_example_walks_through_a_socket(programs: Path, robot: Robot, tmp_path: Path, places: np.ndarray) -> None:
    bridge = SocketBridge.unix(tmp_path / "sock", states=places, proprio_size=45, targets=12)
    words = ["--hardware", tmp_path / "hardware", "--unix", tmp_path / "sock", "--reply-valid-ms", 100, *LOOSE]
    sequence = 0

    def reply() -> None:
        nonlocal sequence
        sequence += 1
        if bridge.wait(time.monotonic_ns()):
            bridge.read()
            bridge.write(TimedCommand(Command((0.7,) * 12), sequence, time.monotonic_ns() + 100 * MS))

    with started(programs / "lite3_controller", *words):
        tick_until(robot, lambda: robot.mode == IDLE, reply)
        walk(robot, reply)
        bridge.close()
        tick_until(robot, lambda: robot.mode == DAMPING)


def test_the_example_asks_through_a_socket_only_when_it_would_obey(
    programs: Path, robot: Robot, tmp_path: Path, places: np.ndarray
) -> None:
    """The policy is told its own last output: it must be asked by nobody who does something else."""
    bridge = SocketBridge.unix(tmp_path / "sock", states=places, proprio_size=45, targets=12)
    words = ["--hardware", tmp_path / "hardware", "--unix", tmp_path / "sock", *LOOSE]
    asked = 0

    def look() -> None:  # and answer: damp
        nonlocal asked
        if bridge.wait(time.monotonic_ns()):
            bridge.read()
            bridge.write(TimedCommand(Command((0.0,) * 12, damped=True), asked + 1, time.monotonic_ns() + 100 * MS))
            asked += 1

    with started(programs / "lite3_controller", *words):
        tick_until(robot, lambda: robot.mode == IDLE, look)
        robot.request = STAND_UP + 1
        tick_until(robot, lambda: robot.mode == STAND_UP, look)
        tick_until(robot, lambda: bool(np.allclose(robot.target, [0, -0.65, 1.3] * 4, atol=1e-6)), look)
        for _ in range(20):
            look()
            robot.tick()
            time.sleep(0.002)
        assert asked == 0
        robot.request = POLICY + 1
        tick_until(robot, lambda: asked > 5, look)
        assert robot.mode == STAND_UP  # nobody told it to walk
    bridge.close()


@pytest.mark.long
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_all_that_with_sanitizers(
    built: Callable[[str], Path],
    sanitizer: str,
    owned: SharedFile,
    robot: Robot,
    command: Callable[..., None],
    places: np.ndarray,
    tmp_path: Path,
) -> None:
    programs = built(sanitizer)
    test_what_python_made_is_opened_and_what_is_damaged_is_refused(programs, owned, tmp_path)
    test_random_bytes_in_the_record_are_never_obeyed(programs, owned, tmp_path)
    test_the_frame_client_and_the_bridge_understand_each_other(programs, tmp_path, places, "tcp")
    test_the_frame_client_is_told_when_sizes_differ(programs, tmp_path)
    test_the_example_stands_up_walks_and_damps_when_the_program_is_silent(programs, owned, robot, command, tmp_path)
    test_the_example_walks_through_a_socket(programs, robot, tmp_path, places)
