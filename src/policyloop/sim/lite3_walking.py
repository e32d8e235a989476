"""Hundreds of simulated Lite3s that learn to walk: one physics call steps them all."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import msgspec
import mujoco
import mujoco.rollout
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError
from policyloop.sim.lite3 import PUSH_EVERY_S, STAND_HEIGHT_M, joint_order, lite3_model
from policyloop.sim.lite3_model import JOINTS, LEGS, STANDING_M, Lite3Physics

__all__ = ["WALKING_REWARD", "WALKING_TERMS", "Transition", "WalkingLite3s"]

Float = NDArray[np.float64]

_EPISODE_S = 10.0
_DOWN_M = 0.004
"""A sole lower than this stands on the floor."""
_SWING_S, _LONGEST_STANCE_S = 0.2, 0.5
_FORWARD_MPS, _TURN_RADPS = (0.3, 0.7), 0.3
"""What the operator asks for in training."""
_PUSH_MPS = 0.4
_FRICTIONS, _PAYLOADS_KG, _GAINS = (0.5, 1.25), (-0.5, 2.0), (0.85, 1.15)
_FALLEN_UP, _FALLEN_M = 0.8, 0.18
"""The body's vertical points up by less than this, or the torso is lower."""
_BURST = 1e3
"""No number of a robot that moves as one can is larger."""
_SENSED = frozenset(
    {
        "base_ang_vel",
        "projected_gravity",
        "wanted_linear_vel",
        "wanted_angular_vel",
        "joint_pos",
        "joint_vel",
        "last_action",
    }
)
_STATE = 1 + 7 + 12 + 18
"""MuJoCo's full physics state: time, pose, joints, velocities."""


class _Moment(msgspec.Struct, frozen=True):
    """What the reward of one tick depends on; one row per robot.

    Attributes:
        velocity: Of the torso in its own frame, m/s.
        rates: Of rotation in the body's frame, rad/s.
        gravity: Its direction in the body's frame.
        wanted: Forward m/s, left m/s, turning rad/s.
        height: Of the torso, m.
        torque: Of the joints, N m.
        joints: Angles in the model's order, rad.
        change: Of the output since the last tick.
        feet: Height of the soles, m.
        down: Which feet stand.
        landed_after: Time that a foot was in the air before it landed in this tick, s; 0 if it did not.
        stance: For how long each foot has stood, s.
    """

    velocity: Float
    rates: Float
    gravity: Float
    wanted: Float
    height: Float
    torque: Float
    joints: Float
    change: Float
    feet: Float
    down: NDArray[np.bool_]
    landed_after: Float
    stance: Float


def _trot(now: _Moment) -> Float:
    """Return 1 where one diagonal pair of feet stands and the other swings."""
    pairs = now.down[:, [0, 1]] == now.down[:, [3, 2]]
    return (pairs.all(axis=1) & (now.down[:, 0] != now.down[:, 1])).astype(np.float64)


WALKING_TERMS: Mapping[str, Callable[[_Moment], Float]] = {
    "progress": lambda m: np.clip(m.velocity[:, 0] / m.wanted[:, 0], -1, 1),
    "velocity": lambda m: np.exp(-((m.velocity[:, :2] - m.wanted[:, :2]) ** 2).sum(1) / 0.1),
    "turning": lambda m: np.exp(-((m.rates[:, 2] - m.wanted[:, 2]) ** 2) / 0.25),
    "bounce": lambda m: m.velocity[:, 2] ** 2,
    "sway": lambda m: (m.rates[:, :2] ** 2).sum(1),
    "lean": lambda m: (m.gravity[:, :2] ** 2).sum(1),
    "effort": lambda m: (m.torque**2).sum(1),
    "jerk": lambda m: (m.change**2).sum(1),
    "height": lambda m: (m.height - STAND_HEIGHT_M) ** 2,
    "splay": lambda m: (m.joints[:, ::3] ** 2).sum(1),
    "swing": lambda m: np.where(m.landed_after > 0, np.minimum(m.landed_after, _SWING_S) - 0.08, 0).sum(1),
    "drag": lambda m: np.maximum(m.stance - _LONGEST_STANCE_S, 0).clip(0, 0.5).sum(1),
    "trot": _trot,
    "clearance": lambda m: (~m.down * np.minimum(m.feet, 0.05)).sum(1),
}
"""Every term by name; per second."""

WALKING_REWARD: Mapping[str, float] = {
    "progress": 1.0,
    "velocity": 1.5,
    "turning": 0.75,
    "bounce": -2.0,
    "sway": -0.05,
    "lean": -3.0,
    "effort": -2e-4,
    "jerk": -0.01,
    "height": -20.0,
    "splay": -0.3,
    "swing": 10.0,
    "drag": -1.0,
    "trot": 0.5,
    "clearance": 2.0,
}
_FALL_COSTS = 1.0


class Transition(msgspec.Struct, frozen=True):
    """What came of one tick; one row per robot.

    Attributes:
        reward: Weighted sum of the terms.
        terminated: It fell.
        truncated: Its time was up.
        final_proprio, final_privileged: What was seen where it ended, before the robot was put elsewhere.
    """

    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_proprio: NDArray[np.float32]
    final_privileged: NDArray[np.float32]


class WalkingLite3s:
    """Many robots at once.

    Args:
        profile: The Lite3's joints, in any order.
        count: Of robots.
        seed: Of everything random.
        reward: Weights of `WALKING_TERMS`.

    Attributes:
        privileged_size: Length of what only a critic may see.
    """

    privileged_size = 4 + 2 * len(LEGS)

    def __init__(
        self, profile: RobotProfile, count: int, seed: int, reward: Mapping[str, float] = WALKING_REWARD
    ) -> None:
        self._order = joint_order(profile)
        assert profile.joints is not None
        if strange := {entry.name for entry in profile.proprio} - _SENSED:
            raise ConfigError(f"no simulated Lite3 senses '{min(strange)}'", f"use {', '.join(sorted(_SENSED))}")
        if strange := set(reward) - set(WALKING_TERMS):
            raise ConfigError(f"no walking term '{min(strange)}'", f"use {', '.join(WALKING_TERMS)}")
        self.profile, self.count = profile, count
        self._reward = dict(reward)
        self._dt_s = 1 / profile.rates.control_hz
        physics = Lite3Physics(whole_body=False)
        model, self._substeps = lite3_model(profile, physics, feet_sensors=True, unlimited_nm=40.0)
        self._efforts = model.actuator_forcerange[:, 1].copy()
        model.opt.iterations = model.opt.ls_iterations = 20
        self._kp, self._kd = profile.joints.kp, profile.joints.kd
        model.actuator_gainprm[:, 0] = self._kp
        model.actuator_biasprm[:, 1], model.actuator_biasprm[:, 2] = -self._kp, -self._kd
        self._rng = np.random.default_rng(seed)
        self._models, self._data = [self._varied(model) for _ in range(count)], [mujoco.MjData(model)]
        self._rollout = mujoco.rollout.Rollout(nthread=0)
        self._feet_at = model.sensor("FL_foot").adr[0]
        self._foot_radius_m = float(model.geom("FL_foot").size[0])
        self._rest = np.empty(len(JOINTS))
        self._rest[self._order] = profile.action_center
        self._state = np.zeros((count, _STATE))
        self._last, self._wanted = np.zeros((count, len(JOINTS))), np.zeros((count, 3))
        self._age_s, self._air_s, self._stance_s = np.zeros(count), np.zeros((count, 4)), np.zeros((count, 4))
        self._feet = np.zeros((count, 4))
        self._restart(np.arange(count))
        self._age_s = self._rng.uniform(0, _EPISODE_S * 0.8, count)  # lest all end at once

    def _varied(self, model: mujoco.MjModel) -> mujoco.MjModel:
        """Return a robot of its own: what it learns must not depend on one floor, one load and one set of motors."""
        varied = copy.copy(model)
        varied.geom_friction[:, 0] *= self._rng.uniform(*_FRICTIONS)
        varied.body_mass[model.body("torso").id] += self._rng.uniform(*_PAYLOADS_KG)
        stiffer, tougher = self._rng.uniform(*_GAINS, 2)
        varied.actuator_gainprm[:, 0] *= stiffer
        varied.actuator_biasprm[:, 1] *= stiffer
        varied.actuator_biasprm[:, 2] *= tougher
        return varied

    def _restart(self, rows: NDArray[np.intp]) -> None:
        n, rng = len(rows), self._rng
        yaw = rng.uniform(-math.pi, math.pi, n)
        self._state[rows] = 0
        self._state[rows, 3] = STANDING_M
        self._state[rows, 4], self._state[rows, 7] = np.cos(yaw / 2), np.sin(yaw / 2)
        self._state[rows, 8:20] = self._rest + rng.uniform(-0.1, 0.1, (n, 12))
        self._state[rows, 20:22] = rng.uniform(-0.2, 0.2, (n, 2))
        self._last[rows], self._age_s[rows], self._air_s[rows], self._stance_s[rows] = 0, 0, 0, 0
        self._feet[rows] = 0
        forward = rng.uniform(*_FORWARD_MPS, n)
        self._wanted[rows] = np.stack([forward, np.zeros(n), rng.uniform(-_TURN_RADPS, _TURN_RADPS, n)], 1)

    def observe(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the proprioception vectors, (n, proprio), and what only a critic may see, (n, privileged)."""
        state, rotation = self._state, _rotations(self._state[:, 4:8])
        velocity = np.einsum("nji,nj->ni", rotation, state[:, 20:23])
        readings = {
            "base_ang_vel": state[:, 23:26],
            "projected_gravity": -rotation[:, 2],
            "wanted_linear_vel": self._wanted[:, :2],
            "wanted_angular_vel": self._wanted[:, 2:],
            "joint_pos": state[:, 8:20][:, self._order],
            "joint_vel": state[:, 26:38][:, self._order],
            "last_action": self._last,
        }
        proprio = np.concatenate([readings[entry.name] for entry in self.profile.proprio], axis=1)
        privileged = np.concatenate([velocity, state[:, 3:4], 20 * self._feet, 2 * (self._air_s - self._stance_s)], 1)
        return proprio.astype(np.float32), privileged.clip(-5, 5).astype(np.float32)

    def step(self, outputs: NDArray[np.floating]) -> Transition:
        """Let every robot follow its network's output, (n, actions), for one tick; whoever ends begins anew."""
        self._push()
        target = np.empty((self.count, len(JOINTS)))
        target[:, self._order] = self.profile.actions_of(outputs)
        control = np.repeat(target[:, None], self._substeps, axis=1)
        states, sensed = self._rollout.rollout(self._models, self._data, self._state, control=control)
        self._state = states[:, -1].copy()
        burst = ~(np.abs(self._state) < _BURST).all(axis=1)
        if burst.any():
            self._restart(np.flatnonzero(burst))
        feet = sensed[:, -1, self._feet_at :].reshape(self.count, 4, 3)[:, :, 2] - self._foot_radius_m
        self._feet = np.nan_to_num(feet)
        change, self._last = outputs - self._last, np.array(outputs, np.float64)
        self._age_s += self._dt_s
        now = self._moment(target, change)
        reward = sum(weight * WALKING_TERMS[name](now) for name, weight in self._reward.items()) * self._dt_s
        terminated = (-now.gravity[:, 2] < _FALLEN_UP) | (now.height < _FALLEN_M) | burst
        truncated = ~terminated & (self._age_s > _EPISODE_S)
        proprio, privileged = self.observe()
        earned = (reward - _FALL_COSTS * terminated).astype(np.float32)
        if (ended := terminated | truncated).any():
            self._restart(np.flatnonzero(ended))
        return Transition(earned, terminated, truncated, proprio, privileged)

    def _push(self) -> None:
        """Change the velocity of a few torsos at once."""
        rows = np.flatnonzero(self._rng.random(self.count) < self._dt_s / PUSH_EVERY_S)
        direction = self._rng.uniform(-math.pi, math.pi, len(rows))
        self._state[rows, 20:22] += _PUSH_MPS * np.stack([np.cos(direction), np.sin(direction)], 1)

    def _moment(self, target: Float, change: Float) -> _Moment:
        state, rotation = self._state, _rotations(self._state[:, 4:8])
        torque = self._kp * (target - state[:, 8:20]) - self._kd * state[:, 26:38]
        down = self._feet < _DOWN_M
        landed = np.where(down & (self._air_s > 0), self._air_s, 0)
        self._air_s = np.where(down, 0, self._air_s + self._dt_s)
        self._stance_s = np.where(down, self._stance_s + self._dt_s, 0)
        return _Moment(
            velocity=np.einsum("nji,nj->ni", rotation, state[:, 20:23]),
            rates=state[:, 23:26],
            gravity=-rotation[:, 2],
            wanted=self._wanted,
            height=state[:, 3],
            torque=np.clip(torque, -self._efforts, self._efforts),
            joints=state[:, 8:20],
            change=change,
            feet=self._feet,
            down=down,
            landed_after=landed,
            stance=self._stance_s,
        )

    def close(self) -> None:
        """Release the physics."""
        self._rollout.close()


def _rotations(quaternions: Float) -> Float:
    """Return the matrices from body to world, (n, 3, 3), of (n, 4) w x y z."""
    w, x, y, z = quaternions.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], 1)
