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
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.normalizer import Normalizer
from policyloop.core.profile_checks import check_profile
from policyloop.core.profile_tables import Body, Camera, EpisodeRules, Joints, Limits, Rates, Simulation, Stream, Table
from policyloop.core.reward import Outcome
from policyloop.core.spec import ArraySpec, Quantity, RangedQuantity
from policyloop.core.step import Command
from policyloop.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "TOLD_QUANTITIES",
    "Body",
    "Camera",
    "EpisodeRules",
    "Joints",
    "Limits",
    "Rates",
    "RobotProfile",
    "Simulation",
    "Stream",
    "load_profile",
    "roll_and_pitch",
]

TOLD_QUANTITIES = ("last_action", "delay")
"""Proprio quantities that no robot senses: its program tells them to the policy."""


class RobotProfile(Table, frozen=True, kw_only=True, dict=True):
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
    action_map: Literal["tanh", "linear"] = "tanh"
    """tanh: action = middle + half range * tanh(output). linear: action = center + scale * output."""
    joints: Joints | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the contract: 64 hexadecimal characters."""
        contract: dict[str, Any] = {
            "proprio": self.proprio,
            "action": [_given(entry) for entry in self.action],
            "rates": _given(self.rates),
            "camera": self.camera,
            "body": self.body,
            "limits": self.limits,
        }
        if self.action_map != "tanh" or self.joints is not None:
            contract |= {"action_map": self.action_map, "joints": self.joints}
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
    def _centers(self) -> tuple[float, ...]:
        return tuple((e.high + e.low) / 2 if e.center is None else e.center for e in self.action)

    @cached_property
    def action_center(self) -> NDArray[np.float32]:
        """The action of an output of 0."""
        return np.array(self._centers, np.float32)

    @cached_property
    def action_half_range(self) -> NDArray[np.float32]:
        """Half the width of each action range."""
        return np.array([(entry.high - entry.low) / 2 for entry in self.action], np.float32)

    @cached_property
    def action_scale(self) -> NDArray[np.float32]:
        """How far an output of 1 leads, before the map's tanh: half the range, or what a linear map says."""
        if self.action_map == "tanh":
            return self.action_half_range
        return np.array([entry.scale for entry in self.action], np.float32)

    def actions_of(self, outputs: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the actions, physical units, of a network's outputs; both (..., actions)."""
        shares = np.tanh(outputs) if self.action_map == "tanh" else outputs
        return self.action_center + self.action_scale * shares

    def stop(self, *reasons: str) -> Command:
        """Return the command that drives nothing: zero velocities, or joints that only damp."""
        if self.joints is None:
            return Command(tuple(0.0 for _ in self.action), reasons)
        return Command(self._centers, reasons, damped=True)

    @cached_property
    def nominal_normalizer(self) -> Normalizer:
        """Normalisation by the profile's own centres and scales; joint angles are centred on their action's centre."""
        mean = [quantity.center for quantity in self.proprio for _ in range(quantity.size)]
        std = [quantity.scale for quantity in self.proprio for _ in range(quantity.size)]
        if self.joints is not None and (angles := self.proprio_slice("joint_pos")) is not None:
            mean[angles] = self._centers
        return Normalizer(mean=tuple(mean), std=tuple(std))

    def proprio_slice(self, name: str) -> slice | None:
        """Return where `name` lies in the proprioception vector; None if it is not there."""
        sizes = {quantity.name: quantity.size for quantity in self.proprio}
        if name not in sizes:
            return None
        start = self.proprio_index(name)
        return slice(start, start + sizes[name])

    @cached_property
    def sensed_indices(self) -> NDArray[np.intp]:
        """Where in the proprioception vector lies what the robot senses: all but `TOLD_QUANTITIES`."""
        sensed = [quantity.name not in TOLD_QUANTITIES for quantity in self.proprio for _ in range(quantity.size)]
        return np.flatnonzero(sensed)

    def proprio_of(self, sensed: Mapping[str, float]) -> NDArray[np.float32]:
        """Return the proprioception vector of what a robot senses, by name; 0 for what its program will tell."""
        proprio = np.zeros(self.proprio_size, np.float32)
        proprio[self.sensed_indices] = [
            sensed[quantity.name] for quantity in self.proprio if quantity.name not in TOLD_QUANTITIES
        ]
        return proprio

    def proprio_index(self, name: str) -> int:
        """Return where `name` starts in the proprioception vector; ConfigError if it is not there."""
        start = 0
        for quantity in self.proprio:
            if quantity.name == name:
                return start
            start += quantity.size
        raise ConfigError(f"profile '{self.name}' has no proprio quantity '{name}'", "add it to the [[proprio]] tables")

    @cached_property
    def _outcome_indices(self) -> tuple[int | None, ...]:
        places = (self.proprio_slice(name) for name in ("linear_vel", "angular_vel", "min_forward_dist"))
        return tuple(None if place is None else place.start for place in places)

    def outcome(self, proprio: NDArray[np.float32], *, collided: bool = False, overridden: float = 0.0) -> Outcome:
        """Read the reward's inputs from a proprioception vector; what the robot does not sense is 0, no way ends."""
        linear, angular, distance = (None if at is None else float(proprio[at]) for at in self._outcome_indices)
        return Outcome(linear or 0.0, angular or 0.0, math.inf if distance is None else distance, collided, overridden)

    def leaning(self, proprio: NDArray[np.float32]) -> tuple[float, float] | None:
        """Return `roll_and_pitch` of the gravity that is sensed; None where it is not."""
        return None if self._gravity is None else roll_and_pitch(*proprio[self._gravity].tolist())

    @cached_property
    def _gravity(self) -> slice | None:
        return self.proprio_slice("projected_gravity")

    def fallen(self, proprio: NDArray[np.float32]) -> bool:
        """Whether the body leans further than its joints' table allows."""
        leaning = self.leaning(proprio)
        if self.joints is None or leaning is None:
            return False
        return abs(leaning[0]) > self.joints.max_roll_rad or abs(leaning[1]) > self.joints.max_pitch_rad

    def __post_init__(self) -> None:
        check_profile(self)


def roll_and_pitch(x: float, y: float, z: float) -> tuple[float, float]:
    """Return roll and pitch, rad, from the direction of gravity in the body's frame.

    Gravity is R^T (0, 0, -1) with R = Rz(yaw) Ry(pitch) Rx(roll); upright it is (0, 0, -1). Its length is of no
    consequence: an accelerometer's reading leans as far as a unit vector.
    """
    return math.atan2(-y, -z), math.atan2(x, math.hypot(y, z))


def _given(table: msgspec.Struct) -> msgspec.Raw:
    """Return a table as JSON, in its order, without what was not given: a new field must not change old digests."""
    given = {name: value for name, value in msgspec.structs.asdict(table).items() if value is not None}
    return msgspec.Raw(msgspec.json.encode(given))


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
