"""One fault, from a robot that drives to one that stands, is explained, and is armed again by hand."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np

from policyloop.chaos.faults import Fault
from policyloop.core.clock import Clock, MonotonicClock, VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation, TimedCommand
from policyloop.errors import SafetyRefusal
from policyloop.robot.actor import Actor
from policyloop.robot.recorder import Recorder
from policyloop.safety.arming import ArmingLimits, ArmingSwitch
from policyloop.safety.gate import SafetyGate
from policyloop.sim.driver import ScriptedDriver
from policyloop.sim.robot import SimulatedRobot

__all__ = ["Outcome", "try_fault"]

_DRIVES_MPS, _STANDS_MPS = 0.15, 0.02
_WARM_UP_TICKS, _FAULTY_TICKS, _AFTER_TICKS, _AGAIN_TICKS = 300, 30, 25, 30
_AT_ONCE_S = 0.6
"""A sensor's timeout, two ticks, and the tick in which the fault begins."""

Phase = Literal["warm", "faulty", "after", "again"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a robot did when something went wrong.

    Attributes:
        said: Why commands were changed while it was so, the most frequent first.
        stopped_after_s: From the fault to the last command that was not zero; None = it drove on.
        travelled_m: From the fault to its end.
        state: Of the arming when the fault was over, and why.
        moved_by_itself: It moved after a trip before anybody armed it.
        armed_again: A person could arm it, and then it drove.
    """

    name: str
    what: str
    must: str
    said: list[str]
    stopped_after_s: float | None
    travelled_m: float
    contact: bool
    state: str
    reason: str
    moved_by_itself: bool
    armed_again: bool
    passed: bool


class _Rig:
    """A simulated rover, and a place between it and its program where faults happen."""

    def __init__(self, profile: RobotProfile, fault: Fault, seed: int) -> None:
        self.clock: Clock = MonotonicClock() if fault.real_time else VirtualClock()
        self.robot = SimulatedRobot(profile, [seed], np.random.default_rng(seed), self.clock)
        self.switch = ArmingSwitch(ArmingLimits.of(profile), arm_once=True)
        self.stop = threading.Event()
        self.phase: Phase = "warm"
        self.written: list[tuple[Phase, int, Command]] = []
        self.places: list[tuple[Phase, float, float]] = []
        self.contact = self.refused = False
        self.trouble: tuple[str, str] = ("", "")
        self.speeds_mps: dict[Phase, float] = {}
        self._fault, self._driver = fault, ScriptedDriver(profile)
        self._ticks = 0
        self._last = self.robot.read()
        endless = msgspec.structs.replace(profile.episode, max_steps=1 << 30, collision_distance_m=1e-3)
        recorder = Recorder(msgspec.structs.replace(profile, episode=endless), "chaos", "")
        self.actor = Actor(
            profile,
            self,
            self,
            self,
            SafetyGate(profile),
            recorder,
            self.clock,
            arming=self.switch,
            between_ticks=self._conduct,
        )

    def _conduct(self) -> None:
        """Move on to the next phase when the present one has lasted long enough."""
        self._ticks += 1
        lasts = {"warm": _WARM_UP_TICKS, "faulty": _FAULTY_TICKS, "after": _AFTER_TICKS, "again": _AGAIN_TICKS}
        speed_mps = abs(float(self._last.arrays["proprio"][0])) if self.phase != "faulty" else 0.0
        self.speeds_mps[self.phase] = max(self.speeds_mps.get(self.phase, 0.0), speed_mps)
        if self.phase == "warm" and speed_mps > _DRIVES_MPS and self.switch.now.state == "armed":
            self._begin("faulty")
        elif self._ticks < lasts[self.phase]:
            return
        elif self.phase == "faulty":
            self.trouble = (self.switch.now.state, self.switch.now.reason)
            self._begin("after")
        elif self.phase == "after":
            self._arm()
            self._begin("again")
        else:
            self.stop.set()

    def _begin(self, phase: Phase) -> None:
        self.phase, self._ticks = phase, 0
        self.speeds_mps[phase] = 0.0

    def _arm(self) -> None:
        if self.switch.now.state != "armed":
            try:
                self.switch.arm()
            except SafetyRefusal:
                self.refused = True

    # -- what the actor talks to ----------------------------------------------------------------

    def read(self) -> Observation:
        """Look, through the fault if there is one."""
        seen = self.robot.read()
        self.contact |= seen.contact and self.phase == "faulty"
        self.places.append((self.phase, *self.robot.rover.pose[:2]))
        if self.phase == "faulty":
            return self._fault.sees(seen, self._last)
        self._last = seen
        return seen

    def begin_episode(self) -> bool:
        """Stay where it is."""
        return False

    def write(self, order: TimedCommand) -> None:
        """Pass a command on, and note it."""
        self.written.append((self.phase, self.clock.now_ns(), order.command))
        self.robot.write(order)

    def propose(self, observation: Observation) -> Action:
        """Ask the scripted driver, through the fault if there is one."""
        action = self._driver.propose(observation)
        return self._fault.proposes(action) if self.phase == "faulty" else action

    def executed(self, command: Command) -> None:
        """Tell the driver."""
        self._driver.executed(command)

    def reset(self) -> None:
        """Tell the driver."""
        self._driver.reset()


def try_fault(profile: RobotProfile, fault: Fault, seed: int = 3) -> Outcome:
    """Let a scripted rover drive, break something, mend it, and arm it again by hand."""
    rig = _Rig(profile, fault, seed)
    rig.actor.run(rig.stop)
    faulty = [(at_ns, command) for phase, at_ns, command in rig.written if phase == "faulty"]
    said = Counter(reason for _, command in faulty for reason in command.reasons if reason != "slew")
    moving_ns = [at_ns for at_ns, command in faulty if any(command.values)]
    ahead = any(command.values[0] > 0 for _, command in faulty[len(faulty) // 2 :])
    stands = not any(any(command.values) for _, command in faulty[len(faulty) // 2 :])
    stopped_after_s = (moving_ns[-1] - faulty[0][0]) * 1e-9 if moving_ns else 0.0
    where = [np.array(place) for phase, *place in rig.places if phase == "faulty"]
    moved_by_itself = rig.trouble[0] == "tripped" and rig.speeds_mps["after"] > _STANDS_MPS
    armed_again = not rig.refused and rig.speeds_mps.get("again", 0.0) > 0
    kept = {
        "stand": stands and stopped_after_s <= _AT_ONCE_S and rig.trouble[0] == "tripped",
        "halt": not ahead,
        "endure": True,
    }[fault.must]
    return Outcome(
        name=fault.name,
        what=fault.what,
        must=fault.must,
        said=[reason for reason, _ in said.most_common(3)],
        stopped_after_s=stopped_after_s if stands else None,
        travelled_m=float(sum(np.linalg.norm(b - a) for a, b in pairwise(where))),
        contact=rig.contact,
        state=rig.trouble[0],
        reason=rig.trouble[1],
        moved_by_itself=moved_by_itself,
        armed_again=armed_again,
        passed=kept and not rig.contact and not moved_by_itself and armed_again,
    )
