"""The SafetyGate: the last thing before the wheels, always in the path.

Rules in order: armed, finite, fresh, within limits, no faster change than the motors can follow; then the
distance ahead, and what the body would sweep in any direction until it can stand, which may only bring the
command closer to standing still, and at once. Missing, stale or unknown data means stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation
from policyloop.errors import IncompatibleError
from policyloop.safety.arming import ArmState
from policyloop.safety.clearance import Clearance

__all__ = ["GateMode", "SafetyGate"]

GateMode = Literal["full", "limits"]
"""`limits` leaves out the distance rules: only for a simulated robot that may bump into things."""

_MOVES_MPS, _TURNS_RADPS = 0.05, 0.1


class SafetyGate:
    """Turns proposals into commands.

    Args:
        profile: Limits, rates and the order of the action vector.
        mode: `full` on every real robot.
    """

    def __init__(self, profile: RobotProfile, mode: GateMode = "full") -> None:
        self._profile = profile
        self._mode = mode
        self._stop = tuple(0.0 for _ in profile.action)
        self._last = self._stop
        self._slews = [_slew_of(quantity.name, profile) for quantity in profile.action]
        names = [quantity.name for quantity in profile.action]
        self._linear, self._angular = (names.index(n) if n in names else None for n in ("linear", "angular"))
        self._clearance = Clearance(profile) if mode == "full" and self._linear is not None else None
        self._watches_picture = mode == "full" and profile.camera is not None
        senses = {quantity.name for quantity in profile.proprio}
        moving = (("linear_vel", _MOVES_MPS), ("angular_vel", _TURNS_RADPS))
        self._motion = [(profile.proprio_index(name), least) for name, least in moving if name in senses]
        self._timeout_ns = round(profile.rates.sensor_timeout_s * 1e9)
        self._forget()

    def reset(self) -> None:
        """Forget what is around, and what was driven: a simulated robot was moved to another place."""
        self._last = self._stop
        if self._clearance is not None:
            self._clearance.reset()
        self._forget()

    def _forget(self) -> None:
        self._picture: NDArray[np.generic] | None = None
        self._fresh_ns, self._frozen = 0, False

    def check(
        self, action: Action | None, observation: Observation | None, now_ns: int, state: ArmState = "armed"
    ) -> Command:
        """Return what may be driven, with the name of every rule that changed the proposal.

        Args:
            action: The proposal; None = there is none.
            observation: What it was made from; None = there is none.
            now_ns: Monotonic time.
            state: Who may move the robot; a simulated one is always armed.
        """
        if observation is not None and not self._unreadable(observation, now_ns):
            self._notice_a_frozen_picture(observation, now_ns)
            if self._clearance is not None:
                self._clearance.look(observation)  # also while nothing may be driven: a robot rolls on
        command = self.rules(action, observation, now_ns, state)
        self._last = command.values
        return command

    def blind(self, observation: Observation | None, now_ns: int) -> str:
        """Return why the observation tells nothing about now, or an empty string."""
        return self._unreadable(observation, now_ns) or ("frozen" if self._frozen else "")

    def _unreadable(self, observation: Observation | None, now_ns: int) -> str:
        if observation is None:
            return "no-observation"
        if not 0 <= now_ns - observation.captured_ns <= self._timeout_ns:
            return "stale"
        try:
            for name, spec in self._profile.observation_specs.items():
                spec.validate(observation.arrays[name])
        except (KeyError, IncompatibleError):
            return "bad-observation"
        return ""

    def _notice_a_frozen_picture(self, observation: Observation, now_ns: int) -> None:
        """Note whether the depth picture changes: noise makes no two equal, least of all while the robot moves."""
        if not self._watches_picture:
            return
        depth, proprio = observation.arrays["depth"], observation.arrays["proprio"]
        if self._picture is None or not np.array_equal(depth, self._picture):
            self._picture = depth.copy()  # a driver may use its buffer again
            self._fresh_ns, self._frozen = now_ns, False
        elif any(abs(float(proprio[at])) > least for at, least in self._motion):
            self._frozen = self._frozen or now_ns - self._fresh_ns > self._timeout_ns
        elif not self._frozen:  # standing still, one may see the same; but that does not thaw a frozen picture
            self._fresh_ns = now_ns

    def rules(
        self, action: Action | None, observation: Observation | None, now_ns: int, state: ArmState = "armed"
    ) -> Command:
        """Apply the rules to what was perceived last; changes nothing. Arguments as in `check`."""
        reason = self._unfit(action, observation, self.blind(observation, now_ns), state)
        if reason or action is None or observation is None:
            return Command(self._stop, (reason,))
        values = self._clamped(action.values)
        reasons = () if tuple(values) == action.values else ("limits",)
        slewed = self._clamped([_between(*entry) for entry in zip(values, self._last, self._slews, strict=True)])
        if slewed != values:
            values, reasons = slewed, (*reasons, "slew")
        return self._clear(Command(tuple(values), reasons), observation, now_ns)

    def _clear(self, command: Command, observation: Observation, now_ns: int) -> Command:
        """Apply the rules of distance: no faster than the way ahead allows, no motion that sweeps an obstacle."""
        if self._clearance is None or self._linear is None:
            return command
        values, reasons = list(command.values), command.reasons
        if values[self._linear] > (fastest := self._clearance.fastest_mps(observation, now_ns)):
            values[self._linear] = fastest
            reasons = (*reasons, "distance")
        angular = 0.0 if self._angular is None else values[self._angular]
        if (share := self._clearance.clear_share(values[self._linear], angular)) < 1:
            values = [value * share for value in values]
            reasons = (*reasons, "surroundings")
        return Command(tuple(values), reasons)

    def _clamped(self, values: Sequence[float]) -> list[float]:
        quantities = self._profile.action
        return [min(max(value, entry.low), entry.high) for value, entry in zip(values, quantities, strict=True)]

    def _unfit(self, action: Action | None, observation: Observation | None, blind: str, state: ArmState) -> str:
        """Return why nothing may be driven at all, or an empty string."""
        if state in ("disarmed", "tripped"):
            return state
        if action is None:
            return "no-proposal"
        if state == "human" and action.source != "human":
            return "human"
        if len(action.values) != len(self._stop) or not all(map(math.isfinite, action.values)):
            return "not-finite"
        if not blind and observation is not None and observation.contact and self._mode == "full":
            return "contact"
        return blind


def _slew_of(name: str, profile: RobotProfile) -> tuple[float, float]:
    """Return by how much a value may leave zero, and return to it, in one tick."""
    limits, dt_s = profile.limits, 1 / profile.rates.control_hz
    away, back = {
        "linear": (limits.max_acceleration_mps2, limits.max_deceleration_mps2),
        "angular": (limits.max_angular_acceleration_radps2, limits.max_angular_acceleration_radps2),
    }.get(name, (math.inf, math.inf))
    return away * dt_s, back * dt_s


def _between(value: float, last: float, slew: tuple[float, float]) -> float:
    """Return the value that can be reached from the last one in a tick."""
    away, back = slew
    return min(max(value, -_highest(-last, away, back)), _highest(last, away, back))


def _highest(last: float, away: float, back: float) -> float:
    """Return how far up a tick leads: back to zero at one rate, and what is left of the tick away at the other."""
    if last >= 0:
        return last + away
    return last + back if last + back <= 0 else away * (1 + last / back)
