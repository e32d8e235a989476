"""What makes no sense in a profile is refused when it is read, with the key that is wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from policyloop.core.profile_tables import Camera, Joints, Limits, Rates
from policyloop.core.reward import validate_weights
from policyloop.core.spec import UNITS, Quantity, RangedQuantity
from policyloop.errors import ConfigError

if TYPE_CHECKING:
    from policyloop.core.profile import RobotProfile

__all__ = ["check_profile"]

_TABLES = ("rates", "camera", "body", "limits", "joints", "episode", "simulation")

_EXPECTED_UNITS = {
    "linear_vel": "m/s",
    "angular_vel": "rad/s",
    "roll": "rad",
    "pitch": "rad",
    "accel_mag": "m/s^2",
    "min_forward_dist": "m",
    "linear": "m/s",
    "angular": "rad/s",
    "base_ang_vel": "rad/s",
    "projected_gravity": "1",
    "joint_pos": "rad",
    "joint_vel": "rad/s",
    "last_action": "1",
    "delay": "s",
}


def check_profile(profile: RobotProfile) -> None:
    """Raise ConfigError naming the first key that is wrong."""
    _check_quantities(profile)
    _check_finite(profile)
    _check_limits(profile)
    _check_ranges(profile)
    _check_action_map(profile)
    validate_weights(profile.reward, "[reward]")
    validate_weights(profile.training_reward, "[training_reward]")


def _check_quantities(profile: RobotProfile) -> None:
    if not profile.proprio or not profile.action:
        raise ConfigError("profile needs at least one [[proprio]] and one [[action]] table")
    quantities: list[Quantity | RangedQuantity] = [*profile.proprio, *profile.action]
    names = [quantity.name for quantity in quantities]
    for quantity in quantities:
        _check_unit(quantity.name, quantity.unit)
        if names.count(quantity.name) > 1:
            raise ConfigError(f"'{quantity.name}' is defined more than once")
    for entry in profile.proprio:
        if entry.size < 1 or not entry.scale > 0:
            raise ConfigError(f"{entry.name}: size and scale must be positive")
        _check_size(entry, len(profile.action))
    for ranged in profile.action:
        if not ranged.low < ranged.high:
            raise ConfigError(f"{ranged.name}: low {ranged.low} must be below high {ranged.high}")
        if profile.joints is None and not ranged.low <= 0 <= ranged.high:
            raise ConfigError(f"{ranged.name}: {ranged.low}..{ranged.high} leaves out 0, which is standing still")


def _check_size(entry: Quantity, actions: int) -> None:
    if entry.name == "projected_gravity" and entry.size != 3:
        raise ConfigError(f"projected_gravity is a direction of size 3, not {entry.size}")
    if entry.name == "delay" and entry.size != 1:
        raise ConfigError(f"delay is one duration, not {entry.size}")
    if entry.name == "last_action" and entry.size != actions:
        raise ConfigError(f"last_action has size {entry.size}, but there are {actions} entries in [action]")


def _check_action_map(profile: RobotProfile) -> None:
    for entry in profile.action:
        if profile.action_map == "tanh" and not (entry.center is None and entry.scale is None):
            raise ConfigError(f'{entry.name}: center and scale belong to action_map = "linear"')
        if profile.action_map == "linear" and (entry.center is None or not entry.scale or not entry.scale > 0):
            raise ConfigError(f"{entry.name}: the linear action map needs a center and a positive scale")
        if entry.center is not None and not entry.low <= entry.center <= entry.high:
            raise ConfigError(f"{entry.name}: center {entry.center} lies outside {entry.low}..{entry.high}")
        if entry.max_rate is not None and not entry.max_rate > 0:
            raise ConfigError(f"{entry.name}: max_rate must be positive")
    if profile.joints is not None:
        _check_joints(profile.joints, profile.action, {quantity.name: quantity.size for quantity in profile.proprio})
        if any(entry.name == "joint_pos" and entry.center != 0 for entry in profile.proprio):
            raise ConfigError("joint_pos is centred on the centers of [action]", "leave its own center out")


def _check_finite(profile: RobotProfile) -> None:
    tables: dict[str, Any] = {quantity.name: quantity for quantity in profile.proprio}
    tables |= {quantity.name: quantity for quantity in profile.action}
    tables |= {name: getattr(profile, name) for name in _TABLES}
    for where, table in tables.items():
        for name in table.__struct_fields__ if table is not None else ():
            value = getattr(table, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{where}.{name} must be a finite number")


def _check_ranges(profile: RobotProfile) -> None:
    body, camera = profile.body, profile.camera
    if not (body.length_m > 0 and body.width_m > 0):
        raise ConfigError("body.length_m and body.width_m must be positive")
    if body.corridor_half_width_m < body.width_m / 2:
        raise ConfigError(
            f"body.corridor_half_width_m {body.corridor_half_width_m} is less than half of body.width_m",
            f"use at least {body.width_m / 2:g}",
        )
    if camera is not None and not 0 < camera.vertical_fov_deg < 180:
        raise ConfigError("camera.vertical_fov_deg must be above 0 and below 180")
    if camera is not None and not 0 < camera.depth_near_m < camera.depth_max_m:
        raise ConfigError("camera.depth_near_m must be positive and below camera.depth_max_m")
    if profile.episode.max_steps < 1 or not profile.episode.collision_distance_m > 0:
        raise ConfigError("episode.max_steps and episode.collision_distance_m must be positive")
    if not 1 <= profile.stream.jpeg_quality <= 100:
        raise ConfigError("stream.jpeg_quality must be 1 to 100")


def _check_limits(profile: RobotProfile) -> None:
    limits, rates = profile.limits, profile.rates
    for name in limits.__struct_fields__:
        if not getattr(limits, name) > 0:
            raise ConfigError(f"limits.{name} must be positive")
    if not 0 < rates.control_hz <= 1000:
        raise ConfigError("rates.control_hz must be above 0 and at most 1000")
    if rates.sensor_timeout_s < 1 / rates.control_hz:
        raise ConfigError(
            f"rates.sensor_timeout_s {rates.sensor_timeout_s} is shorter than one tick",
            f"use at least {1 / rates.control_hz:g}",
        )
    if rates.command_valid_s is not None and not 2 / rates.control_hz <= rates.command_valid_s <= 0.5:
        raise ConfigError(f"rates.command_valid_s {rates.command_valid_s} must be at least two ticks and at most 0.5")
    if limits.safety_distance_m <= profile.episode.collision_distance_m:
        raise ConfigError(
            f"limits.safety_distance_m {limits.safety_distance_m} must exceed "
            f"episode.collision_distance_m {profile.episode.collision_distance_m}"
        )
    if profile.camera is not None:
        _check_camera(profile.camera, limits, rates)
    for entry in profile.action:
        _check_action(entry, limits)


def _check_joints(joints: Joints, action: tuple[RangedQuantity, ...], sizes: dict[str, int]) -> None:
    """Refuse joints that could not be held or damped, or whose observations have another number of joints."""
    positive = {"kp": joints.kp, "kd": joints.kd, "damping_kd": joints.damping_kd}
    positive |= {"max_roll_rad": joints.max_roll_rad, "max_pitch_rad": joints.max_pitch_rad}
    positive |= {f"max_effort_nm[{index}]": effort for index, effort in enumerate(joints.max_effort_nm)}
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"joints.{name} must be a positive number")
    for entry in action:
        if entry.unit != "rad":
            raise ConfigError(f"{entry.name}: a joint target has the unit rad, not {entry.unit}")
    if len(joints.max_effort_nm) not in (0, len(action)):
        raise ConfigError(f"joints.max_effort_nm has {len(joints.max_effort_nm)} entries for {len(action)} actions")
    for name in ("joint_pos", "joint_vel", "last_action"):
        if sizes.get(name, len(action)) != len(action):
            raise ConfigError(f"{name} has size {sizes[name]}, but there are {len(action)} joints in [action]")
    if "projected_gravity" not in sizes:
        raise ConfigError("a robot with [joints] needs the proprio quantity projected_gravity, size 3")


def _check_unit(name: str, unit: str) -> None:
    if unit not in UNITS:
        raise ConfigError(f"{name}: unknown unit '{unit}'", f"use one of {', '.join(UNITS)}")
    expected = _EXPECTED_UNITS.get(name, unit)
    if unit != expected:
        raise ConfigError(f"{name}: unit '{unit}', but it is measured in '{expected}'")


def _check_camera(camera: Camera, limits: Limits, rates: Rates) -> None:
    """Refuse pictures of no sensible size, and a robot that cannot stop within what it sees."""
    if not (16 <= camera.width <= 4096 and 16 <= camera.height <= 4096):
        raise ConfigError(f"camera {camera.width}x{camera.height}: each side must be 16 to 4096 pixels")
    if not 0 < camera.depth_min_m < camera.depth_max_m <= 65.535:
        raise ConfigError("camera depth range must satisfy 0 < depth_min_m < depth_max_m <= 65.535")
    room_m = camera.depth_max_m - limits.safety_distance_m
    reaction_s = max(limits.reaction_time_s, rates.sensor_timeout_s + 1 / rates.control_hz)
    needed_m = limits.stopping_distance_m(limits.max_forward_mps, reaction_s)
    if needed_m > room_m:
        raise ConfigError(
            f"at {limits.max_forward_mps} m/s this robot needs {needed_m:.2f} m to stop but sees only {room_m:.2f} m",
            "lower limits.max_forward_mps or raise limits.max_deceleration_mps2",
        )


def _check_action(entry: RangedQuantity, limits: Limits) -> None:
    """Refuse an action range that the gate would never let through."""
    low, high = limits.action_range(entry.name)
    if entry.low < low or entry.high > high:
        raise ConfigError(
            f"action '{entry.name}' spans {entry.low}..{entry.high} {entry.unit}, beyond the limits {low}..{high}",
            "widen [limits] or narrow the action",
        )
