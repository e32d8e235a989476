"""What differs from one episode to the next, so that a policy does not come to rely on one simulated world.

No simulator is right about a robot's delays, floor and light. A policy that was trained, or at least judged, in many
wrong worlds has a better chance in the real one (Tobin et al., 1703.06907; Peng et al., 1710.06537; of delays: Ramstedt
and Pal, 1911.04448). docs/simulation.md says where the default ranges come from.
"""

from __future__ import annotations

import msgspec
import numpy as np

from policyloop.errors import ConfigError

__all__ = ["NOMINAL", "Conditions", "Randomization"]

Range = tuple[float, float]


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The world of one episode; the defaults are the world that nobody randomises.

    Attributes:
        command_latency_ms: From a command to the motors that follow it.
        command_jitter_ms: Each command takes up to so much longer; none overtakes another.
        observation_latency_ms: From capture to the robot's program.
        depth_noise: Times the deviation of the nominal camera, 0.0036 z^2.
        hole_share: Of pixels anywhere that hold no measurement.
        friction: Of the tyres on the floor.
        body_mass_kg: Without wheels and casters, 1 kg.
        camera_raised_m: Above where the profile says it is.
        camera_forward_m: Ahead of where the profile says it is.
        camera_pitch_deg: Looks down by so much; the robot does not know.
        brightness: Times every colour.
        contrast: Times a colour's distance from medium grey.
        warmth: Red is stronger and blue weaker by this share.
        acceleration: Times the profile's limits of acceleration and deceleration, which the motors reach.
    """

    command_latency_ms: float = 0.0
    command_jitter_ms: float = 0.0
    observation_latency_ms: float = 0.0
    depth_noise: float = 1.0
    hole_share: float = 0.002
    friction: float = 1.2
    body_mass_kg: float = 4.0
    camera_raised_m: float = 0.0
    camera_forward_m: float = 0.0
    camera_pitch_deg: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    warmth: float = 0.0
    acceleration: float = 1.0


NOMINAL = Conditions()


class Randomization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A range (low, high) of each of `Conditions`, from which every episode draws evenly.

    It is no part of a robot's profile: recorded data and trained policies stay valid whatever is randomised.
    """

    command_latency_ms: Range = (0.0, 60.0)
    command_jitter_ms: Range = (0.0, 20.0)
    observation_latency_ms: Range = (20.0, 100.0)
    depth_noise: Range = (1.0, 2.5)
    hole_share: Range = (0.002, 0.02)
    friction: Range = (0.5, 1.2)
    body_mass_kg: Range = (3.0, 7.0)
    camera_raised_m: Range = (-0.02, 0.02)
    camera_forward_m: Range = (-0.02, 0.02)
    camera_pitch_deg: Range = (-1.5, 1.5)
    brightness: Range = (0.6, 1.4)
    contrast: Range = (0.7, 1.2)
    warmth: Range = (-0.15, 0.15)
    acceleration: Range = (0.7, 1.1)

    def draw(self, rng: np.random.Generator) -> Conditions:
        """Draw the world of the next episode."""
        return Conditions(
            **{name: float(rng.uniform(*getattr(self, name))) for name in self.__struct_fields__},
        )

    def __post_init__(self) -> None:
        for name, (least, most) in _POSSIBLE.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ConfigError(
                    f"{name} = [{low:g}, {high:g}] is no range within {least:g} to {most:g}",
                    "give [low, high]; equal ends fix a quantity",
                )


_POSSIBLE: dict[str, Range] = {
    "command_latency_ms": (0, 1000),
    "command_jitter_ms": (0, 1000),
    "observation_latency_ms": (0, 1000),
    "depth_noise": (0, 20),
    "hole_share": (0, 1),
    "friction": (0.01, 5),
    "body_mass_kg": (0.5, 100),
    "camera_raised_m": (-0.1, 0.5),
    "camera_forward_m": (-0.5, 0.5),
    "camera_pitch_deg": (-30, 30),
    "brightness": (0, 10),
    "contrast": (0, 10),
    "warmth": (-1, 1),
    "acceleration": (0.01, 10),
}
