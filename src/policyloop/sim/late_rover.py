"""The simulated rover as its program knows it: commands take their time to the motors, pictures to the program."""

from __future__ import annotations

from collections import deque
from itertools import groupby

import numpy as np

from policyloop.core.clock import Clock, VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation, TimedCommand
from policyloop.sim.arena import Arena
from policyloop.sim.camera import CasterName
from policyloop.sim.late_motors import LateMotors
from policyloop.sim.randomization import NOMINAL, Randomization
from policyloop.sim.rover import Rover

__all__ = ["LateRover"]


class LateRover:
    """One rover, its motors, and what is on its way between them and the program.

    Every read is one tick later than the last one if there was a command in between. A tick is driven in physics
    steps: the motors follow whatever has reached them by then, and the camera looks in the middle of a tick if that is
    how old its pictures are. A picture says truly when it was captured.

    Args:
        profile: A rover's.
        clock: Virtual time advances by one tick per command; real time passes by itself.
        randomization: Each episode takes place under other conditions; None = under the nominal ones, without delay.
        caster: Which ray caster draws.
    """

    def __init__(
        self,
        profile: RobotProfile,
        clock: Clock,
        randomization: Randomization | None = None,
        *,
        caster: CasterName = "auto",
    ) -> None:
        self.rover = Rover(profile, caster=caster)
        self._clock, self._randomization = clock, randomization
        self._stop, self._period_ns = profile.stop(), profile.rates.period_ns

    def begin(self, place: Arena, rng: np.random.Generator) -> None:
        """Put the rover at a random free pose of `place`, where it stands until its first picture has arrived.

        Args:
            place: Where.
            rng: Draws pose and sensor noise. Conditions and jitter come from a child of it: equal generators give equal
                poses with and without them.
        """
        conditions, chance = NOMINAL, rng
        if self._randomization is not None:
            chance = rng.spawn(1)[0]
            conditions = self._randomization.draw(chance)
        self.rover.reset(place, rng, conditions)
        self._motors = LateMotors(
            self._stop,
            round(conditions.command_latency_ms * 1e6),
            round(conditions.command_jitter_ms * 1e6),
            chance,
        )
        self._behind = round(conditions.observation_latency_ms * 1e6 * self.rover.steps_per_tick / self._period_ns)
        self._seen: deque[Observation] = deque(maxlen=self._behind // self.rover.steps_per_tick + 1)
        self._ordered = False
        self._wait_for_first_picture()

    def _wait_for_first_picture(self) -> None:
        """Fill the line of pictures under way with those of the rover as it stands there."""
        if not self._behind:
            return
        self._pass(self._in_tick(self._behind))
        first_ns = self._clock.now_ns() - self._in_tick(self._behind)
        for tick in range(self._behind // self.rover.steps_per_tick + 1):
            self._seen.append(self._look(first_ns + tick * self._period_ns))

    def write(self, order: TimedCommand) -> None:
        """Send a command to the motors, for the next tick."""
        self._ordered |= self._motors.accept(order, self._clock.now_ns())

    def read(self) -> Observation:
        """Drive for one tick if there was a command, and return the newest observation that has arrived."""
        if self._ordered:
            self._ordered = False
            self._drive_tick()
        return self._seen[0] if self._behind else self._look(self._clock.now_ns())

    def _drive_tick(self) -> None:
        self._pass(self._period_ns)
        begun_ns, steps = self._clock.now_ns() - self._period_ns, self.rover.steps_per_tick
        looked_after = steps - self._behind % steps
        self._drive(begun_ns, 0, looked_after)
        if self._behind:
            self._seen.append(self._look(begun_ns + self._in_tick(looked_after)))
        self._drive(begun_ns, looked_after, steps)

    def _drive(self, begun_ns: int, first: int, end: int) -> None:
        """Drive the physics steps `first` to `end` of a tick as the motors are told at the beginning of each."""
        told = (self._motors.command(begun_ns + self._in_tick(step)).values for step in range(first, end))
        for values, steps in groupby(told):
            self.rover.drive(*values, steps=len(list(steps)))

    def _in_tick(self, steps: int) -> int:
        """Return how long so many physics steps take, ns."""
        return self._period_ns * steps // self.rover.steps_per_tick

    def _look(self, captured_ns: int) -> Observation:
        return Observation(self.rover.observe(), captured_ns, self.rover.contact)

    def _pass(self, duration_ns: int) -> None:
        if isinstance(self._clock, VirtualClock):
            self._clock.advance_ns(duration_ns)
