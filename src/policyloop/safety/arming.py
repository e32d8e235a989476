"""Who may move the robot: a machine of four states, pure, and small enough to explore whole.

    disarmed --arm--> armed --trip--> tripped      nobody, the policy, nobody (latched)
        |               |
        +----human------+--> human                 a person; the policy again only if it drove before

A robot starts disarmed. Arming is an act of a person, and needs a second of healthy input; nothing arms a robot by
itself, not after a trip, not after a swap, not after a restart. Time is counted in ticks.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Literal

import msgspec

from policyloop.core.profile import RobotProfile
from policyloop.errors import SafetyRefusal

__all__ = ["ArmState", "Arming", "ArmingLimits", "ArmingSwitch"]

log = logging.getLogger(__name__)

ArmState = Literal["disarmed", "armed", "human", "tripped"]

_HEALTHY_S = 1.0
_UNHEALTHY_S = 1.0


class ArmingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long input must be healthy before arming, and how long it may be unhealthy before a trip, in ticks."""

    healthy_ticks: int
    unhealthy_ticks: int

    @classmethod
    def of(cls, profile: RobotProfile) -> ArmingLimits:
        """Return a second each."""
        hz = profile.rates.control_hz
        return cls(healthy_ticks=math.ceil(_HEALTHY_S * hz), unhealthy_ticks=math.ceil(_UNHEALTHY_S * hz))


class Arming(msgspec.Struct, frozen=True, kw_only=True):
    """The state, and what it takes to leave it.

    Attributes:
        state: Who may move the robot.
        reason: Why it is tripped.
        healthy: Consecutive ticks with healthy input, counted as far as it matters.
        unhealthy: The same without.
        stop_held: An emergency stop is pressed.
        resumes: The policy drove when the person took over.
    """

    state: ArmState = "disarmed"
    reason: str = ""
    healthy: int = 0
    unhealthy: int = 0
    stop_held: bool = False
    resumes: bool = False

    def ticked(self, limits: ArmingLimits, *, healthy: bool) -> Arming:
        """A tick has passed."""
        counted = _with(
            self,
            healthy=min(self.healthy + 1, limits.healthy_ticks) if healthy else 0,
            unhealthy=0 if healthy else min(self.unhealthy + 1, limits.unhealthy_ticks),
        )
        if counted.unhealthy >= limits.unhealthy_ticks and self.state in ("armed", "human"):
            return counted.tripped("no healthy input")
        return counted

    def armed(self, limits: ArmingLimits) -> Arming:
        """A person arms the robot; SafetyRefusal if it cannot be now."""
        if self.stop_held:
            raise SafetyRefusal("the emergency stop is pressed", "release it first")
        if self.state == "human":
            raise SafetyRefusal("a person drives", "let go first")
        if self.healthy < limits.healthy_ticks:
            raise SafetyRefusal("input has not been healthy for a second", "see what the sensors say, and try again")
        return _with(self, state="armed", reason="")

    def disarmed(self) -> Arming:
        """A person disarms the robot, or takes note of a trip."""
        return self if self.stop_held else _with(self, state="disarmed", reason="", resumes=False)

    def tripped(self, reason: str) -> Arming:
        """Something is wrong: stop, and stay so."""
        return self if self.state == "tripped" else _with(self, state="tripped", reason=reason, resumes=False)

    def stopped(self, *, held: bool) -> Arming:
        """An emergency stop is pressed, or released; releasing it moves nothing."""
        return _with(self.tripped("emergency stop") if held else self, stop_held=held)

    def taken(self, *, by_human: bool) -> Arming:
        """A person takes the controls, or lets go."""
        if by_human and self.state in ("disarmed", "armed"):
            return _with(self, state="human", resumes=self.state == "armed")
        if not by_human and self.state == "human":
            again = self.resumes and self.healthy > 0
            return _with(self, state="armed" if again else "disarmed", resumes=False)
        return self


def _with(arming: Arming, **changes: object) -> Arming:
    return msgspec.structs.replace(arming, **changes)


class ArmingSwitch:
    """The one arming of a robot, for the several threads that have a say in it.

    Args:
        limits: Of its profile.
        arm_once: A person has asked, when the program was started, to be armed as soon as input is healthy; a trip or
            a take-over before that ends the wish.
    """

    def __init__(self, limits: ArmingLimits, *, arm_once: bool = False) -> None:
        self._limits = limits
        self._arm_once = arm_once
        self._lock = threading.Lock()
        self._arming = Arming()

    @property
    def now(self) -> Arming:
        """How it stands."""
        return self._arming

    def tick(self, *, healthy: bool, by_human: bool) -> ArmState:
        """Count a tick; returns who may move the robot in it."""
        if self._arm_once and self._arming.healthy >= self._limits.healthy_ticks:
            self._change(lambda arming: arming.armed(self._limits) if arming.state == "disarmed" else arming)
        return self._change(lambda arming: arming.taken(by_human=by_human).ticked(self._limits, healthy=healthy)).state

    def arm(self) -> None:
        """See `Arming.armed`."""
        self._change(lambda arming: arming.armed(self._limits))

    def disarm(self) -> None:
        """See `Arming.disarmed`."""
        self._change(Arming.disarmed)

    def trip(self, reason: str) -> None:
        """See `Arming.tripped`."""
        self._change(lambda arming: arming.tripped(reason))

    def stop(self, *, held: bool) -> None:
        """See `Arming.stopped`."""
        self._change(lambda arming: arming.stopped(held=held))

    def _change(self, change: Callable[[Arming], Arming]) -> Arming:
        with self._lock:
            before, self._arming = self._arming, change(self._arming)
            after = self._arming
            self._arm_once = self._arm_once and after.state == "disarmed"
        if after.state != before.state:
            level = logging.ERROR if after.state == "tripped" else logging.WARNING
            log.log(level, "the robot is %s%s", after.state, f": {after.reason}" if after.reason else "")
        return after
