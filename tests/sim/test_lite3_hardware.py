"""The simulated Lite3 as a controller's hardware, on a clock of our own."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.robot.bridge.shared_file import SharedFile
from policyloop.robot.posture import MODES, REQUESTS, BodyState, Mode, ModeMachine, ModeSettings, Request
from policyloop.sim.lite3 import Wanted
from policyloop.sim.lite3_hardware import HardwareReport, SimulatedHardware, walks_off

MS = 1_000_000
POSE = np.array([0, -0.65, 1.3] * 4, np.float32)
HOLDING_NM = np.array([1.80, -0.52, -3.30, -1.86, -0.42, -3.22, 2.40, -0.57, -4.02, -2.42, -0.46, -3.94])
AHEAD: Wanted = (0.5, 0.0, 0.0)
IDLE, STAND_UP, POLICY, DAMPING = range(4)


class Clock:
    """Time that passes when the hardware sleeps; whoever shares the machine then has its turn.

    Attributes:
        turn: Called with every millisecond that has passed.
        pauses_ms: By the millisecond at which the whole machine stands still, for how long.
    """

    def __init__(self) -> None:
        self.ns = 1000 * MS
        self.began_ns = self.ns
        self.turn: Callable[[int], object] = lambda ms: None
        self.pauses_ms: dict[int, int] = {}

    @property
    def ms(self) -> int:
        return (self.ns - self.began_ns) // MS

    def now_ns(self) -> int:
        return self.ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        self.ns = max(self.ns, deadline_ns)
        self.turn(self.ms)
        self.ns += self.pauses_ms.pop(self.ms, 0) * MS


class Bench:
    """The hardware, the controller's side of its file, and what the operator was asked."""

    def __init__(self, profile: RobotProfile, path: Path, **options: Any) -> None:
        self.clock, self.stop = Clock(), threading.Event()
        self.asked: list[tuple[float, Mode]] = []
        self.answer: tuple[Request, Wanted] = ("none", AHEAD)
        operator = options.pop("operator", self.operate)
        rng = np.random.default_rng(0)
        self.robot = SimulatedHardware(profile, path, rng, operator, self.clock, **options)
        self.body = self.robot._body
        self.controller = SharedFile.open(path)

    def operate(self, after_s: float, mode: Mode) -> tuple[Request, Wanted]:
        self.asked.append((after_s, mode))
        return self.answer

    def say(self, mode: int, target: Any = POSE, kp: float = 100.0, kd: float = 2.5) -> None:
        """Be a controller that says something now."""
        values = np.concatenate([np.broadcast_to(target, 12), np.full(12, kp), np.full(12, kd)])
        self.controller.writer.write(self.clock.ns, mode, values)

    def run(self, seconds: float = 0.0) -> HardwareReport:
        return self.robot.run(self.stop, seconds)

    @property
    def gains(self) -> set[tuple[float, float]]:
        model = self.body._model
        return {(model.actuator_gainprm[i, 0], -model.actuator_biasprm[i, 2]) for i in range(12)}

    def close(self) -> None:
        self.controller.close()
        self.robot.close()


@pytest.fixture
def make(lite3: RobotProfile, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Return `make(**options)`: a bench with a Lite3 on it."""
    made: list[Bench] = []

    def build(**options: Any) -> Bench:
        made.append(Bench(lite3, tmp_path / f"hardware-{len(made)}", **options))
        return made[-1]

    yield build
    for bench in made:
        bench.close()


# -- what it says -----------------------------------------------------------------------------


def test_it_lies_there_and_damps_while_no_controller_comes(make: Callable[..., Bench]) -> None:
    bench = make()
    report = bench.run(0.3)
    assert (report.seconds, report.modes, report.fell) == (pytest.approx(0.3), (), False)
    assert math.isnan(report.forward_mps) and math.isnan(report.left_mps) and math.isnan(report.yaw_radps)
    assert bench.gains == {(0.0, 3.0)}
    assert bench.body.low


def test_sensors_and_the_request_are_told_every_millisecond_with_their_time(make: Callable[..., Bench]) -> None:
    bench = make()
    told = []

    def look(ms: int) -> None:
        record = bench.controller.reader.read()
        assert record is not None
        told.append((ms, record.time_ns - bench.clock.began_ns, record.values))
        bench.answer = ("stand_up", (0.1, 0.2, 0.3))

    bench.clock.turn = look
    bench.run(0.02)
    assert [(ms, ns) for ms, ns, _ in told] == [(ms, (ms - 1) * MS) for ms in range(1, 22)]
    first, last = told[0][2], told[-1][2]
    assert first.shape == (34,)
    assert first[3:6].tolist() == [0, 0, -1]
    assert first[6:9].tolist() == [0.5, 0, 0]
    np.testing.assert_allclose(first[9:21], [0, -1.35453, 2.54948] * 4, atol=1e-6)
    assert not first[21:33].any()
    assert (first[33], last[33]) == (REQUESTS.index("none"), REQUESTS.index("stand_up"))
    assert last[6:9].tolist() == np.array([0.1, 0.2, 0.3], np.float32).tolist()
    sensors = bench.body.sense()
    np.testing.assert_allclose(bench.controller.reader.read().values[9:21], sensors.joint_pos, atol=0.02)


def test_joints_are_told_and_moved_in_the_profiles_order(lite3: RobotProfile, tmp_path: Path) -> None:
    order = np.array([7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 4, 6])
    assert lite3.joints is not None
    efforts = tuple(lite3.joints.max_effort_nm[i] for i in order)
    joints = msgspec.structs.replace(lite3.joints, max_effort_nm=efforts)
    shuffled = msgspec.structs.replace(lite3, action=tuple(lite3.action[i] for i in order), joints=joints)
    benches = [Bench(lite3, tmp_path / "straight"), Bench(shuffled, tmp_path / "crossed")]
    for bench, places in zip(benches, (np.arange(12), order), strict=True):
        targets = (POSE + 0.1 * np.arange(12))[places]
        bench.clock.turn = lambda ms, bench=bench, targets=targets: bench.say(STAND_UP, targets)
        bench.run(0.1)
    straight, crossed = (bench.controller.reader.read().values for bench in benches)
    np.testing.assert_array_equal(straight[9:21][order], crossed[9:21])
    np.testing.assert_array_equal(benches[0].body._data.qpos, benches[1].body._data.qpos)
    for bench in benches:
        bench.close()


# -- its motors -------------------------------------------------------------------------------


def test_motors_follow_the_set_points_with_the_controllers_gains(make: Callable[..., Bench]) -> None:
    bench = make()
    target = POSE + np.linspace(-0.2, 0.2, 12, dtype=np.float32)
    bench.clock.turn = lambda ms: bench.say(STAND_UP, target, 80.0, 1.5)
    bench.run(0.01)
    assert bench.gains == {(80.0, 1.5)}
    np.testing.assert_allclose(bench.body._data.ctrl, target, atol=1e-7)


def test_motors_damp_by_themselves_when_the_controller_is_silent_for_100_ms(make: Callable[..., Bench]) -> None:
    bench = make()
    gains: dict[int, set[tuple[float, float]]] = {}

    def turn(ms: int) -> None:
        gains[ms] = bench.gains
        if ms <= 20 or ms == 140:
            bench.say(STAND_UP, POSE, 50.0, 2.0)

    bench.clock.turn = turn
    bench.run(0.15)
    assert set().union(*(gains[ms] for ms in range(10, 120))) == {(50.0, 2.0)}
    assert set().union(*(gains[ms] for ms in range(123, 141))) == {(0.0, 3.0)}
    assert gains[143] == {(50.0, 2.0)}  # it speaks again


# -- time -------------------------------------------------------------------------------------


def test_what_was_missed_for_a_few_milliseconds_is_caught_up(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.clock.pauses_ms = {10: 15}
    report = bench.run(0.05)
    assert report.seconds == pytest.approx(0.05)
    assert bench.clock.ms == pytest.approx(50, abs=1)  # simulated and real time are the same


def test_a_pause_of_the_machine_is_no_fall(make: Callable[..., Bench]) -> None:
    """Half a second during which nobody computes anything: the robot stands where it stood."""
    bench = make()
    bench.body.reset(None)
    holding = POSE + HOLDING_NM / 100
    bench.clock.turn = lambda ms: bench.say(POLICY, holding)
    bench.clock.pauses_ms = {100: 500}
    report = bench.run(0.3)
    assert report.seconds == pytest.approx(0.3)  # of simulated time: the pause is none
    assert bench.clock.ms == pytest.approx(800, abs=2)
    assert bench.body._data.time == pytest.approx(0.3)
    assert not report.fell
    assert bench.body.motion.height_m > 0.34


def test_a_pause_at_the_start_does_not_use_up_its_time(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.clock.pauses_ms = {1: 5000}
    assert bench.run(0.02).seconds == pytest.approx(0.02)


def test_it_ends_when_it_is_told_to(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.clock.turn = lambda ms: bench.stop.set() if ms == 30 else None
    assert bench.run().seconds == pytest.approx(0.03, abs=0.002)


# -- modes and the operator -------------------------------------------------------------------


def test_modes_are_noted_in_their_order_and_an_unknown_one_is_damping(make: Callable[..., Bench]) -> None:
    bench = make()
    modes = [IDLE] * 10 + [STAND_UP] * 10 + [POLICY] * 10 + [DAMPING] * 10 + [IDLE] * 10 + [77] * 10
    bench.clock.turn = lambda ms: bench.say(modes[ms - 1]) if ms <= 60 else None
    report = bench.run(0.06)
    assert [mode for mode, _ in report.modes] == ["idle", "stand_up", "policy", "damping", "idle", "damping"]
    assert [at_s for _, at_s in report.modes] == pytest.approx([0.001, 0.01, 0.02, 0.03, 0.04, 0.05], abs=0.0015)


def test_the_operator_begins_when_a_controller_has_come_and_knows_the_mode(make: Callable[..., Bench]) -> None:
    """A request that is held when a controller starts was not made to it: who asks too early asks in vain."""
    bench = make()
    bench.clock.turn = lambda ms: bench.say(IDLE if ms < 600 else STAND_UP) if ms >= 500 else None
    bench.run(0.7)
    assert len(bench.asked) == 701  # before the first millisecond, too
    assert set(bench.asked[:500]) == {(0.0, "idle")}
    assert bench.asked[550][0] == pytest.approx(0.050, abs=0.002)
    assert bench.asked[590][1] == "idle"
    assert bench.asked[-1] == (pytest.approx(0.199, abs=0.003), "stand_up")


def test_somebody_who_walks_off_waits_stands_up_and_asks_for_the_policy_in_this_order() -> None:
    operate = walks_off(AHEAD)
    assert operate(0.0, "idle") == operate(0.19, "idle") == ("none", (0.0, 0.0, 0.0))
    assert operate(0.21, "idle") == operate(2.9, "stand_up") == ("stand_up", AHEAD)
    assert operate(3.1, "stand_up") == operate(100.0, "policy") == ("policy", AHEAD)


def twin(bench: Bench) -> Callable[[int], None]:
    """Return a controller: the mode machine in Python, whose policy holds the robot up for two seconds."""
    settings = ModeSettings(pose=tuple(POSE.tolist()), kp=(30.0,) * 12, kd=(1.0,) * 12)
    machine = ModeMachine(settings)
    posture = machine.begin("none", bench.clock.ns)

    def turn(ms: int) -> None:
        nonlocal posture
        record = bench.controller.reader.read()
        assert record is not None
        gyro, gravity, _, position, velocity, request = np.split(record.values, [3, 6, 9, 21, 33])
        body = BodyState(gyro, gravity, position, velocity)
        commanded = posture.mode != "policy" or ms * MS - (posture.since_ns - bench.clock.began_ns) < 2000 * MS
        posture = machine.next(posture, REQUESTS[int(request[0])], body, commanded, bench.clock.ns)
        out = machine.setpoint(posture, POSE + HOLDING_NM / 30, bench.clock.ns)
        bench.controller.writer.write(
            bench.clock.ns, MODES.index(posture.mode), np.concatenate([out.target, out.kp, out.kd])
        )

    return turn


def test_a_lying_robot_stands_up_and_is_handed_over(make: Callable[..., Bench]) -> None:
    bench = make(operator=walks_off(AHEAD))
    assert bench.body.low
    bench.clock.turn = twin(bench)
    standing = bench.run(4.9)
    assert [mode for mode, _ in standing.modes] == ["idle", "stand_up", "policy"]
    assert [at_s for _, at_s in standing.modes] == pytest.approx(
        [0.0, 0.24, 3.0], abs=0.1
    )  # it must come to rest first
    assert bench.body.motion.height_m == pytest.approx(0.345, abs=0.01)
    assert not standing.fell
    assert abs(standing.forward_mps) < 0.02 and abs(standing.yaw_radps) < 0.02


def test_a_robot_that_is_let_go_lies_down(make: Callable[..., Bench]) -> None:
    bench = make(operator=walks_off(AHEAD))
    bench.clock.turn = twin(bench)
    report = bench.run(7.5)
    assert [mode for mode, _ in report.modes] == ["idle", "stand_up", "policy", "damping"]
    assert report.modes[3][1] == pytest.approx(5.0, abs=0.1)
    assert report.fell


def test_a_robot_that_has_never_stood_has_not_fallen(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.clock.turn = lambda ms: bench.say(DAMPING, kp=0.0)
    report = bench.run(0.1)
    assert bench.body.low
    assert not report.fell


@pytest.mark.parametrize(("mode", "pushes"), [(POLICY, 2), (STAND_UP, 0)])
def test_it_is_pushed_every_three_seconds_while_the_policy_drives(
    mode: int, pushes: int, make: Callable[..., Bench]
) -> None:
    bench = make(push_mps=0.4)
    bench.body.reset(None)
    done: list[tuple[int, float]] = []
    bench.body.push = lambda speed, direction: done.append((bench.clock.ms, speed))  # type: ignore[method-assign]
    bench.body.follow = lambda *values, steps: None  # type: ignore[method-assign]  # physics take long
    bench.clock.turn = lambda ms: bench.say(mode if ms > 9 else IDLE)
    bench.run(6.1)
    assert len(done) == pushes
    assert done == [(pytest.approx(3000 * (i + 1), abs=2), 0.4) for i in range(pushes)]
