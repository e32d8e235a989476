"""What a driver did in one arena, for the animation: the path from above, and what its camera saw."""

from __future__ import annotations

import msgspec
import numpy as np

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation, TimedCommand
from policyloop.evaluate import make_driver
from policyloop.robot.actor import Actor
from policyloop.robot.recorder import Recorder
from policyloop.safety.gate import GateMode, SafetyGate
from policyloop.sim.robot import SimulatedRobot
from policyloop.sim.rover import arena
from policyloop.view.colours import depth_colours
from policyloop.view.pictures import as_jpeg

__all__ = ["Scene", "Trail", "record_trail", "scene"]

_FRAME_STRIDE = 2


class Scene(msgspec.Struct, frozen=True):
    """An arena from above: kind, x, y, half sizes, yaw of each solid; half the side of the square."""

    half_size_m: float
    solids: tuple[tuple[str, float, float, float, float, float], ...]


class Trail(msgspec.Struct, frozen=True):
    """One episode of one driver."""

    driver: str
    path: list[tuple[float, float, float]]
    """x m, y m, yaw rad at every tick."""
    rgb: list[str]
    depth: list[str]
    """Every second tick's pictures as base64 JPEG; empty if not wanted."""
    collided: bool
    score: float


class _Witness:
    """Stands between robot and actor and writes down what passes."""

    def __init__(self, robot: SimulatedRobot, profile: RobotProfile, pictures: bool) -> None:
        self._robot, self._profile, self._pictures = robot, profile, pictures
        self.path: list[tuple[float, float, float]] = []
        self.rgb: list[str] = []
        self.depth: list[str] = []

    def read(self) -> Observation:
        observation = self._robot.read()
        camera = self._profile.camera
        if self._pictures and camera is not None and len(self.path) % _FRAME_STRIDE == 0:
            self.rgb.append(as_jpeg(observation.arrays["rgb"]))
            self.depth.append(as_jpeg(depth_colours(observation.arrays["depth"], camera)))
        x, y, yaw = self._robot.rover.pose
        self.path.append((round(x, 3), round(y, 3), round(yaw, 3)))
        return observation

    def write(self, order: TimedCommand) -> None:
        self._robot.write(order)

    def begin_episode(self) -> bool:
        """Stay where the episode ended."""
        return False


def record_trail(
    profile: RobotProfile,
    driver: str,
    label: str,
    arena_seed: int,
    *,
    pictures: bool = False,
    gate: GateMode = "full",
) -> Trail:
    """Drive one arena as `evaluate` does and write down what happened."""
    rng = np.random.default_rng([777, arena_seed])
    chosen, close = make_driver(driver, profile, rng)
    clock = VirtualClock()
    witness = _Witness(SimulatedRobot(profile, [arena_seed], rng, clock), profile, pictures)
    recorder = Recorder(profile, "trail", "")
    actor = Actor(profile, witness, witness, chosen, SafetyGate(profile, gate), recorder, clock)
    while not recorder.episodes:
        actor.tick()
    close()
    episode = recorder.episodes[0]
    return Trail(label, witness.path, witness.rgb, witness.depth, episode.collided, episode.score)


def scene(profile: RobotProfile, arena_seed: int) -> Scene:
    """Return the arena from above."""
    place = arena(arena_seed, profile.simulation)
    solids = tuple(
        (
            o.kind,
            round(o.position_m[0], 3),
            round(o.position_m[1], 3),
            round(o.half_size_m[0], 3),
            round(o.half_size_m[1], 3),
            round(o.yaw_rad, 3),
        )
        for o in place.solids
    )
    return Scene(place.half_size_m, solids)
