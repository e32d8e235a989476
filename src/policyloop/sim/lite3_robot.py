"""The simulated Lite3 as a robot: the same seams as a real one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policyloop.core.clock import Clock, VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation, TimedCommand
from policyloop.robot.motors import MotorLatch
from policyloop.sim.lite3 import PUSH_EVERY_S, Lite3, Sensors, Wanted

__all__ = ["WANTED", "SimulatedLite3", "proprio_of"]

WANTED: tuple[Wanted, ...] = ((0.5, 0.0, 0.0), (0.0, 0.0, 0.6), (0.4, 0.2, -0.4), (0.0, 0.0, 0.0))
"""What the operator asks for, one after the other: forward m/s, left m/s, turning rad/s."""
_WANTED_S = 5.0


def proprio_of(profile: RobotProfile, sensors: Sensors, wanted: Wanted) -> NDArray[np.float32]:
    """Return the proprioception vector, by the names of the profile; zeros for what nobody senses."""
    readings: dict[str, ArrayLike] = {
        "base_ang_vel": sensors.angular_velocity,
        "projected_gravity": sensors.gravity,
        "wanted_linear_vel": wanted[:2],
        "wanted_angular_vel": wanted[2:],
        "joint_pos": sensors.joint_pos,
        "joint_vel": sensors.joint_vel,
    }
    parts = [np.asarray(readings.get(entry.name, np.zeros(entry.size)), np.float32) for entry in profile.proprio]
    return np.concatenate(parts)


class SimulatedLite3:
    """A Lite3 whose clock is real or virtual; it stands until it gets its first command.

    Args:
        profile: The Lite3's joints, in any order.
        rng: Draws the starts and the pushes.
        clock: On virtual time every observation is one tick later.
        body: The machine; None = one without disturbances.
        wanted: What the operator asks for, five seconds each, over and over.
        push_mps: Size of a push every three seconds.
    """

    def __init__(
        self,
        profile: RobotProfile,
        rng: np.random.Generator,
        clock: Clock,
        *,
        body: Lite3 | None = None,
        wanted: Sequence[Wanted] = WANTED,
        push_mps: float = 0.0,
    ) -> None:
        self._profile, self._rng, self._clock = profile, rng, clock
        self.body = body or Lite3(profile)
        self._wanted, self._push_mps = tuple(wanted), push_mps
        self._hz = profile.rates.control_hz
        self.begin_episode()

    def begin_episode(self) -> bool:
        """Stand up somewhere else."""
        self.body.reset(self._rng)
        self._motors = MotorLatch(self._profile.stop())
        self._ticks = 0
        self._standing, self._ordered = True, False
        return True

    def read(self) -> Observation:
        """Let the motors follow the last command for one tick, and sense."""
        if self._ordered or not isinstance(self._clock, VirtualClock):
            self._move()
            self._ordered = False
        now_ns = self._clock.now_ns()
        wanted = self._wanted[int(self._ticks / self._hz / _WANTED_S) % len(self._wanted)]
        proprio = proprio_of(self._profile, self.body.sense(), wanted)
        return Observation({"proprio": proprio}, now_ns, contact=self.body.low)

    def _move(self) -> None:
        command = self._motors.command(self._clock.now_ns())
        self._standing = self._standing and command.damped
        if self._standing:
            self.body.stand()
        elif command.damped:
            self.body.damp()
        else:
            self.body.drive(np.array(command.values))
        self._ticks += 1
        if self._push_mps and self._ticks % round(PUSH_EVERY_S * self._hz) == 0:
            self.body.push(self._push_mps, float(self._rng.uniform(-math.pi, math.pi)))
        if isinstance(self._clock, VirtualClock):
            self._clock.advance_ns(self._profile.rates.period_ns)

    def write(self, order: TimedCommand) -> None:
        """Take a command; the motors follow it as long as it is valid."""
        self._ordered |= self._motors.accept(order, self._clock.now_ns())

    def close(self) -> None:
        """There is nothing to let go."""
