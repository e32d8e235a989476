"""A controller that sets the pace: a tick for each of its frames, half a tick of grace, and damping without them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation, TimedCommand
from policyloop.errors import ConnectionFailed
from policyloop.robot.actor import Actor, TickReport
from policyloop.robot.recorder import Recorder
from policyloop.safety.arming import ArmingLimits, ArmingSwitch
from policyloop.safety.gate import SafetyGate

MS = 1_000_000
TARGETS = (0.05, -0.7, 1.35) * 4


class Controller:
    """Sends frames at given times, ms; what it is told, and when, is kept."""

    def __init__(self, profile: RobotProfile, frames_ms: Sequence[float], *, work_ms: float = 0.0) -> None:
        self.profile, self.clock = profile, VirtualClock()
        self.work_ns = round(work_ms * MS)
        self._frames = [round(at_ms * MS) for at_ms in frames_ms]
        self._captured_ns: int | None = None
        self.waits: list[bool] = []
        self.told: list[tuple[float, Command]] = []
        self.asked = 0
        self.switch = ArmingSwitch(ArmingLimits(healthy_ticks=3, unhealthy_ticks=80), arm_once=True)
        self.stop = threading.Event()

    def wait(self, deadline_ns: int) -> bool:
        came = bool(self._frames) and self._frames[0] <= deadline_ns
        if came:
            self._captured_ns = self._frames.pop(0)
            self.clock.sleep_until_ns(self._captured_ns)
        else:
            self.clock.sleep_until_ns(deadline_ns)
        self.waits.append(came)
        return came

    def read(self) -> Observation:
        if self._captured_ns is None:
            raise ConnectionFailed("no state has come")
        proprio = np.zeros(45, np.float32)
        proprio[5] = -1
        return Observation({"proprio": proprio}, self._captured_ns)

    def begin_episode(self) -> bool:
        return False

    def write(self, order: TimedCommand) -> None:
        self.told.append((self.clock.now_ns() / MS, order.command))

    def propose(self, observation: Observation) -> Action:
        self.asked += 1
        self.clock.advance_ns(self.work_ns)
        return Action(TARGETS, "scripted")

    def executed(self, command: Command) -> None:
        pass

    def reset(self) -> None:
        pass

    def run(self, ticks: int) -> TickReport:
        recorder = Recorder(self.profile, "r0", "b0")
        actor = Actor(
            self.profile,
            self,
            self,
            self,
            SafetyGate(self.profile),
            recorder,
            self.clock,
            arming=self.switch,
            await_input=self.wait,
        )
        actor.run(self.stop, ticks=ticks)
        return actor.report()

    @property
    def times_ms(self) -> list[float]:
        """When each tick's command was written."""
        return [at_ms for at_ms, _ in self.told[:-1]]  # the last one is the shutdown's

    @property
    def reasons(self) -> list[str]:
        return [", ".join(command.reasons) for _, command in self.told[:-1]]


def test_each_frame_is_a_tick_at_once(lite3: RobotProfile) -> None:
    frames = [3 + 12.0 * n for n in range(20)]
    controller = Controller(lite3, frames)
    report = controller.run(20)
    assert controller.waits == [True] * 20
    assert controller.times_ms == pytest.approx(frames)
    assert controller.reasons == ["disarmed"] * 3 + [""] * 17
    assert (report.ticks, report.missed, report.lateness_max_ms) == (20, 0, 0.0)


@pytest.mark.parametrize("every_ms", [4.0, 11.0, 13.0, 17.9])
def test_the_controllers_pace_is_the_pace(every_ms: float, lite3: RobotProfile) -> None:
    frames = [every_ms * n for n in range(20)]
    controller = Controller(lite3, frames)
    report = controller.run(20)
    assert controller.times_ms == pytest.approx(frames)
    assert (report.missed, report.lateness_max_ms) == (0, 0.0)


@pytest.mark.parametrize(("late_ms", "ticks_at"), [(5.9, [77.9]), (6.1, [78.0, 78.1])])
def test_a_controller_that_is_late_gets_half_a_tick_of_grace(
    late_ms: float, ticks_at: list[float], lite3: RobotProfile
) -> None:
    """Frames at 0, 12, ... 60; the next is due at 72, and a tick without it begins at 78."""
    frames = [12.0 * n for n in range(6)] + [72 + late_ms, 84 + late_ms, 96 + late_ms]
    controller = Controller(lite3, frames)
    controller.run(len(frames) + len(ticks_at) - 1)
    assert controller.times_ms == pytest.approx([*frames[:6], *ticks_at, *frames[7:]])
    assert controller.switch.now.state == "armed"


def test_a_policy_is_not_asked_for_an_answer_that_nobody_gets(lite3: RobotProfile) -> None:
    frames = [12.0 * n for n in range(6)] + [12.0 * n for n in range(8, 12)]  # two are missing
    controller = Controller(lite3, frames)
    controller.run(12)
    armed = [reason for reason in controller.reasons if reason != "disarmed"]
    assert armed.count("held") == controller.waits.count(False) > 0
    assert controller.asked == armed.count("") == len(armed) - armed.count("held")


def test_a_frame_that_waits_already_is_a_tick_at_once(lite3: RobotProfile) -> None:
    controller = Controller(lite3, [0, 1, 2, 3], work_ms=5.0)
    controller.run(7)
    # Three ticks disarmed take no time; the fourth begins with its frame, and is done 5 ms later.
    assert controller.waits[:4] == [True] * 4
    assert controller.times_ms[3] == pytest.approx(8.0)


def test_ticks_without_a_frame_end_in_damping(lite3: RobotProfile) -> None:
    """The newest state is of 108 ms; ticks without another come every 18 ms, and 50 ms is what a state is good for."""
    controller = Controller(lite3, [12.0 * n for n in range(10)])
    controller.run(18)
    assert controller.waits == [True] * 10 + [False] * 8
    assert controller.times_ms[10:] == pytest.approx([108 + 18 * n for n in range(1, 9)])
    assert controller.reasons[10:12] == ["held", "held"]
    assert controller.reasons[12:] == ["stale"] + ["tripped"] * 5
    assert [command.damped for _, command in controller.told[9:]] == [False] * 3 + [True] * 7
    assert controller.switch.now.reason == "joints were let go: stale"


def test_frames_that_come_again_move_nothing_before_a_person_says_so(lite3: RobotProfile) -> None:
    controller = Controller(lite3, [12.0 * n for n in range(10)] + [400 + 12.0 * n for n in range(20)])
    controller.run(40)
    assert controller.reasons[-5:] == ["tripped"] * 5


def test_without_a_controller_it_damps_and_waits(lite3: RobotProfile) -> None:
    controller = Controller(lite3, [])
    report = controller.run(20)
    assert controller.asked == 0
    assert controller.switch.now.state == "disarmed"
    assert all(command.damped for _, command in controller.told)
    assert np.diff(controller.times_ms) == pytest.approx([18.0] * 19)
    assert report.missed == 0


def test_it_arms_when_the_controller_has_been_there_for_long_enough(lite3: RobotProfile) -> None:
    controller = Controller(lite3, [500 + 12.0 * n for n in range(10)])
    controller.run(60)
    first = next(i for i, (_, command) in enumerate(controller.told) if not command.damped)
    assert controller.told[first][0] == pytest.approx(500 + 3 * 12)


def test_it_ends_when_it_is_told_to_while_no_controller_comes(lite3: RobotProfile) -> None:
    controller = Controller(lite3, [])
    waits = controller.wait

    def wait(deadline_ns: int) -> bool:
        if len(controller.waits) == 5:
            controller.stop.set()
        return waits(deadline_ns)

    controller.wait = wait  # type: ignore[method-assign]
    assert controller.run(1000).ticks == 6
    assert controller.told[-1][1] == lite3.stop("shutdown")


def test_a_tick_that_takes_too_long_costs_frames_and_is_counted(lite3: RobotProfile) -> None:
    controller = Controller(lite3, [12.0 * n for n in range(4)], work_ms=40.0)
    report = controller.run(4)
    assert report.work_max_ms == pytest.approx(40.0)
    assert report.missed == 2  # after 36 + 40 ms the next was due at 48: two whole ticks are over, the third is to come
