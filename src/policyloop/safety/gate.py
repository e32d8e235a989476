"""The SafetyGate: the last thing before the motors, always in the path.

Rules in order: armed, finite, fresh, upright, within limits, no faster change than the motors can follow; then the
distance ahead, and what the body would sweep in any direction until it can stand, which may only bring the
command closer to standing still, and at once. Missing, stale or unknown data means stop: zero velocity, or joints
that only damp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.core.spec import RangedQuantity
from policyloop.core.step import Action, Command, Observation
from policyloop.errors import IncompatibleError, SafetyRefusal
from policyloop.safety.arming import ArmState
from policyloop.safety.clearance import Clearance

__all__ = ["GateMode", "SafetyGate"]

GateMode = Literal["full", "limits"]
"""`limits` leaves out the distance rules: only for a simulated robot that may bump into things."""

_MOVES_MPS, _TURNS_RADPS = 0.05, 0.1
_GRAVITY = (0.9, 1.1)
"""Length of a direction; zeros would look upright."""
_HOLD_SHARE = 0.5
"""Of the time for which a command is valid: so long do joints hold their targets if inference is late. To drop a
walking robot costs more than to keep its legs where they are; it bears 200 ms of that (docs/lite3.md)."""


class SafetyGate:
    """Turns proposals into commands.

    Args:
        profile: Limits, rates and the order of the action vector.
        mode: `full` on every real robot.
    """

    def __init__(self, profile: RobotProfile, mode: GateMode = "full") -> None:
        self._profile = profile
        self._mode = mode
        self._slews = [_slew_of(quantity, profile) for quantity in profile.action]
        self._gravity = profile.proprio_slice("projected_gravity")
        self._hold_ns = 0 if profile.joints is None else round(_HOLD_SHARE * profile.rates.command_valid_ns)
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
        if self._clearance is not None:
            self._clearance.reset()
        self._forget()

    def tighten(self, profile: RobotProfile) -> None:
        """Obey the limits of `profile` from the next check on; what was seen is not forgotten.

        Raises:
            SafetyRefusal: One of them is wider than before.
        """
        limits, before = profile.limits, self._profile.limits
        at_most = ("max_forward_mps", "max_reverse_mps", "max_angular_radps")
        wider = [name for name in at_most if getattr(limits, name) > getattr(before, name)]
        if limits.safety_distance_m < before.safety_distance_m:
            wider.append("safety_distance_m")
        for entry, had in zip(profile.action, self._profile.action, strict=True):
            if entry.low < had.low or entry.high > had.high:
                wider.append(entry.name)
        if wider:
            raise SafetyRefusal(f"limits of a running gate cannot be widened: {', '.join(wider)}", "start anew")
        self._profile = profile
        if self._clearance is not None:
            self._clearance.tighten(profile)

    def _forget(self) -> None:
        self._last = self._profile.stop().values
        self._holding, self._proposed_ns = False, 0
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
        followed = observation is None or observation.followed
        self._last = command.values if followed else self._profile.stop().values
        self._holding = followed and not command.damped
        if action is not None:
            self._proposed_ns = now_ns
        return command

    def unfit(self, observation: Observation | None, now_ns: int) -> str:
        """Return why the robot can drive nothing now: it sees nothing of now, or has fallen; else an empty string."""
        if observation is None:
            return "no-observation"
        if unreadable := self._unreadable(observation, now_ns):
            return unreadable
        if self._frozen:
            return "frozen"
        return "fallen" if self._profile.fallen(observation.arrays["proprio"]) else ""

    def _unreadable(self, observation: Observation, now_ns: int) -> str:
        """Return why the observation tells nothing about now, or an empty string."""
        if not 0 <= now_ns - observation.captured_ns <= self._timeout_ns:
            return "stale"
        try:
            for name, spec in self._profile.observation_specs.items():
                spec.validate(observation.arrays[name])
        except (KeyError, IncompatibleError):
            return "bad-observation"
        if self._gravity is not None:
            length = math.hypot(*observation.arrays["proprio"][self._gravity].tolist())
            return "" if _GRAVITY[0] <= length <= _GRAVITY[1] else "bad-observation"
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
        touches = self._mode == "full" and observation is not None and observation.contact
        unfit = self.unfit(observation, now_ns) or ("contact" if touches else "")
        refusal = self._refusal(action, state)
        reason = unfit or refusal if refusal in ("", "no-proposal") else refusal  # why there is none says more
        if reason == "no-proposal" and self._holds(now_ns):
            return Command(self._last, ("held",))
        if reason or action is None or observation is None:
            return self._profile.stop(reason)
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

    def _refusal(self, action: Action | None, state: ArmState) -> str:
        """Return why this proposal may not be driven, or an empty string."""
        if state in ("disarmed", "tripped"):
            return state
        if action is None:
            return "no-proposal"
        if state == "human" and action.source != "human":
            return "human"
        if len(action.values) != len(self._slews) or not all(map(math.isfinite, action.values)):
            return "not-finite"
        return ""

    def _holds(self, now_ns: int) -> bool:
        """Whether joints keep their targets for a moment although there is no proposal."""
        return self._holding and now_ns - self._proposed_ns < self._hold_ns


def _slew_of(entry: RangedQuantity, profile: RobotProfile) -> tuple[float, float]:
    """Return by how much a value may leave zero, and return to it, in one tick."""
    limits, dt_s = profile.limits, 1 / profile.rates.control_hz
    rate = math.inf if entry.max_rate is None else entry.max_rate
    away, back = {
        "linear": (limits.max_acceleration_mps2, limits.max_deceleration_mps2),
        "angular": (limits.max_angular_acceleration_radps2, limits.max_angular_acceleration_radps2),
    }.get(entry.name, (math.inf, math.inf))
    return min(away, rate) * dt_s, min(back, rate) * dt_s


def _between(value: float, last: float, slew: tuple[float, float]) -> float:
    """Return the value that can be reached from the last one in a tick."""
    away, back = slew
    return min(max(value, -_highest(-last, away, back)), _highest(last, away, back))


def _highest(last: float, away: float, back: float) -> float:
    """Return how far up a tick leads: back to zero at one rate, and what is left of the tick away at the other."""
    if last >= 0:
        return last + away
    return last + back if last + back <= 0 else away * (1 + last / back)
