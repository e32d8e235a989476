"""The simulated rover as a robot: behind the same io protocols as a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from policyloop.core.clock import Clock
from policyloop.core.profile import RobotProfile, Simulation
from policyloop.core.step import Action, Observation, TimedCommand
from policyloop.sim.camera import CasterName
from policyloop.sim.late_rover import LateRover
from policyloop.sim.randomization import Randomization
from policyloop.sim.rover import Rover, arena

__all__ = ["Bursts", "SimulatedRobot"]


class SimulatedRobot:
    """A rover in a sequence of arenas; every read is one tick later than the last.

    Args:
        profile: A rover's.
        arena_seeds: Each episode takes place in the next of these (random order with `shuffle`).
        rng: Chooses arenas and poses and drives the sensor noise.
        clock: Virtual time advances by one tick per read; real time passes by itself.
        shuffle: Choose arenas at random instead of in turn.
        randomization: Each episode takes place under other conditions; None = under the nominal ones.
        world: Asked before each episode what its arena is to be like; None = what the profile says.
    """

    def __init__(
        self,
        profile: RobotProfile,
        arena_seeds: Sequence[int],
        rng: np.random.Generator,
        clock: Clock,
        *,
        shuffle: bool = True,
        caster: CasterName = "auto",
        randomization: Randomization | None = None,
        world: Callable[[], Simulation] | None = None,
    ) -> None:
        self._world = world or (lambda: profile.simulation)
        self._seeds = list(arena_seeds)
        self._rng = rng
        self._shuffle = shuffle
        self._next = 0
        self._late = LateRover(profile, clock, randomization, caster=caster)
        self.begin_episode()

    @property
    def rover(self) -> Rover:
        """The machine itself, for reports."""
        return self._late.rover

    def begin_episode(self) -> bool:
        """Put the rover somewhere else."""
        index = int(self._rng.integers(len(self._seeds))) if self._shuffle else self._next % len(self._seeds)
        self._next += 1
        self._late.begin(arena(self._seeds[index], self._world()), self._rng)
        return True

    def read(self) -> Observation:
        """Drive the last command for one tick and look."""
        return self._late.read()

    def write(self, order: TimedCommand) -> None:
        """Drive a command during the next tick, if it is still valid then."""
        self._late.write(order)

    def close(self) -> None:
        """There is nothing to let go."""


class Bursts:
    """Disturbs a teacher: short bursts of a random command, and a little noise in between.

    A log without mistakes cannot teach how to recover from one: the clone of a clean log collides
    in every episode (docs/benchmarks.md).
    """

    def __init__(self, profile: RobotProfile, rng: np.random.Generator) -> None:
        self._ranges = [(quantity.low, quantity.high) for quantity in profile.action]
        self._half = profile.action_half_range
        self._rng = rng
        self._left, self._wait = 0, int(rng.integers(5, 30))
        self._burst: tuple[float, ...] = ()

    def __call__(self, action: Action) -> tuple[float, ...]:
        """Return what is to be driven instead of `action`."""
        if self._left > 0:
            self._left -= 1
            return self._burst
        self._wait -= 1
        if self._wait <= 0:
            self._left, self._wait = int(self._rng.integers(5, 16)), int(self._rng.integers(15, 46))
            self._burst = tuple(float(self._rng.uniform(low, high)) for low, high in self._ranges)
        noise = self._rng.normal(0, 0.1, len(self._half)) * self._half
        return tuple(float(a + n) for a, n in zip(action.values, noise, strict=True))
