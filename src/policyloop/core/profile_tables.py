"""The tables of a robot profile: small frozen structs whose defaults are those of a first drive."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

__all__ = ["Body", "Camera", "EpisodeRules", "Joints", "Limits", "Rates", "Simulation", "Stream", "Table"]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the profile: a misspelt key is an error, never a silent default."""


class Rates(Table, frozen=True, kw_only=True):
    """How often the robot acts, and how old an observation may be before it must stop."""

    control_hz: float = 10.0
    sensor_timeout_s: float = 0.2
    command_valid_s: float | None = None
    """How long the motors follow a command after which none has come; without it two ticks, half a second at most."""

    @property
    def period_ns(self) -> int:
        """One tick, ns."""
        return round(1e9 / self.control_hz)

    @property
    def command_valid_ns(self) -> int:
        """How long a command is valid, ns."""
        return round(
            min(2 / self.control_hz, 0.5) * 1e9 if self.command_valid_s is None else self.command_valid_s * 1e9
        )


class Camera(Table, frozen=True, kw_only=True):
    """A forward RGB-D camera, depth aligned to colour; pinhole, optical axis horizontal."""

    width: int
    height: int
    vertical_fov_deg: float = 42.5
    mount_forward_m: float = 0.16
    mount_height_m: float = 0.18
    depth_min_m: float = 0.1
    depth_max_m: float = 10.0
    depth_near_m: float = 0.25
    """Depth at and below which the network's depth code saturates."""

    @property
    def focal_px(self) -> float:
        """Focal length in pixels (square pixels)."""
        return 0.5 * self.height / math.tan(math.radians(self.vertical_fov_deg) / 2)


class Body(Table, frozen=True, kw_only=True):
    """What must fit through a gap."""

    length_m: float = 0.36
    width_m: float = 0.36
    corridor_half_width_m: float = 0.26
    """Obstacles further aside than this are passed, not hit: half the width plus a margin."""


class Limits(Table, frozen=True, kw_only=True):
    """What the SafetyGate lets through. The defaults are those of a first drive."""

    max_forward_mps: float = 0.18
    max_reverse_mps: float = 0.1
    max_angular_radps: float = 1.0
    max_acceleration_mps2: float = 1.0
    max_deceleration_mps2: float = 1.5
    max_angular_acceleration_radps2: float = 4.0
    safety_distance_m: float = 0.25
    reaction_time_s: float = 0.2
    """From the moment of capture to the moment the wheels answer, worst case."""

    def action_range(self, name: str) -> tuple[float, float]:
        """Return what an action of this name may be at most; without an end if no limit is about it."""
        return {
            "linear": (-self.max_reverse_mps, self.max_forward_mps),
            "angular": (-self.max_angular_radps, self.max_angular_radps),
        }.get(name, (-math.inf, math.inf))

    def stopping_distance_m(self, speed_mps: float, reaction_s: float | None = None) -> float:
        """Distance covered before standing still: v t + v^2 / 2a; t is the limits' own unless it is given."""
        reaction_s = self.reaction_time_s if reaction_s is None else reaction_s
        return speed_mps * reaction_s + speed_mps**2 / (2 * self.max_deceleration_mps2)


class Joints(Table, frozen=True, kw_only=True):
    """The robot has legs: its actions are joint targets, which its motors follow by torque = kp (target - q) - kd dq.

    To stop it is to damp: torque = -damping_kd dq.
    """

    kp: float
    kd: float
    damping_kd: float = 3.0
    max_effort_nm: tuple[float, ...] = ()
    """Of each joint, for the simulator."""
    max_roll_rad: float = math.radians(30)
    max_pitch_rad: float = math.radians(45)
    """A body that leans more than this is falling, and no policy is in command any more."""


class EpisodeRules(Table, frozen=True, kw_only=True):
    """When an episode ends (row S6)."""

    collision_distance_m: float = 0.15
    max_steps: int = 300


class Stream(Table, frozen=True, kw_only=True):
    """How pictures travel. Depth is always lossless."""

    rgb_encoding: Literal["jpeg", "raw"] = "jpeg"
    jpeg_quality: int = 85


class Simulation(Table, frozen=True, kw_only=True):
    """The simulated world of this robot; ignored on a real one."""

    obstacles: int = 24
    gap_m: float = 0.9
    half_size_m: float = 5.0
    sensor_noise: bool = True
