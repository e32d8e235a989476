"""The simulated Lite3 as hardware: a controller in C++ reads its sensors and drives its motors, 1000 times a second."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from policyloop.core.clock import Clock
from policyloop.core.profile import RobotProfile
from policyloop.robot.bridge.header import Header
from policyloop.robot.bridge.shared_file import SharedFile
from policyloop.robot.posture import MODES, REQUESTS, Mode, Request
from policyloop.sim.lite3 import PUSH_EVERY_S, Lite3, Wanted
from policyloop.sim.lite3_model import Lite3Physics
from policyloop.sim.lite3_robot import proprio_of

__all__ = ["HardwareReport", "Operator", "SimulatedHardware", "walks_off"]

_STEP_NS = 1_000_000
_STEP_S = _STEP_NS * 1e-9
_SILENT_S = 0.1
"""Motors whose controller says nothing for so long damp by themselves."""
_MOST_STEPS = 20
"""After a pause the simulation does not catch up for longer than this."""
_SAY_POLICY_S = 3.0

Operator = Callable[[float, Mode], tuple[Request, Wanted]]
"""Says after how many seconds with a controller, and in which mode, what is requested and how fast to walk."""


def walks_off(wanted: Wanted) -> Operator:
    """Return an operator who has the robot stand up, hands it to the policy after three seconds, and walks."""

    def operate(after_s: float, mode: Mode) -> tuple[Request, Wanted]:
        if after_s < 0.2:
            return "none", (0.0, 0.0, 0.0)
        return ("stand_up" if after_s < _SAY_POLICY_S else "policy"), wanted

    return operate


class HardwareReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the robot did.

    Attributes:
        seconds: Of simulated time.
        modes: Of the controller, in their order, and when each began, s.
        fell: It lay on the floor after it had stood.
        forward_mps, left_mps, yaw_radps: Means while the policy drove, from a second on; NaN if it never did.
    """

    seconds: float
    modes: tuple[tuple[Mode, float], ...]
    fell: bool
    forward_mps: float
    left_mps: float
    yaw_radps: float


class SimulatedHardware:
    """Owns the shared file of a controller's hardware: 34 sensor numbers out, 36 set-points in.

    Args:
        profile: The Lite3's joints in the controller's order.
        path: Of the file.
        rng: Draws the start and the pushes.
        operator: What somebody with a stick wants.
        clock: Real time.
        push_mps: Size of a push every three seconds while the policy drives.
    """

    def __init__(
        self,
        profile: RobotProfile,
        path: Path,
        rng: np.random.Generator,
        operator: Operator,
        clock: Clock,
        *,
        push_mps: float = 0.0,
    ) -> None:
        self._profile, self._rng, self._operator, self._clock = profile, rng, operator, clock
        self._push_mps = push_mps
        self._body = Lite3(profile, Lite3Physics(step_s=_STEP_S))
        self._body.reset(rng, lying=True)
        self._sensed = profile.sensed_indices
        joints = len(profile.action)
        self._file = SharedFile.create(path, Header(owner_floats=len(self._sensed) + 1, guest_floats=3 * joints))
        self._modes: list[tuple[Mode, float]] = []
        self._motions: list[tuple[float, float, float]] = []
        self._stood = self._fell = False
        self._steps = 0

    def run(self, stop: threading.Event, seconds: float = 0.0) -> HardwareReport:
        """Be a robot until `stop` is set or so many simulated seconds are over, 0 = for ever."""
        began_ns, end = self._clock.now_ns(), round(seconds / _STEP_S)
        while not stop.is_set() and (not end or self._steps < end):
            now_ns = self._clock.now_ns()
            due = (now_ns - began_ns) // _STEP_NS
            if due - self._steps > _MOST_STEPS:
                began_ns += (due - self._steps - 1) * _STEP_NS  # a pause of the machine is no fall
                due = self._steps + 1
            while self._steps < due:
                self._step(now_ns)
            self._tell(now_ns)
            self._clock.sleep_until_ns(began_ns + (self._steps + 1) * _STEP_NS)
        return self._report()

    def _step(self, now_ns: int) -> None:
        """Let the motors follow the controller for a millisecond."""
        joints = len(self._profile.action)
        record = self._file.reader.read()
        if record is None or now_ns - record.time_ns > _SILENT_S * 1e9:
            assert self._profile.joints is not None
            self._body.follow(np.zeros(joints), 0.0, self._profile.joints.damping_kd, steps=1)
        else:
            target, kp, kd = record.values[:joints], record.values[joints : 2 * joints], record.values[2 * joints :]
            self._body.follow(target, kp, kd, steps=1)
            self._notice(MODES[record.flags] if record.flags < len(MODES) else "damping")
        self._steps += 1

    def _notice(self, mode: Mode) -> None:
        after_s = self._steps * _STEP_S
        if not self._modes or self._modes[-1][0] != mode:
            self._modes.append((mode, after_s))
        motion, since_s = self._body.motion, after_s - self._modes[-1][1]
        if mode == "policy":
            self._stood = True
            if since_s > 1:
                self._motions.append((motion.forward_mps, motion.left_mps, motion.yaw_radps))
            if self._push_mps and self._steps % round(PUSH_EVERY_S / _STEP_S) == 0:
                self._body.push(self._push_mps, float(self._rng.uniform(-math.pi, math.pi)))
        self._fell = self._fell or (self._stood and self._body.low)

    def _tell(self, now_ns: int) -> None:
        """Write what the sensors say, and what the operator wants."""
        mode, came_s = (self._modes[-1][0], self._modes[0][1]) if self._modes else ("idle", self._steps * _STEP_S)
        request, wanted = self._operator(self._steps * _STEP_S - came_s, mode)
        proprio = proprio_of(self._profile, self._body.sense(), wanted)
        self._file.writer.write(now_ns, 0, [*proprio[self._sensed].tolist(), float(REQUESTS.index(request))])

    def _report(self) -> HardwareReport:
        forward, left, yaw = np.mean(self._motions, axis=0).tolist() if self._motions else [math.nan] * 3
        return HardwareReport(
            seconds=self._steps * _STEP_S,
            modes=tuple(self._modes),
            fell=self._fell,
            forward_mps=forward,
            left_mps=left,
            yaw_radps=yaw,
        )

    def close(self) -> None:
        """Let go of the file; the controller damps."""
        self._file.close()
