"""A Lite3 quadruped on a flat floor: MuJoCo physics, motors that follow joint targets, an inertial unit."""

from __future__ import annotations

import math
from collections import deque

import msgspec
import mujoco
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError
from policyloop.sim.lite3_model import JOINTS, LEGS, STANDING_M, Lite3Physics, lite3_mjcf

__all__ = ["PUSH_EVERY_S", "STAND_HEIGHT_M", "Lite3", "Motion", "Sensors", "Wanted", "joint_order", "lite3_model"]

STAND_HEIGHT_M = 0.33
_LOWEST_M = 0.15
_WIDTH = 0.25
PUSH_EVERY_S = 3.0
"""Where robots are pushed."""
_STAND_KP, _STAND_KD = 100.0, 2.5
"""The vendor's gains of standing up: at 30 and 1 the legs sag until the robot sits (docs/lite3.md)."""
_ROLL_PITCH_RAD, _JOINT_RAD, _SPEED = 0.1, 0.1, 0.2

Wanted = tuple[float, float, float]
"""What the operator asks for: forward m/s, left m/s, turning rad/s."""
_Gain = float | NDArray[np.floating]
_Order = tuple[NDArray[np.float64], _Gain, _Gain]
"""Joint targets in the profile's order, kp and kd."""


class Sensors(msgspec.Struct, frozen=True):
    """What the robot senses, joints in the profile's order: rad/s, a direction, rad, rad/s."""

    angular_velocity: NDArray[np.float64]
    gravity: NDArray[np.float64]
    joint_pos: NDArray[np.float64]
    joint_vel: NDArray[np.float64]


class Motion(msgspec.Struct, frozen=True):
    """What the robot truly does; for rewards and reports, drivers see only observations.

    Attributes:
        forward_mps, left_mps: In the direction that it faces.
        yaw_radps: About the vertical.
        height_m: Of the torso.
        feet_down: Which feet touch the floor, in the order of `LEGS`.
    """

    forward_mps: float
    left_mps: float
    yaw_radps: float
    height_m: float
    feet_down: tuple[bool, ...]

    def score(self, wanted: Wanted) -> float:
        """Return how well this is what was asked for, 1 to 0: exp(-error^2 / 0.25), (m/s)^2 or (rad/s)^2."""
        done = (self.forward_mps, self.left_mps, self.yaw_radps)
        return math.exp(-sum((a - b) ** 2 for a, b in zip(done, wanted, strict=True)) / _WIDTH)


def joint_order(profile: RobotProfile) -> NDArray[np.intp]:
    """Return the index in `JOINTS` of every action of a profile; ConfigError if they are not the Lite3's joints."""
    names = [entry.name for entry in profile.action]
    if profile.joints is None or sorted(names) != sorted(JOINTS):
        strange = [name for name in names if name not in JOINTS] or [name for name in JOINTS if name not in names]
        raise ConfigError(
            f"profile '{profile.name}' does not describe a Lite3: {', '.join(strange) or 'it has no [joints]'}",
            f"the simulated quadruped has a [joints] table and the actions {', '.join(JOINTS)}",
        )
    return np.array([JOINTS.index(name) for name in names], np.intp)


def lite3_model(
    profile: RobotProfile, physics: Lite3Physics, *, feet_sensors: bool = False, unlimited_nm: float = 1e4
) -> tuple[mujoco.MjModel, int]:
    """Return the model of a profile, and how many of its steps make a tick.

    Args:
        profile: Its actions are the Lite3's joints, in any order.
        physics: How it is simulated.
        feet_sensors: Let the model tell where the feet are.
        unlimited_nm: Effort of joints whose profile says nothing about it.
    """
    order = joint_order(profile)
    assert profile.joints is not None
    efforts_nm = np.full(len(JOINTS), unlimited_nm)
    if profile.joints.max_effort_nm:
        efforts_nm[order] = profile.joints.max_effort_nm
    model = mujoco.MjModel.from_xml_string(lite3_mjcf(physics, tuple(efforts_nm.tolist()), feet_sensors=feet_sensors))
    tick_s = 1 / profile.rates.control_hz
    steps = max(1, round(tick_s / physics.step_s))
    model.opt.timestep = tick_s / steps
    return model, steps


class Lite3:
    """The simulated machine. One call of `drive` is one tick of the profile's control rate.

    Args:
        profile: Its actions are the Lite3's joints, in any order.
        physics: How it is simulated.
        latency_s: From a call of `drive` until the motors follow it.
    """

    def __init__(self, profile: RobotProfile, physics: Lite3Physics | None = None, *, latency_s: float = 0.0) -> None:
        order = joint_order(profile)
        self.profile = profile
        self._model, self._substeps = lite3_model(profile, physics or Lite3Physics())
        self._data = mujoco.MjData(self._model)
        self._actuators = order
        self._positions, self._velocities = 7 + order, 6 + order
        self._delay = round(latency_s / self._model.opt.timestep)
        self._feet = [self._model.geom(f"{leg}_foot").id for leg in LEGS]
        self._rest = profile.action_center.astype(np.float64)
        self._rotation = np.empty(9)
        self.reset(None)

    def reset(self, rng: np.random.Generator | None, *, lying: bool = False) -> None:
        """Put the robot at the origin, standing, with a small random deviation unless `rng` is None.

        Args:
            rng: Draws roll, pitch, heading, joint angles and velocities.
            lying: Put it down on its belly, legs folded.
        """
        data = self._data
        mujoco.mj_resetData(self._model, data)
        data.qpos[2] = STANDING_M
        data.qpos[self._positions] = self._rest
        if lying:
            folded = {"HipX": 0.0, "HipY": -1.35453, "Knee": 2.54948}  # where the vendor's simulation begins
            data.qpos[self._positions] = [folded[entry.name.split("_")[1]] for entry in self.profile.action]
            data.qpos[2] = 0.12
        elif rng is not None:
            roll, pitch = rng.uniform(-_ROLL_PITCH_RAD, _ROLL_PITCH_RAD, 2)
            mujoco.mju_euler2Quat(data.qpos[3:7], np.array([roll, pitch, rng.uniform(-math.pi, math.pi)]), "XYZ")
            data.qpos[2] += 0.01
            data.qpos[self._positions] += rng.uniform(-_JOINT_RAD, _JOINT_RAD, len(JOINTS))
            data.qvel[:6] = rng.uniform(-_SPEED, _SPEED, 6)
        self._step = 0
        self._due: deque[tuple[int, _Order]] = deque()
        self._apply((self._rest, _STAND_KP, _STAND_KD))
        mujoco.mj_forward(self._model, data)

    def stand(self) -> None:
        """Hold the pose of an output of 0 for one tick, as stiffly as the robot stands up."""
        self.follow(self._rest, _STAND_KP, _STAND_KD)

    def drive(self, target_rad: NDArray[np.floating]) -> None:
        """Follow joint targets for one tick, with the profile's gains."""
        assert self.profile.joints is not None
        self.follow(target_rad, self.profile.joints.kp, self.profile.joints.kd)

    def damp(self) -> None:
        """Let the joints go for one tick; they only damp."""
        assert self.profile.joints is not None
        self.follow(self._rest, 0.0, self.profile.joints.damping_kd)

    def follow(self, target_rad: NDArray[np.floating], kp: _Gain, kd: _Gain, *, steps: int | None = None) -> None:
        """Follow joint targets by torque = kp (target - q) - kd dq.

        Args:
            target_rad: In the profile's order.
            kp: N m / rad, of all joints or of each.
            kd: N m s / rad.
            steps: Of the physics; None = one tick.
        """
        end = self._step + (self._substeps if steps is None else steps)
        self._due.append((self._step + self._delay, (np.array(target_rad, np.float64), kp, kd)))
        while self._step < end:
            while self._due and self._due[0][0] <= self._step:
                self._apply(self._due.popleft()[1])
            until = min(end, self._due[0][0]) if self._due else end
            mujoco.mj_step(self._model, self._data, until - self._step)
            self._step = until

    def _apply(self, order: _Order) -> None:
        target, kp, kd = order
        self._data.ctrl[self._actuators] = target
        model, at = self._model, self._actuators
        model.actuator_gainprm[at, 0], model.actuator_biasprm[at, 1], model.actuator_biasprm[at, 2] = kp, -kp, -kd

    def push(self, speed_mps: float, direction_rad: float) -> None:
        """Change the velocity of the torso at once."""
        self._data.qvel[:2] += speed_mps * np.array([math.cos(direction_rad), math.sin(direction_rad)])

    def sense(self) -> Sensors:
        """Read the sensors."""
        data = self._data
        mujoco.mju_quat2Mat(self._rotation, data.qpos[3:7])
        return Sensors(
            data.qvel[3:6].copy(), -self._rotation[6:9], data.qpos[self._positions], data.qvel[self._velocities]
        )

    @property
    def motion(self) -> Motion:
        """What it truly does."""
        data = self._data
        mujoco.mju_quat2Mat(self._rotation, data.qpos[3:7])
        yaw = math.atan2(self._rotation[3], self._rotation[0])
        c, s = math.cos(yaw), math.sin(yaw)
        x, y = data.qvel[:2]
        touching = set(data.contact.geom[: data.ncon].ravel().tolist())
        return Motion(
            forward_mps=float(c * x + s * y),
            left_mps=float(c * y - s * x),
            yaw_radps=float(self._rotation[6:9] @ data.qvel[3:6]),
            height_m=float(data.qpos[2]),
            feet_down=tuple(foot in touching for foot in self._feet),
        )

    @property
    def low(self) -> bool:
        """Whether the torso is so low that it lies, or the simulation has burst."""
        return not self._data.qpos[2] >= _LOWEST_M
