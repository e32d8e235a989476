"""The SafetyGate: the last thing before the wheels, always in the path.

Rules in order, each a pure function that may only bring the command closer to standing still:
finite, fresh, within limits, distance. Missing, stale or unknown data means stop.
"""

from __future__ import annotations

import math
from typing import Literal

from policyloop.core.profile import RobotProfile
from policyloop.core.spec import RangedQuantity
from policyloop.core.step import Action, Command, Observation
from policyloop.errors import IncompatibleError

__all__ = ["GateMode", "SafetyGate"]

GateMode = Literal["full", "limits"]
"""`limits` leaves out the distance rule: only for a simulated robot that may bump into things."""


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
        names = [quantity.name for quantity in profile.action]
        self._linear = names.index("linear") if "linear" in names else None
        senses = {quantity.name for quantity in profile.proprio}
        self._distance = profile.proprio_index("min_forward_dist") if "min_forward_dist" in senses else None
        self._timeout_ns = round(profile.rates.sensor_timeout_s * 1e9)

    def check(self, action: Action | None, observation: Observation | None, now_ns: int) -> Command:
        """Return what may be driven, with the name of every rule that changed the proposal.

        Args:
            action: The proposal; None = there is none.
            observation: What it was made from; None = there is none.
            now_ns: Monotonic time.
        """
        if action is None:
            return Command(self._stop, ("no-proposal",))
        if len(action.values) != len(self._stop) or not all(map(math.isfinite, action.values)):
            return Command(self._stop, ("not-finite",))
        if observation is None:
            return Command(self._stop, ("no-observation",))
        age_ns = now_ns - observation.captured_ns
        if not 0 <= age_ns <= self._timeout_ns:
            return Command(self._stop, ("stale",))
        try:
            for name, spec in self._profile.observation_specs.items():
                spec.validate(observation.arrays[name])
        except (KeyError, IncompatibleError):
            return Command(self._stop, ("bad-observation",))
        if observation.contact and self._mode == "full":
            return Command(self._stop, ("contact",))
        values = [_clamp(value, quantity) for value, quantity in zip(action.values, self._profile.action, strict=True)]
        reasons = () if tuple(values) == action.values else ("limits",)
        if self._linear is not None and values[self._linear] > (fastest := self._fastest_mps(observation)):
            values[self._linear] = fastest
            reasons = (*reasons, "distance")
        return Command(tuple(values), reasons)

    def _fastest_mps(self, observation: Observation) -> float:
        """Return the forward speed that the free distance ahead allows (row S24)."""
        if self._mode == "limits" or self._distance is None:
            return math.inf
        return self.allowed_speed_mps(float(observation.arrays["proprio"][self._distance]))

    def allowed_speed_mps(self, distance_m: float) -> float:
        """Return the fastest forward speed v with v t + v^2 / 2a <= distance - safety distance; 0 if unknown.

        t is the reaction time and a the deceleration of the profile's limits.
        """
        limits = self._profile.limits
        room_m = distance_m - limits.safety_distance_m
        if not room_m > 0:
            return 0.0
        drift_mps = limits.max_deceleration_mps2 * limits.reaction_time_s
        return math.sqrt(drift_mps**2 + 2 * limits.max_deceleration_mps2 * room_m) - drift_mps


def _clamp(value: float, quantity: RangedQuantity) -> float:
    return min(max(value, quantity.low), quantity.high)
