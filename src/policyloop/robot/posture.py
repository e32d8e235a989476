"""Modes of a legged robot: idle, stand up, policy, damping; pure. The twin of cpp/policyloop_modes.hpp, same numbers.

    idle --stand up--> stand_up --policy--> policy        no torque; to the pose and hold; what the policy says
      ^                    |                   |
      '------ idle ----- damping <-------------'          kp 0: latched until a new request, from rest

For simulations without a compiler; on a robot the controller in C++ does this, 1000 times a second.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MODES", "REQUESTS", "BodyState", "Mode", "ModeMachine", "ModeSettings", "Posture", "Request", "Setpoint"]

Mode = Literal["idle", "stand_up", "policy", "damping"]
Request = Literal["none", "idle", "stand_up", "policy", "stop"]
Cause = Literal["none", "request", "stop", "sensors", "leaning", "no_command"]

MODES: tuple[Mode, ...] = ("idle", "stand_up", "policy", "damping")
"""By the number that a controller writes into the flags of its set-points."""
REQUESTS: tuple[Request, ...] = ("none", "idle", "stand_up", "policy", "stop")
"""By the number that stands for a request among the sensors."""

Floats = NDArray[np.float32]


class BodyState(msgspec.Struct, frozen=True):
    """What the sensors say.

    Attributes:
        gyro: rad/s, body frame, (3,).
        gravity: Projected; (0, 0, -1) when upright.
        position: rad, of each joint.
        velocity: rad/s, of each joint.
    """

    gyro: Floats
    gravity: Floats
    position: Floats
    velocity: Floats


class Setpoint(msgspec.Struct, frozen=True):
    """What the joints do: torque = kp (target - position) - kd velocity.

    Attributes:
        target: rad.
        kp: N m/rad.
        kd: N m s/rad.
    """

    target: Floats
    kp: Floats
    kd: Floats


class ModeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of one robot.

    Attributes:
        pose: rad of each joint, where the policy starts from.
        kp: N m/rad of each joint, of the policy.
        kd: N m s/rad of each joint, of the policy.
        rest_radps: No joint moves faster, nor does the body turn faster: at rest.
        near_rad: Every joint as close to the pose as this: stood up.
    """

    pose: tuple[float, ...]
    kp: tuple[float, ...]
    kd: tuple[float, ...]
    stand_up_kp: float = 100.0
    stand_up_kd: float = 2.5
    damping_kd: float = 4.0
    stand_up_ns: int = 1_500_000_000
    most_roll_rad: float = math.radians(30)
    most_pitch_rad: float = math.radians(45)
    rest_radps: float = 0.5
    near_rad: float = 0.3


class Posture(msgspec.Struct, frozen=True, kw_only=True):
    """The mode, and what it takes to leave it.

    Attributes:
        mode: What the joints do.
        cause: Of the mode.
        request: The last one.
        pending: It was made in this mode, or in one that is not damping, and is still held.
        since_ns: When the mode began.
        start: rad, of the joints at that time.
    """

    mode: Mode = "idle"
    cause: Cause = "none"
    request: Request = "none"
    pending: bool = False
    since_ns: int = 0
    start: tuple[float, ...] = ()


class ModeMachine:
    """Tells the mode after a tick, and what the joints do in it.

    Args:
        settings: Of the robot.
    """

    def __init__(self, settings: ModeSettings) -> None:
        self._settings = settings
        self._pose = np.array(settings.pose, np.float32)

    def begin(self, held: Request, now_ns: int) -> Posture:
        """Return the posture to begin with; a request that is held already was not made to this program."""
        return Posture(request=held, since_ns=now_ns)

    def next(self, before: Posture, request: Request, body: BodyState, commanded: bool, now_ns: int) -> Posture:
        """Return the posture after a tick; `commanded` says that a command to drive is valid now."""
        pending = request != before.request or before.pending
        after = _with(before, request=request, pending=pending)
        fault = self._fault(before.mode, request, body, commanded)
        if fault != "none":
            if before.mode == "damping":
                return _with(after, pending=False)
            return _entered(after, "damping", fault, body, now_ns)
        mode = self._wanted(after, body, commanded, now_ns)
        return after if mode == before.mode else _entered(after, mode, "request", body, now_ns)

    def setpoint(self, posture: Posture, command: ArrayLike | None, now_ns: int) -> Setpoint:
        """Return what the joints do now; `command` are the policy's targets, without which its mode damps."""
        settings, zeros = self._settings, np.zeros_like(self._pose)
        if posture.mode == "stand_up":
            start = np.array(posture.start, np.float64)
            target = start + self._ramp(posture, now_ns) * (self._pose.astype(np.float64) - start)
            kp, kd = zeros + np.float32(settings.stand_up_kp), zeros + np.float32(settings.stand_up_kd)
            return Setpoint(target.astype(np.float32), kp, kd)
        if posture.mode == "policy" and command is not None:
            kp, kd = np.array(settings.kp, np.float32), np.array(settings.kd, np.float32)
            return Setpoint(np.array(command, np.float32), kp, kd)
        damping_kd = 0.0 if posture.mode == "idle" else settings.damping_kd
        return Setpoint(zeros, zeros, zeros + np.float32(damping_kd))

    def _fault(self, mode: Mode, request: Request, body: BodyState, commanded: bool) -> Cause:
        if not all(np.isfinite(values).all() for values in (body.gyro, body.gravity, body.position, body.velocity)):
            return "sensors"
        if request == "stop":
            return "stop"
        if mode not in ("stand_up", "policy"):
            return "none"
        if self._leaning(body):
            return "leaning"
        return "no_command" if mode == "policy" and not commanded else "none"

    def _wanted(self, posture: Posture, body: BodyState, commanded: bool, now_ns: int) -> Mode:
        request, mode = posture.request, posture.mode
        if mode in ("idle", "damping"):
            if posture.pending and request == "stand_up" and self._at_rest(body):
                return "stand_up"
            return "idle" if posture.pending and request == "idle" else mode
        if request == "idle":
            return "damping"
        if mode == "stand_up" and request == "policy" and commanded and self._stands(posture, body, now_ns):
            return "policy"
        return mode

    def _leaning(self, body: BodyState) -> bool:
        x, y, z = body.gravity.tolist()
        roll, pitch = math.atan2(-y, -z), math.atan2(x, math.sqrt(y * y + z * z))
        return abs(roll) > self._settings.most_roll_rad or abs(pitch) > self._settings.most_pitch_rad

    def _at_rest(self, body: BodyState) -> bool:
        fastest = max(float(np.abs(body.gyro).max()), float(np.abs(body.velocity).max()))
        return fastest <= self._settings.rest_radps and not self._leaning(body)

    def _stands(self, posture: Posture, body: BodyState, now_ns: int) -> bool:
        if now_ns - posture.since_ns < self._settings.stand_up_ns:
            return False
        away = np.abs(body.position.astype(np.float64) - self._pose.astype(np.float64))
        return float(away.max()) <= self._settings.near_rad

    def _ramp(self, posture: Posture, now_ns: int) -> float:
        """Return the share of the way, smooth from 0 to 1, without a jump in speed at either end."""
        part = min(max((now_ns - posture.since_ns) / self._settings.stand_up_ns, 0.0), 1.0)
        return part * part * (3.0 - 2.0 * part)


def _entered(posture: Posture, mode: Mode, cause: Cause, body: BodyState, now_ns: int) -> Posture:
    # What is held while damping begins must be asked for again.
    pending = posture.pending and mode != "damping"
    start = tuple(body.position.tolist())
    return _with(posture, mode=mode, cause=cause, pending=pending, since_ns=now_ns, start=start)


def _with(posture: Posture, **changes: object) -> Posture:
    return msgspec.structs.replace(posture, **changes)
