"""Walk the simulated Lite3 as an operator asks, and say how well it followed."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile, roll_and_pitch
from policyloop.errors import VerificationError
from policyloop.robot.actor import Actor
from policyloop.robot.io import Driver
from policyloop.robot.recorder import Recorder
from policyloop.safety.gate import GateMode, SafetyGate
from policyloop.sim.lite3 import Lite3, Motion, Wanted
from policyloop.sim.lite3_model import Lite3Physics
from policyloop.sim.lite3_robot import SimulatedLite3

__all__ = ["WALKS", "Walk", "WalkConditions", "walk"]

WALKS: tuple[Wanted, ...] = (
    (0.0, 0.0, 0.0),
    (0.5, 0.0, 0.0),
    (0.8, 0.0, 0.0),
    (-0.5, 0.0, 0.0),
    (0.0, 0.4, 0.0),
    (0.0, -0.4, 0.0),
    (0.0, 0.0, 0.6),
    (0.0, 0.0, -0.6),
    (0.5, 0.0, 0.5),
    (0.4, 0.2, -0.4),
)
"""What the operator asks for: forward m/s, left m/s, turning rad/s."""
_SETTLED_S = 2.0


class WalkConditions(msgspec.Struct, frozen=True, kw_only=True):
    """Under which the robot walks.

    Attributes:
        seconds: For how long.
        latency_s: From a command to the motors, besides the tick in which it is computed.
        push_mps: Change of the torso's velocity, every three seconds in a random direction.
        physics: How it is simulated.
    """

    seconds: float = 10.0
    latency_s: float = 0.0
    push_mps: float = 0.4
    physics: Lite3Physics = Lite3Physics()


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """How it went; means and extremes from two seconds on, NaN if it fell before.

    Attributes:
        wanted: What was asked for.
        fell: It leant too far, or its torso came down.
        score: Integral of `Motion.score` over time, s: so many seconds of walking as asked.
        distance_m: In the direction that it faced.
        forward_mps, left_mps, yaw_radps, height_m: Means.
        roll_deg, pitch_deg: Largest.
        feet_up: Share of the time that each foot was in the air, in the order of `LEGS`.
        gated: Ticks in which the gate changed more than the limits of a target.
    """

    wanted: Wanted
    fell: bool
    score: float
    distance_m: float
    forward_mps: float
    left_mps: float
    yaw_radps: float
    height_m: float
    roll_deg: float
    pitch_deg: float
    feet_up: tuple[float, ...]
    gated: int


def walk(
    profile: RobotProfile,
    driver: Driver,
    wanted: Wanted,
    seed: int,
    conditions: WalkConditions | None = None,
    gate: GateMode = "full",
) -> Walk:
    """Walk once from a random start, through the robot's own program on virtual time; equal arguments, equal walks.

    Raises:
        VerificationError: The driver failed.
    """
    conditions = conditions or WalkConditions()
    clock, hz = VirtualClock(), profile.rates.control_hz
    body = Lite3(profile, conditions.physics, latency_s=conditions.latency_s)
    rng = np.random.default_rng([45, seed])
    robot = SimulatedLite3(profile, rng, clock, body=body, wanted=(wanted,), push_mps=conditions.push_mps)
    recorder = Recorder(profile, "evaluation", "")
    actor = Actor(profile, robot, robot, driver, SafetyGate(profile, gate), recorder, clock)
    motions: list[Motion] = []
    leans: list[tuple[float, float]] = []
    gated = 0
    for _ in range(round(conditions.seconds * hz)):
        command = actor.tick()
        if recorder.episodes:
            break
        gated += any(reason not in ("limits", "slew") for reason in command.reasons)
        motions.append(body.motion)
        leans.append(roll_and_pitch(*body.sense().gravity))
    if actor.errors:
        raise VerificationError(f"the driver failed in {actor.errors} ticks of walk {seed}", "see the log")
    settled = slice(round(_SETTLED_S * hz), None)
    forward, left, yaw, height = _mean([(m.forward_mps, m.left_mps, m.yaw_radps, m.height_m) for m in motions[settled]])
    steep = leans[settled] or [(math.nan, math.nan)]
    return Walk(
        wanted=wanted,
        fell=bool(recorder.episodes),
        score=sum(motion.score(wanted) for motion in motions) / hz,
        distance_m=sum(motion.forward_mps for motion in motions) / hz,
        forward_mps=forward,
        left_mps=left,
        yaw_radps=yaw,
        height_m=height,
        roll_deg=math.degrees(max(abs(roll) for roll, _ in steep)),
        pitch_deg=math.degrees(max(abs(pitch) for _, pitch in steep)),
        feet_up=tuple(_mean([tuple(float(not down) for down in motion.feet_down) for motion in motions[settled]])),
        gated=gated,
    )


def _mean(rows: list[tuple[float, ...]]) -> list[float]:
    return np.mean(rows, axis=0).tolist() if rows else [math.nan] * 4
