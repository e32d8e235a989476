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

from policyloop.core.corridor import column_distances, hidden_distance
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation
from policyloop.core.surroundings import Points, Surroundings
from policyloop.errors import IncompatibleError
from policyloop.safety.arming import ArmState

__all__ = ["GateMode", "SafetyGate"]

GateMode = Literal["full", "limits"]
"""`limits` leaves out the distance rules: only for a simulated robot that may bump into things."""

_BODY_MARGIN_M = 0.04
_MOVES_MPS, _TURNS_RADPS = 0.05, 0.1
_SLOWER = (1.0, 0.75, 0.5, 0.25)
_POSES = 4


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
        self._linear = names.index("linear") if "linear" in names else None
        senses = {quantity.name for quantity in profile.proprio}
        self._distance = profile.proprio_index("min_forward_dist") if "min_forward_dist" in senses else None
        self._angular = names.index("angular") if "angular" in names else None
        self._surroundings = None
        if mode == "full" and profile.camera is not None and self._linear is not None and self._angular is not None:
            self._surroundings = Surroundings(profile)
        fastest = max(profile.limits.max_forward_mps, profile.limits.max_reverse_mps), profile.limits.max_angular_radps
        self._within_m = _BODY_MARGIN_M + self._reach_m(*fastest)
        self._forget()
        moving = (("linear_vel", _MOVES_MPS), ("angular_vel", _TURNS_RADPS))
        self._motion = [(profile.proprio_index(name), least) for name, least in moving if name in senses]
        self._timeout_ns = round(profile.rates.sensor_timeout_s * 1e9)

    def reset(self) -> None:
        """Forget what is around, and what was driven: a simulated robot was moved to another place."""
        self._last = self._stop
        if self._surroundings is not None:
            self._surroundings.reset()
        self._forget()

    def _forget(self) -> None:
        self._picture: NDArray[np.generic] | None = None
        self._fresh_ns, self._frozen = 0, False
        self._hidden_m = math.inf
        self._near: Points = np.zeros((0, 2), np.float32)
        self._near_m: NDArray[np.floating] = np.zeros(0, np.float32)

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
            self._look(observation)  # also while nothing may be driven: a robot rolls on
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
        if self._surroundings is None:
            return
        depth, proprio = observation.arrays["depth"], observation.arrays["proprio"]
        if self._picture is None or not np.array_equal(depth, self._picture):
            self._picture = depth.copy()  # a driver may use its buffer again
            self._fresh_ns, self._frozen = now_ns, False
        elif any(abs(float(proprio[at])) > least for at, least in self._motion):
            self._frozen = self._frozen or now_ns - self._fresh_ns > self._timeout_ns
        elif not self._frozen:  # standing still, one may see the same; but that does not thaw a frozen picture
            self._fresh_ns = now_ns

    def _look(self, observation: Observation) -> None:
        """Perceive: what is around, and what may hide where nothing was measured."""
        camera = self._profile.camera
        if self._surroundings is None or camera is None:
            return
        columns = column_distances(observation.arrays["depth"], camera)
        self._surroundings.observe(columns, observation.arrays["proprio"])
        self._hidden_m = hidden_distance(columns, camera, self._profile.body.corridor_half_width_m)
        points = self._surroundings.points
        distances_m = self._body_distance_m(points)
        near = distances_m < self._within_m
        self._near, self._near_m = points[near], distances_m[near]

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
        if self._linear is not None and values[self._linear] > (fastest := self._fastest_mps(observation, now_ns)):
            values[self._linear] = fastest
            reasons = (*reasons, "distance")
        if (share := self._clear_share(values)) < 1:
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

    def _fastest_mps(self, observation: Observation, now_ns: int) -> float:
        """Return the forward speed that the free distance ahead allows (row S24)."""
        if self._mode == "limits" or self._distance is None:
            return math.inf
        distance_m = min(float(observation.arrays["proprio"][self._distance]), self._hidden_m)
        return self.allowed_speed_mps(distance_m, (now_ns - observation.captured_ns) * 1e-9)

    def _clear_share(self, values: list[float]) -> float:
        """Return the largest share of a motion that keeps the body clear of what is around until it stands again.

        A body that is within the margin of something already may move where that does not get closer.
        """
        if self._linear is None or self._angular is None or len(self._near) == 0:
            return 1.0
        linear, angular = values[self._linear], values[self._angular]
        if self._near_m.min() >= _BODY_MARGIN_M + self._reach_m(linear, angular):
            return 1.0  # nothing can come that close, whatever the way there
        enough = np.minimum(_BODY_MARGIN_M, self._near_m - 1e-3)
        for share in _SLOWER:
            swept = _seen_from(self._near, linear * share, angular * share, self._until_s(linear, angular, share))
            if (self._body_distance_m(swept) >= enough).all():
                return share
        return 0.0

    def _until_s(self, linear_mps: float, angular_radps: float, share: float = 1.0) -> float:
        """Return the time until the body stands again: reaction, and the longer of both decelerations."""
        limits = self._profile.limits
        braking_s = abs(linear_mps) / limits.max_deceleration_mps2
        return limits.reaction_time_s + share * max(
            braking_s, abs(angular_radps) / limits.max_angular_acceleration_radps2
        )

    def _reach_m(self, linear_mps: float, angular_radps: float) -> float:
        """Return how far any point of the body can get until it stands again."""
        body = self._profile.body
        corner_m = math.hypot(body.length_m, body.width_m) / 2
        return (abs(linear_mps) + abs(angular_radps) * corner_m) * self._until_s(linear_mps, angular_radps)

    def _body_distance_m(self, points: Points) -> NDArray[np.floating]:
        """Return the distance of points in the robot's frame, (..., 2), to its rectangular body, (...); 0 inside."""
        body = self._profile.body
        outside = np.maximum(np.abs(points) - np.array([body.length_m / 2, body.width_m / 2], np.float32), 0)
        return np.hypot(outside[..., 0], outside[..., 1])

    def allowed_speed_mps(self, distance_m: float, age_s: float = 0.0) -> float:
        """Return the fastest forward speed v with v t + v^2 / 2a <= distance - safety distance; 0 if unknown.

        t is the reaction time and a the deceleration of the profile's limits; where the distance is so old that it
        takes longer from its capture to the end of the next tick, t is that.
        """
        limits = self._profile.limits
        room_m = distance_m - limits.safety_distance_m
        if not room_m > 0:
            return 0.0
        reaction_s = max(limits.reaction_time_s, age_s + 1 / self._profile.rates.control_hz)
        drift_mps = limits.max_deceleration_mps2 * reaction_s
        return math.sqrt(drift_mps**2 + 2 * limits.max_deceleration_mps2 * room_m) - drift_mps


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


def _seen_from(points: Points, linear_mps: float, angular_radps: float, until_s: float) -> Points:
    """Return where fixed points, (n, 2), lie in the robot's frame along an arc of `until_s`, (poses, n, 2)."""
    times_s = np.linspace(until_s / _POSES, until_s, _POSES)
    turns = angular_radps * times_s
    c, s = np.cos(turns), np.sin(turns)
    straight = abs(angular_radps) * until_s < 1e-6
    x = linear_mps * times_s if straight else linear_mps / angular_radps * s
    y = np.zeros_like(times_s) if straight else linear_mps / angular_radps * (1 - c)
    rotations = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2).astype(np.float32)
    moved: Points = ((points[None] - np.stack([x, y], -1).astype(np.float32)[:, None]) @ rotations).astype(
        np.float32, copy=False
    )
    return moved
