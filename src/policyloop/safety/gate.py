"""The SafetyGate: the last thing before the wheels, always in the path.

Rules in order, each a pure function that may only bring the command closer to standing still:
finite, fresh, within limits, distance, acceleration. Missing, stale or unknown data means stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

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
        self._angular = names.index("angular") if "angular" in names else None
        senses = {quantity.name for quantity in profile.proprio}
        self._distance = profile.proprio_index("min_forward_dist") if "min_forward_dist" in senses else None
        self._timeout_ns = round(profile.rates.sensor_timeout_s * 1e9)

    def check(
        self, action: Action | None, observation: Observation | None, now_ns: int, previous: Command | None = None
    ) -> Command:
        """Return what may be driven, with the name of every rule that changed the proposal.

        Args:
            action: The proposal; None = there is none.
            observation: What it was made from; None = there is none.
            now_ns: Monotonic time.
            previous: The last command, from which acceleration counts; None = standing.
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
        values, reasons = list(action.values), []
        for rule in (self._limit, self._slow_down, self._accelerate):
            before = list(values)
            rule(values, observation, previous)
            if not np.allclose(values, before, rtol=0, atol=1e-9):
                reasons.append(_REASONS[rule.__name__])
        return Command(tuple(values), tuple(reasons))

    def _limit(self, values: list[float], observation: Observation, previous: Command | None) -> None:
        """Keep each value within its action range."""
        for i, quantity in enumerate(self._profile.action):
            values[i] = _clamp(values[i], quantity)

    def _slow_down(self, values: list[float], observation: Observation, previous: Command | None) -> None:
        """Drive forward only as fast as the free distance allows to stop (row S24)."""
        if self._mode == "limits" or self._linear is None or self._distance is None:
            return
        distance_m = float(observation.arrays["proprio"][self._distance])
        values[self._linear] = min(values[self._linear], self.allowed_speed_mps(distance_m))

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

    def _accelerate(self, values: list[float], observation: Observation, previous: Command | None) -> None:
        """Bound how fast a velocity may grow; slowing down is never delayed."""
        limits, period_s = self._profile.limits, 1 / self._profile.rates.control_hz
        last: Sequence[float] = previous.values if previous else self._stop
        for index, rate in (
            (self._linear, limits.max_acceleration_mps2),
            (self._angular, limits.max_angular_acceleration_radps2),
        ):
            if index is not None:
                values[index] = _grow(last[index], values[index], rate * period_s)


_REASONS = {"_limit": "limits", "_slow_down": "distance", "_accelerate": "acceleration"}


def _clamp(value: float, quantity: RangedQuantity) -> float:
    return min(max(value, quantity.low), quantity.high)


def _grow(last: float, wanted: float, step: float) -> float:
    """Return `wanted`, but at most `step` further from zero than `last`, and than zero after a change of sign."""
    start = last if last * wanted > 0 else 0.0
    bound = abs(start) + step
    return min(max(wanted, -bound), bound)
