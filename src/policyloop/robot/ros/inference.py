"""The node that drives, without ROS: topics in, twists out, and between them the same program as `policyloop run`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from policyloop.bundle.store import Store
from policyloop.core.clock import Clock
from policyloop.errors import PolicyloopError
from policyloop.robot.actor import Actor
from policyloop.robot.program import Program
from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop.robot.ros.parameters import Parameter, Value, why_refused
from policyloop.robot.ros.reload import Answer, await_swap
from policyloop.robot.ros.settings import gate_profile_of, profile_of, program_of, topics_of
from policyloop.robot.ros.teleop import Teleop
from policyloop.robot.ros.topics import TopicSource
from policyloop.robot.ros.twist_sink import TwistSink
from policyloop.runtime.locate import find_policy
from policyloop.safety.gate import SafetyGate

__all__ = ["Inference"]

log = logging.getLogger(__name__)

_TICKS = 600
"""Whose timing is told."""
_PATIENCE_S = 120.0
"""A version is tried in a process of its own, and then answers for a hundred ticks beside the one that drives."""


class Inference:
    """Drives one rover. Without a policy that may drive it stands still and says why.

    Args:
        table: The node's parameters.
        values: What they are.
        publish: Takes m/s and rad/s.
        clock: Real time.
        ros_now: Returns the time that stamps are made with, ns.

    Attributes:
        source: Takes in what sensors say.
        teleop: Takes in what a person does.
        problem: Why no policy is in command at all; empty if one is.

    Raises:
        ConfigError: A parameter or the profile makes no sense.
    """

    def __init__(
        self,
        table: Iterable[Parameter],
        values: dict[str, Value],
        publish: Callable[[float, float], None],
        clock: Clock,
        ros_now: Callable[[], int] | None = None,
    ) -> None:
        self._table, self._values = tuple(table), dict(values)
        self.profile = profile_of(values, "inference_rate_hz")
        self._gate = SafetyGate(gate_profile_of(self.profile, values))
        self._settings = program_of(values)
        self.source = TopicSource(self.profile, topics_of(values), clock, ros_now)
        self.teleop = Teleop(self.profile, str(values["teleop_topic"]), clock)
        self._sink = TwistSink(self.profile, publish)
        self._clock = clock
        self.problem = "not started"
        self._program: Program | None = None
        self._actor: Actor | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._changing = threading.Lock()

    def start(self) -> None:
        """Open the policy and begin to tick, disarmed."""
        try:
            program = Program(self.profile, self._settings, self._clock)
        except PolicyloopError as error:
            self.problem = str(error)
            log.error("standing still: %s", error)
            return
        self._program, self.problem = program, ""
        self._actor = program.actor(self.source, self._sink, gate=self._gate, human=self.teleop)
        self._thread = threading.Thread(target=self._drive, args=(program, self._actor), name="control-loop")
        self._thread.start()

    def _drive(self, program: Program, actor: Actor) -> None:
        try:
            program.drive(actor, self._stop)
        except Exception as error:  # whatever ends the loop, somebody must learn of it
            self.problem = f"the control loop ended: {type(error).__name__}: {error}"
            log.exception("standing still: %s", self.problem)

    def change(self, new: dict[str, Value]) -> str:
        """Change parameters; returns why that is refused, or an empty string. All of them change, or none."""
        with self._changing:
            if refused := why_refused(self._table, self._values, new):
                return refused
            values = {**self._values, **new}
            try:
                self._gate.tighten(gate_profile_of(self.profile, values))
            except PolicyloopError as error:
                return str(error)
            self._values = values
            return ""

    def reload(self) -> Answer:
        """Drive the store's current version; returns when it does, or why it does not."""
        program = self._program
        try:
            if program is None:
                self.start()
                return not self.problem, self.problem or "started; it is disarmed"
            if self.problem:
                return False, self.problem
            found = find_policy(self._settings.policy)
            if not (found / "versions").is_dir():
                return False, f"{found} is one bundle; give model_path a store, whose current version can change"
            return await_swap(program.slot, Store(found), lambda: self.armed, self._stop, _PATIENCE_S)
        except PolicyloopError as error:
            return False, str(error)

    @property
    def armed(self) -> bool:
        """Whether the policy may move the robot."""
        return self._program is not None and self._program.arming.now.state == "armed"

    def diagnoses(self) -> list[Diagnosis]:
        """Return how everything does."""
        found = [*self.source.diagnoses(), self.teleop.diagnosis()]
        if self._program is None or self._actor is None or self.problem:
            return [Diagnosis("error", "policy", self.problem), *found]
        return [self._policy(self._program, self._actor), _arming(self._program), _loop(self._actor), *found]

    def _policy(self, program: Program, actor: Actor) -> Diagnosis:
        policy = program.slot.policy
        values = {
            "version": str(policy.version),
            "digest": policy.digest[:12],
            "backend": policy.backend_name,
            "swaps": str(program.slot.swaps),
            "errors": str(actor.errors),
            "signed": str(self._settings.trusted is not None),
        }
        problems = []
        if self._values["use_npu"] and not policy.backend_name.startswith("rknn"):
            problems.append("use_npu is set, but it runs on the CPU: no NPU here, or no network for it in the bundle")
        if self._settings.trusted is None:
            problems.append("trusted_keys is empty: unsigned policies drive as well")
        if problems:
            return Diagnosis("warning", "policy", "; ".join(problems), values)
        return Diagnosis("ok", "policy", f"version {policy.version}", values)

    def close(self) -> None:
        """Stand still, end the loop and release everything."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._sink.close()
        if self._program is not None:
            self._program.close()


def _arming(program: Program) -> Diagnosis:
    now = program.arming.now
    values: dict[str, Any] = {"state": now.state, "stop_held": str(now.stop_held)}
    if now.state == "tripped":
        return Diagnosis("error", "arming", f"tripped: {now.reason}", values)
    return Diagnosis("ok", "arming", now.state, values)


def _loop(actor: Actor) -> Diagnosis:
    report = actor.report(_TICKS)
    values = {
        "ticks": str(report.ticks),
        "missed": str(report.missed),
        "late_p99_ms": f"{report.lateness_p99_ms:.2f}",
        "work_p50_ms": f"{report.work_p50_ms:.2f}",
        "work_p99_ms": f"{report.work_p99_ms:.2f}",
    }
    return Diagnosis("ok", "control loop", f"{report.ticks} ticks, {report.missed} missed", values)
