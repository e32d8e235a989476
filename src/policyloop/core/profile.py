"""The robot profile: the one description of a robot that every part must share (row N1).

Names, units, order, layout, normalisation, action map, rates and limits go into `digest`. The
digest travels in every step, checkpoint, ONNX file and bundle, and is checked where two parts meet.
Rewards, episode rules, picture compression and the simulated world are not part of it: changing
them leaves recorded data and trained policies valid.
"""

from __future__ import annotations

import hashlib
import math
import sys
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.normalizer import Normalizer
from policyloop.core.reward import Outcome, validate_weights
from policyloop.core.spec import UNITS, ArraySpec, Quantity, RangedQuantity
from policyloop.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Body", "Camera", "EpisodeRules", "Limits", "Rates", "RobotProfile", "Simulation", "Stream", "load_profile"]

_EXPECTED_UNITS = {
    "linear_vel": "m/s",
    "angular_vel": "rad/s",
    "roll": "rad",
    "pitch": "rad",
    "accel_mag": "m/s^2",
    "min_forward_dist": "m",
    "linear": "m/s",
    "angular": "rad/s",
}


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the profile: a misspelt key is an error, never a silent default."""


class Rates(_Table, frozen=True, kw_only=True):
    """How often the robot acts, and how old an observation may be before it must stop."""

    control_hz: float = 10.0
    sensor_timeout_s: float = 0.2

    @property
    def period_ns(self) -> int:
        """One tick, ns."""
        return round(1e9 / self.control_hz)


class Camera(_Table, frozen=True, kw_only=True):
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


class Body(_Table, frozen=True, kw_only=True):
    """What must fit through a gap."""

    length_m: float = 0.36
    width_m: float = 0.36
    corridor_half_width_m: float = 0.26
    """Obstacles further aside than this are passed, not hit: half the width plus a margin."""


class Limits(_Table, frozen=True, kw_only=True):
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

    def stopping_distance_m(self, speed_mps: float, reaction_s: float | None = None) -> float:
        """Distance covered before standing still: v t + v^2 / 2a; t is the limits' own unless it is given."""
        reaction_s = self.reaction_time_s if reaction_s is None else reaction_s
        return speed_mps * reaction_s + speed_mps**2 / (2 * self.max_deceleration_mps2)


class EpisodeRules(_Table, frozen=True, kw_only=True):
    """When an episode ends (row S6)."""

    collision_distance_m: float = 0.15
    max_steps: int = 300


class Stream(_Table, frozen=True, kw_only=True):
    """How pictures travel. Depth is always lossless."""

    rgb_encoding: Literal["jpeg", "raw"] = "jpeg"
    jpeg_quality: int = 85


class Simulation(_Table, frozen=True, kw_only=True):
    """The simulated world of this robot; ignored on a real one."""

    obstacles: int = 24
    gap_m: float = 0.9
    half_size_m: float = 5.0
    sensor_noise: bool = True


class RobotProfile(_Table, frozen=True, kw_only=True, dict=True):
    """One robot: what it senses, what it may do, how often, within which limits."""

    name: str
    proprio: tuple[Quantity, ...]
    action: tuple[RangedQuantity, ...]
    rates: Rates = Rates()
    camera: Camera | None = None
    body: Body = Body()
    limits: Limits = Limits()
    episode: EpisodeRules = EpisodeRules()
    stream: Stream = Stream()
    reward: dict[str, float] = {}
    training_reward: dict[str, float] = {}
    simulation: Simulation = Simulation()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the contract: 64 hexadecimal characters."""
        contract = {
            "proprio": self.proprio,
            "action": self.action,
            "rates": self.rates,
            "camera": self.camera,
            "body": self.body,
            "limits": self.limits,
        }
        return hashlib.sha256(msgspec.json.encode(contract, order="deterministic")).hexdigest()

    @cached_property
    def observation_specs(self) -> dict[str, ArraySpec]:
        """The arrays of one observation: `rgb` uint8, `depth` uint16 in mm with 0 = unknown, `proprio` float32."""
        specs = []
        if self.camera is not None:
            height, width = self.camera.height, self.camera.width
            specs.append(ArraySpec(name="rgb", shape=(height, width, 3), dtype="uint8"))
            specs.append(ArraySpec(name="depth", shape=(height, width), dtype="uint16"))
        specs.append(ArraySpec(name="proprio", shape=(self.proprio_size,), dtype="float32"))
        return {spec.name: spec for spec in specs}

    @cached_property
    def action_spec(self) -> ArraySpec:
        """The action vector, physical units."""
        return ArraySpec(name="action", shape=(len(self.action),), dtype="float32")

    @property
    def proprio_size(self) -> int:
        """Length of the proprioception vector."""
        return sum(quantity.size for quantity in self.proprio)

    @cached_property
    def action_center(self) -> NDArray[np.float32]:
        """Middle of each action range."""
        return np.array([(q.high + q.low) / 2 for q in self.action], np.float32)

    @cached_property
    def action_half_range(self) -> NDArray[np.float32]:
        """Half the width of each action range: action = center + half_range * tanh(u)."""
        return np.array([(q.high - q.low) / 2 for q in self.action], np.float32)

    def actions_of(self, samples: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the actions, physical units, of samples before tanh; both (..., actions)."""
        return self.action_center + self.action_half_range * np.tanh(samples)

    @cached_property
    def nominal_normalizer(self) -> Normalizer:
        """Normalisation by the profile's own centres and scales."""
        mean = [quantity.center for quantity in self.proprio for _ in range(quantity.size)]
        std = [quantity.scale for quantity in self.proprio for _ in range(quantity.size)]
        return Normalizer(mean=tuple(mean), std=tuple(std))

    def proprio_index(self, name: str) -> int:
        """Return where `name` starts in the proprioception vector; ConfigError if it is not there."""
        start = 0
        for quantity in self.proprio:
            if quantity.name == name:
                return start
            start += quantity.size
        raise ConfigError(f"profile '{self.name}' has no proprio quantity '{name}'", "add it to the [[proprio]] tables")

    @cached_property
    def _outcome_indices(self) -> tuple[int, int, int]:
        return tuple(self.proprio_index(n) for n in ("linear_vel", "angular_vel", "min_forward_dist"))  # type: ignore[return-value]

    def outcome(self, proprio: NDArray[np.float32], *, collided: bool = False, overridden: float = 0.0) -> Outcome:
        """Read the reward's inputs from a proprioception vector."""
        linear, angular, distance = self._outcome_indices
        return Outcome(float(proprio[linear]), float(proprio[angular]), float(proprio[distance]), collided, overridden)

    def __post_init__(self) -> None:
        self._check_quantities()
        self._check_finite()
        self._check_limits()
        self._check_ranges()
        validate_weights(self.reward, "[reward]")
        validate_weights(self.training_reward, "[training_reward]")

    def _check_quantities(self) -> None:
        if not self.proprio or not self.action:
            raise ConfigError("profile needs at least one [[proprio]] and one [[action]] table")
        quantities: list[Quantity | RangedQuantity] = [*self.proprio, *self.action]
        names = [quantity.name for quantity in quantities]
        for quantity in quantities:
            _check_unit(quantity.name, quantity.unit)
            if names.count(quantity.name) > 1:
                raise ConfigError(f"'{quantity.name}' is defined more than once")
        for entry in self.proprio:
            if entry.size < 1 or not entry.scale > 0:
                raise ConfigError(f"{entry.name}: size and scale must be positive")
        for ranged in self.action:
            if not ranged.low < ranged.high:
                raise ConfigError(f"{ranged.name}: low {ranged.low} must be below high {ranged.high}")
            if not ranged.low <= 0 <= ranged.high:
                raise ConfigError(f"{ranged.name}: {ranged.low}..{ranged.high} leaves out 0, which is standing still")

    def _check_finite(self) -> None:
        tables: dict[str, Any] = {quantity.name: quantity for quantity in self.proprio}
        tables |= {quantity.name: quantity for quantity in self.action}
        tables |= {name: getattr(self, name) for name in ("rates", "camera", "body", "limits", "episode", "simulation")}
        for where, table in tables.items():
            for name in table.__struct_fields__ if table is not None else ():
                value = getattr(table, name)
                if isinstance(value, float) and not math.isfinite(value):
                    raise ConfigError(f"{where}.{name} must be a finite number")

    def _check_ranges(self) -> None:
        body, camera = self.body, self.camera
        if not (body.length_m > 0 and body.width_m > 0):
            raise ConfigError("body.length_m and body.width_m must be positive")
        if body.corridor_half_width_m < body.width_m / 2:
            raise ConfigError(
                f"body.corridor_half_width_m {body.corridor_half_width_m} is less than half of body.width_m",
                f"use at least {body.width_m / 2:g}",
            )
        if camera is not None and not (0 < camera.vertical_fov_deg < 180 and camera.depth_near_m > 0):
            raise ConfigError("camera.vertical_fov_deg must be above 0 and below 180, camera.depth_near_m positive")
        if self.episode.max_steps < 1 or not self.episode.collision_distance_m > 0:
            raise ConfigError("episode.max_steps and episode.collision_distance_m must be positive")
        if not 1 <= self.stream.jpeg_quality <= 100:
            raise ConfigError("stream.jpeg_quality must be 1 to 100")

    def _check_limits(self) -> None:
        limits, rates = self.limits, self.rates
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
        if limits.safety_distance_m <= self.episode.collision_distance_m:
            raise ConfigError(
                f"limits.safety_distance_m {limits.safety_distance_m} must exceed "
                f"episode.collision_distance_m {self.episode.collision_distance_m}"
            )
        if self.camera is not None:
            _check_camera(self.camera, limits, rates)
        for entry in self.action:
            _check_action(entry, limits)


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
    bounds = {
        "linear": (-limits.max_reverse_mps, limits.max_forward_mps),
        "angular": (-limits.max_angular_radps, limits.max_angular_radps),
    }
    low, high = bounds.get(entry.name, (-math.inf, math.inf))
    if entry.low < low or entry.high > high:
        raise ConfigError(
            f"action '{entry.name}' spans {entry.low}..{entry.high} {entry.unit}, beyond the limits {low}..{high}",
            "widen [limits] or narrow the action",
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def load_profile(name_or_path: str | Path) -> RobotProfile:
    """Load a profile by file path, or by the name of one that ships with policyloop (`rover`).

    Raises:
        ConfigError: The file is missing, is not TOML, or a key, unit or limit in it is wrong.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"profile {path} does not exist", "give the path of a .toml file or a profile's name")
        text, where = _read(path), str(path)
    else:
        shipped = resources.files("policyloop") / "profiles"
        known = sorted(p.name.removesuffix(".toml") for p in shipped.iterdir() if p.name.endswith(".toml"))
        if str(name_or_path) not in known:
            raise ConfigError(
                f"no profile '{name_or_path}'", f"use one of {', '.join(known)} or the path of a .toml file"
            )
        text, where = (shipped / f"{name_or_path}.toml").read_text(encoding="utf-8"), f"profile '{name_or_path}'"
    try:
        return msgspec.convert(tomllib.loads(text), RobotProfile)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}", "see the comments in profiles/rover.toml") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", error.remedy) from error
