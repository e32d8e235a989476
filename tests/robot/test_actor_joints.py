"""The control loop of a robot with joints: a moment's patience, then damping, and then a person decides."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from policyloop.core.clock import Clock, MonotonicClock, VirtualClock
from policyloop.core.profile import EpisodeRules, RobotProfile
from policyloop.core.step import Action, Behaviour, Command, Observation, Step, TimedCommand
from policyloop.robot import actor as actor_module
from policyloop.robot.actor import Actor
from policyloop.robot.recorder import Recorder
from policyloop.safety.arming import ArmingLimits, ArmingSwitch
from policyloop.safety.gate import SafetyGate

MS = 1_000_000
LIMITS = ArmingLimits(healthy_ticks=3, unhealthy_ticks=80)
ARMED = 3
"""The first tick that is driven."""
Hook = Callable[[int], Any]
RAW = (0.5, -0.5, 1.0) * 4


def answer(*raw: float) -> Action:
    """Return what a policy with these outputs proposes to the Lite3."""
    values = np.array([0, -0.65, 1.3] * 4) + np.array([0.125, 0.25, 0.25] * 4) * raw
    behaviour = Behaviour(
        mean=raw, log_std=(-5.0,) * 12, sample=raw, log_prob=0.0, policy_version=1, policy_digest="0" * 64, backend="t"
    )
    return Action(tuple(values.tolist()), "policy", behaviour)


WALK = answer(*RAW)


class Legs:
    """A Lite3 on a stand: `reading(n)` and `proposing(n)` may change what the n-th tick sees and proposes."""

    def __init__(
        self, profile: RobotProfile, reading: Hook | None = None, proposing: Hook | None = None, *, armed: bool = True
    ) -> None:
        self.profile, self.reading, self.proposing = profile, reading, proposing
        self.clock: Clock = VirtualClock()
        self.switch = ArmingSwitch(LIMITS, arm_once=armed)
        self.tick = -1
        self.moved = False
        self.resets = 0
        self.seen: dict[int, list[float]] = {}
        self.commands: list[Command] = []
        self.executed_commands: list[Command] = []
        self.steps: list[Step] = []
        self.recorder = Recorder(profile, "r0", "b0", self.steps.append)

    def observation(self, gravity: tuple[float, float, float] = (0, 0, -1), **changes: Any) -> Observation:
        proprio = np.zeros(45, np.float32)
        proprio[3:6] = gravity
        observation = Observation({"proprio": proprio}, self.clock.now_ns())
        return msgspec.structs.replace(observation, **changes)

    def between_ticks(self) -> None:
        self.tick += 1

    def read(self) -> Observation:
        changed = self.reading(self.tick) if self.reading else None
        return self.observation() if changed is None else changed

    def begin_episode(self) -> bool:
        return self.moved

    def write(self, order: TimedCommand) -> None:
        self.commands.append(order.command)

    def propose(self, observation: Observation) -> Action:
        self.seen[self.tick] = observation.arrays["proprio"][33:].tolist()
        changed = self.proposing(self.tick) if self.proposing else None
        return WALK if changed is None else changed

    def executed(self, command: Command) -> None:
        self.executed_commands.append(command)

    def reset(self) -> None:
        self.resets += 1

    def actor(self, **options: Any) -> Actor:
        gate = SafetyGate(self.profile)
        options = {"arming": self.switch, "between_ticks": self.between_ticks, **options}
        return Actor(self.profile, self, self, self, gate, self.recorder, self.clock, **options)

    def run(self, ticks: int, **options: Any) -> Actor:
        actor = self.actor(**options)
        actor.run(threading.Event(), ticks=ticks)
        return actor

    @property
    def reasons(self) -> list[str]:
        """Why each tick's command is not what was proposed."""
        return [", ".join(command.reasons) for command in self.commands[:-1]]  # the last one is the shutdown's


def raises(error: Exception) -> Any:
    raise error


def test_an_armed_robot_follows_the_policy_and_ends_damping(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    legs.run(6)
    assert legs.reasons == ["disarmed"] * 3 + ["", "", ""]
    assert [command.damped for command in legs.commands] == [True] * 3 + [False] * 3 + [True]
    assert legs.commands[4].values == WALK.values
    assert legs.commands[-1] == lite3.stop("shutdown")
    assert legs.switch.now.state == "armed"


# -- late, wrong, fallen ----------------------------------------------------------------------


def test_an_inference_that_fails_is_held_for_50_ms_then_damped_then_tripped(lite3: RobotProfile) -> None:
    legs = Legs(lite3, proposing=lambda n: raises(TimeoutError("late")) if n >= 6 else None)
    actor = legs.run(14)
    # The last proposal is that of tick 5; ticks 6 to 9 are 12 to 48 ms later, tick 10 is 60 ms later.
    assert legs.reasons[5:] == [""] + ["held"] * 4 + ["no-proposal"] + ["tripped"] * 3
    assert [command.values == WALK.values for command in legs.commands[5:14]] == [True] * 5 + [False] * 4
    assert [command.damped for command in legs.commands[5:14]] == [False] * 5 + [True] * 4
    assert (legs.switch.now.state, legs.switch.now.reason) == ("tripped", "joints were let go: no-proposal")
    assert actor.errors == 5


@pytest.mark.parametrize("ticks", [1, 4])
def test_a_robot_walks_on_after_inference_failed_for_a_moment(ticks: int, lite3: RobotProfile) -> None:
    legs = Legs(lite3, proposing=lambda n: raises(ValueError("x")) if 6 <= n < 6 + ticks else None)
    legs.run(14)
    assert legs.reasons[6:] == ["held"] * ticks + [""] * (8 - ticks)
    assert legs.switch.now.state == "armed"
    gaps = [step.record.stamps.captured_ns // (12 * MS) for step in legs.steps if step.record.gap]
    assert len(gaps) == 2  # after the ticks before arming, and after the held ones


def test_an_inference_that_takes_longer_than_its_observation_lives_is_not_driven(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    clock = legs.clock
    assert isinstance(clock, VirtualClock)
    legs.proposing = lambda n: clock.advance_ns(50 * MS + 1) if n == 6 else None
    legs.run(9)
    assert legs.reasons[5:] == ["", "stale", "tripped", "tripped"]
    assert legs.switch.now.reason == "joints were let go: stale"


def leaned(roll_deg: float) -> tuple[float, float, float]:
    roll = math.radians(roll_deg)
    return 0.0, -math.sin(roll), -math.cos(roll)


WRONG: dict[str, tuple[Callable[[Legs], Any], Callable[[], Any], str, bool]] = {
    "a policy of nan": (lambda legs: None, lambda: answer(math.nan, *RAW[1:]), "not-finite", True),
    "eleven targets": (lambda legs: None, lambda: Action((0.0,) * 11, "policy"), "not-finite", False),
    "a stale observation": (
        lambda legs: legs.observation(captured_ns=legs.clock.now_ns() - 50 * MS - 1),
        lambda: None,
        "stale",
        False,
    ),
    "gravity of zero": (lambda legs: legs.observation((0, 0, 0)), lambda: None, "bad-observation", False),
    "a roll of 31 degrees": (lambda legs: legs.observation(leaned(31)), lambda: None, "fallen", False),
    "the belly on the floor": (lambda legs: legs.observation(contact=True), lambda: None, "contact", False),
    "44 numbers": (
        lambda legs: legs.observation(arrays={"proprio": np.zeros(44, np.float32)}),
        lambda: None,
        "no-observation",
        True,
    ),
    "46 numbers": (
        lambda legs: legs.observation(arrays={"proprio": np.zeros(46, np.float32)}),
        lambda: None,
        "no-observation",
        True,
    ),
    "a sensor of nan": (
        lambda legs: legs.observation((math.nan, 0, -1)),
        lambda: None,
        "no-observation",
        True,
    ),
    "an unplugged sensor": (lambda legs: raises(OSError("unplugged")), lambda: None, "no-observation", True),
}


@pytest.mark.parametrize(("reading", "proposing", "reason", "reported"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_lets_the_joints_go_at_once_and_trips(
    reading: Callable[[Legs], Any],
    proposing: Callable[[], Any],
    reason: str,
    reported: bool,
    lite3: RobotProfile,
) -> None:
    legs = Legs(lite3)
    legs.reading = lambda n: reading(legs) if n == 6 else None
    legs.proposing = lambda n: proposing() if n == 6 else None
    actor = legs.run(10)
    assert legs.reasons[5:7] == ["", reason]
    assert legs.commands[6].damped
    assert legs.commands[6].values == lite3.stop().values
    assert legs.reasons[7:] == ["tripped"] * 3
    assert legs.switch.now.state == "tripped"
    assert legs.switch.now.reason == f"joints were let go: {reason}"
    assert actor.errors == (1 if reported else 0)


def test_a_tripped_robot_waits_for_a_person_who_takes_note_and_arms_again(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    doings: dict[int, Callable[[], Any]] = {
        6: lambda: legs.observation(leaned(40)),
        9: lambda: legs.switch.disarm(),
        10: lambda: legs.switch.arm(),
    }
    legs.reading = lambda n: doings[n]() if n in doings else None
    legs.run(13)
    assert legs.reasons[6:] == ["fallen", "tripped", "tripped", "disarmed", "", "", ""]
    assert legs.commands[10].values == WALK.values


def test_a_robot_that_nobody_armed_damps_without_a_trip(lite3: RobotProfile) -> None:
    legs = Legs(lite3, armed=False)
    legs.reading = lambda n: legs.observation(leaned(31)) if n == 4 else None
    legs.run(6)
    assert legs.reasons == ["disarmed"] * 6
    assert legs.switch.now.state == "disarmed"


def test_what_a_person_does_wrong_lets_the_joints_go_but_is_the_persons_own(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    by_hand = Action((math.nan,) * 12, "human")
    legs.run(9, human=lambda: by_hand if legs.tick == 6 else None)
    assert legs.reasons[5:] == ["", "not-finite", "", ""]
    assert legs.commands[6].damped
    assert legs.switch.now.state == "armed"


def test_a_robot_without_a_switch_goes_on_as_soon_as_it_can(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    legs.reading = lambda n: legs.observation(captured_ns=-51 * MS) if n == 1 else None
    legs.run(3, arming=None)
    assert legs.reasons == ["", "stale", ""]


def test_a_halt_in_the_middle_of_a_tick_lets_the_joints_go_and_trips(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    actor = legs.actor()
    legs.proposing = lambda n: actor._outlet.halt("late") if n == 6 else None
    actor.run(threading.Event(), ticks=9)
    assert legs.reasons[5:] == ["", "late", "halted", "tripped", "tripped"]
    assert legs.switch.now.reason == "joints were let go: halted"


class LateAt:
    """A watchdog that finds the loop late at one of its ticks, as it begins."""

    tick = 8

    def __init__(self, rates: Any, late: Callable[[], None], hung: Callable[[], None]) -> None:
        self._late, self._pets = late, 0

    def pet(self) -> None:
        if self._pets == self.tick:
            self._late()
        self._pets += 1

    def close(self) -> None:
        pass


def test_a_halt_between_two_ticks_trips_a_robot_with_joints(
    lite3: RobotProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick that follows would not notice: it began after the halt."""
    monkeypatch.setattr(actor_module, "LoopWatchdog", LateAt)
    patient = msgspec.structs.replace(lite3.rates, sensor_timeout_s=10.0)  # in real time, on a machine that is shared
    legs = Legs(msgspec.structs.replace(lite3, rates=patient))
    legs.clock = MonotonicClock()
    legs.run(12)
    late = legs.reasons.index("late")
    assert late > ARMED
    assert set(legs.reasons[late + 1 :]) == {"tripped"}
    assert legs.switch.now.state == "tripped"
    assert "late" in legs.switch.now.reason


def test_a_halt_between_two_ticks_does_not_trip_a_robot_that_nobody_has_armed_yet(
    lite3: RobotProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its joints were not held: there is nothing to let go, and it may be armed as soon as input is healthy."""
    monkeypatch.setattr(actor_module, "LoopWatchdog", LateAt)
    monkeypatch.setattr(LateAt, "tick", 1)
    patient = msgspec.structs.replace(lite3.rates, sensor_timeout_s=10.0)
    legs = Legs(msgspec.structs.replace(lite3, rates=patient))
    legs.clock = MonotonicClock()
    legs.run(8)
    assert legs.reasons.count("late") == 1
    assert "tripped" not in legs.reasons
    assert legs.switch.now.state == "armed"


def test_a_halt_between_two_ticks_does_not_trip_a_robot_that_just_stands_still(
    walker: RobotProfile, lite3: RobotProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor_module, "LoopWatchdog", LateAt)
    patient = msgspec.structs.replace(lite3.rates, sensor_timeout_s=10.0)
    legs = Legs(msgspec.structs.replace(walker, proprio=lite3.proprio[:2], rates=patient))
    legs.clock = MonotonicClock()
    legs.reading = lambda n: Observation({"proprio": np.array([0, 0, 0, 0, 0, -1], "f")}, legs.clock.now_ns())
    legs.proposing = lambda n: Action((0.1, 0.1, 0.1), "policy")
    legs.run(12)
    late = legs.reasons.index("late")
    assert set(legs.reasons[late + 1 :]) == {""}
    assert legs.switch.now.state == "armed"


def test_a_halt_between_two_ticks_of_a_robot_without_a_switch_is_just_a_stop(
    lite3: RobotProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor_module, "LoopWatchdog", LateAt)
    patient = msgspec.structs.replace(lite3.rates, sensor_timeout_s=10.0)
    legs = Legs(msgspec.structs.replace(lite3, rates=patient))
    legs.clock = MonotonicClock()
    legs.run(12, arming=None)
    assert legs.reasons.count("late") == 1
    assert legs.reasons[-1] == ""


# -- what the policy is told that it answered ---------------------------------------------------

ZEROS = [0.0] * 12
LAST = [float(np.float32(value)) for value in RAW]


def test_the_last_output_is_zero_at_the_first_tick_and_then_what_it_was(lite3: RobotProfile) -> None:
    legs = Legs(lite3, proposing=lambda n: answer(*[n / 4] * 12))
    legs.run(6)
    assert legs.seen == {3: ZEROS, 4: [0.75] * 12, 5: [1.0] * 12}


def test_it_is_what_the_policy_said_and_not_what_the_gate_let_through(lite3: RobotProfile) -> None:
    legs = Legs(lite3, proposing=lambda n: answer(*[100.0] * 12))
    legs.run(5)
    assert legs.commands[3].reasons == ("limits", "slew")
    assert legs.seen[4] == [100.0] * 12


def test_it_is_recorded_with_the_observation_that_the_policy_saw(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    legs.run(6)
    assert [step.observation["proprio"][33:].tolist() for step in legs.steps] == [ZEROS, LAST]


def test_what_was_held_is_still_the_last_output(lite3: RobotProfile) -> None:
    legs = Legs(lite3, proposing=lambda n: raises(ValueError("x")) if n == 6 else None)
    legs.run(8)
    assert (legs.seen[6], legs.seen[7]) == (LAST, LAST)


def test_a_new_episode_starts_with_zeros(lite3: RobotProfile) -> None:
    legs = Legs(msgspec.structs.replace(lite3, episode=EpisodeRules(max_steps=3)))
    legs.run(8, arming=None)
    assert legs.resets == 2
    assert legs.seen == {0: ZEROS, 1: LAST, 2: LAST, 3: ZEROS, 4: LAST, 5: LAST, 6: ZEROS, 7: LAST}


def test_a_robot_that_was_tripped_starts_with_zeros(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    doings: dict[int, Callable[[], Any]] = {5: lambda: legs.switch.trip("x"), 6: legs.switch.disarm, 7: legs.switch.arm}
    legs.reading = lambda n: doings[n]() if n in doings else None
    legs.run(9)
    assert legs.reasons[4:] == ["", "tripped", "disarmed", "", ""]
    assert legs.seen == {3: ZEROS, 4: LAST, 7: ZEROS, 8: LAST}


def test_joints_that_were_let_go_start_with_zeros(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    legs.proposing = lambda n: answer(*[math.nan] * 12) if n == 2 else None
    legs.run(5, arming=None)
    assert legs.reasons == ["", "", "not-finite", "", ""]
    assert legs.seen == {0: ZEROS, 1: LAST, 2: LAST, 3: ZEROS, 4: LAST}


def test_an_observation_that_is_missing_starts_with_zeros_again(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    legs.reading = lambda n: raises(OSError("x")) if n == 2 else None
    legs.run(5, arming=None)
    assert legs.seen == {0: ZEROS, 1: LAST, 3: ZEROS, 4: LAST}


# -- a controller that does something of its own -------------------------------------------------


def test_while_the_controller_stands_up_the_policy_is_not_in_command(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    legs.reading = lambda n: legs.observation(followed=False) if n in (5, 6) else None
    legs.run(10)
    assert legs.reasons[3:] == [""] * 7
    assert legs.seen == {3: ZEROS, 4: LAST, 5: LAST, 6: ZEROS, 7: ZEROS, 8: LAST, 9: LAST}
    assert len(legs.executed_commands) == 5  # not in ticks 5 and 6
    assert legs.switch.now.state == "armed"


def test_ticks_that_were_not_followed_are_not_recorded_and_leave_a_gap(lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    legs.reading = lambda n: legs.observation(followed=False) if n in (2, 3) else None
    legs.run(7, arming=None)
    period_ns = lite3.rates.period_ns
    recorded = [(step.record.stamps.captured_ns // period_ns, step.record.gap) for step in legs.steps]
    assert recorded == [(0, False), (1, False), (4, True), (5, False)]
    before = [step.record.previous_command for step in legs.steps]
    assert before[1] == WALK.values
    assert before[2] == lite3.stop().values


# -- how an episode ends ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["leaning", "lying"])
def test_a_fall_ends_the_episode_for_good(how: str, lite3: RobotProfile) -> None:
    legs = Legs(lite3)
    legs.moved = True
    fallen = {"leaning": lambda: legs.observation(leaned(31)), "lying": lambda: legs.observation(contact=True)}[how]
    down = [True]
    legs.reading = lambda n: fallen() if n == 3 and down and down.pop() else None
    legs.run(6, arming=None)
    (end,) = [step.record for step in legs.steps if step.record.ended]
    assert (end.index, end.terminated, end.truncated) == (2, True, False)
    assert legs.recorder.episodes[0].collided
    assert legs.reasons == [""] * 6  # it stands again, somewhere else
    assert legs.seen[3] == ZEROS
