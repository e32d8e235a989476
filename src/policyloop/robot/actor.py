"""The actor: one tick after the other, at a fixed rate.

sense -> propose -> gate -> command -> record. An exception anywhere in sensing or proposing ends in
a zero command for this tick; the loop goes on and reports.
"""

from __future__ import annotations

import logging
import math
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import numpy as np

from policyloop.core.clock import Clock, VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation, Stamps
from policyloop.robot.age import Age
from policyloop.robot.io import CommandSink, Driver, SensorSource
from policyloop.robot.last_output import LastOutput
from policyloop.robot.outlet import Outlet
from policyloop.robot.recorder import Recorder
from policyloop.robot.watchdog import LoopWatchdog
from policyloop.safety.arming import ArmingSwitch, ArmState
from policyloop.safety.gate import SafetyGate

__all__ = ["Actor", "Disturbance", "TickReport"]

log = logging.getLogger(__name__)

_COMPLAIN_EVERY_NS = 10_000_000_000
"""What goes wrong in every tick is said now and then."""

Disturbance = Callable[[Action], tuple[float, ...]]


class TickReport(msgspec.Struct, frozen=True, kw_only=True):
    """How well the actor kept its rate; milliseconds."""

    ticks: int
    missed: int
    """Ticks that began more than one whole period late."""
    lateness_p50_ms: float
    lateness_p99_ms: float
    lateness_max_ms: float
    work_p50_ms: float
    work_p99_ms: float
    work_max_ms: float


class Actor:
    """Drives one robot.

    Args:
        profile: The robot's.
        source: Gives observations.
        sink: Takes commands.
        driver: Proposes.
        gate: Always between driver and sink.
        recorder: Makes steps of ticks.
        clock: Real or virtual time.
        disturb: Replaces the proposal before the gate now and then, so that a teacher shows how to
            recover (DART, Laskey et al. 2017); the recorded action stays the teacher's.
        arming: Who may move the robot; None = the driver always may, as in simulation.
        human: Gives what a person does now, or None while nobody has taken over.
        between_ticks: Called before each tick; the place to exchange the policy.
        watch: Called with every observation that is whole; must return at once.
        await_input: Waits for the robot's next input until some time, ns, and says whether it came: for a robot whose
            controller sets the pace. None = the clock does.
    """

    def __init__(
        self,
        profile: RobotProfile,
        source: SensorSource,
        sink: CommandSink,
        driver: Driver,
        gate: SafetyGate,
        recorder: Recorder,
        clock: Clock,
        *,
        disturb: Disturbance | None = None,
        arming: ArmingSwitch | None = None,
        human: Callable[[], Action | None] = lambda: None,
        between_ticks: Callable[[], object] | None = None,
        watch: Callable[[Observation], None] | None = None,
        await_input: Callable[[int], bool] | None = None,
    ) -> None:
        self._profile = profile
        self._source, self._driver = source, driver
        self._outlet = Outlet(profile, sink, clock)
        self._arming, self._human = arming, human
        self._gate, self._recorder, self._clock = gate, recorder, clock
        self._disturb = disturb
        self._last_output, self._age = LastOutput(profile), Age(profile)
        self._failed = False
        self._between_ticks = between_ticks
        self._watch = watch
        self._await_input, self._asked = await_input, True
        self._lateness_ns, self._work_ns = array("q"), array("q")
        self.errors = self._missed = 0
        self._reported, self._reported_ns = "", 0
        self._warned_ns: int | None = None

    def tick(self) -> Command:
        """Do one tick; returns the command that was written."""
        begun = self._outlet.begin()
        observation = self._sense()
        by_hand = self._human()
        state = self._who_may_move(observation, by_hand)
        action = by_hand if state == "human" else self._propose(observation) if state == "armed" else None
        self._failed = state == "armed" and (action is None or not _finite(action))
        inferred_ns = self._clock.now_ns()
        proposal = action
        if action is not None and self._disturb is not None:
            proposal = Action(self._disturb(action), action.source)
        command = self._gate.check(proposal, observation, self._clock.now_ns(), state)
        if action is not None and proposal is not None and proposal.values != action.values:
            command = Command(command.values, ("disturbed", *command.reasons))
        command = self._outlet.send(command, begun)
        followed = observation is not None and observation.followed
        if state == "armed" and (followed or observation is None):
            self._trip_if_dropped(command)
        if command.damped or not followed:
            self._last_output.clear()
        elif action is not None:
            self._last_output.learn(action)
        if observation is not None and action is not None and followed:
            if state == "armed":
                self._driver.executed(command)
            stamps = Stamps(observation.captured_ns, inferred_ns, self._clock.now_ns())
            self._recorder.act(observation, action, command, stamps)
        else:
            self._recorder.miss()
        return command

    def _trip_if_dropped(self, command: Command) -> None:
        """A robot with legs whose joints were let go lies on the floor: a person decides how it goes on."""
        if command.damped and self._arming is not None:
            self._arming.trip(f"joints were let go: {', '.join(command.reasons)}")

    def _who_may_move(self, observation: Observation | None, by_hand: Action | None) -> ArmState:
        if self._arming is None:
            return "armed"
        healthy = not self._failed and not self._gate.unfit(observation, self._clock.now_ns())
        return self._arming.tick(healthy=healthy, by_human=by_hand is not None)

    def _late(self) -> None:
        """Stop in the middle of a tick or between two; a tick that begins only now would not notice."""
        if self._profile.joints is not None and self._arming is not None and self._arming.now.state != "disarmed":
            self._arming.trip("joints were let go: late")
        self._outlet.halt("late")

    def halt(self, reason: str) -> None:
        """Stop the robot and trip it, from any thread; the tick that runs now moves nothing any more."""
        if self._arming is not None:
            self._arming.trip(reason)
        self._outlet.halt(reason)

    def _sense(self) -> Observation | None:
        observation = self._read()
        if observation is None or not self._recorder.observe(observation):
            return observation
        return self._read(new_episode=True)

    def _read(self, *, new_episode: bool = False) -> Observation | None:
        try:
            if new_episode:
                if self._source.begin_episode():
                    self._gate.reset()
                self._driver.reset()
                self._last_output.clear()
            observation = self._last_output.told(self._source.read())
            observation = self._age.told(observation, self._clock.now_ns())
            for name, spec in self._profile.observation_specs.items():
                spec.validate(observation.arrays[name])
            if self._watch is not None:
                self._watch(observation)
            return observation
        except Exception as error:  # whatever a sensor does wrong, the robot must stop
            self._report("sensing", error)
            return None

    def _propose(self, observation: Observation | None) -> Action | None:
        if observation is None or not self._asked:  # an answer that nobody gets would be learned as the last one
            return None
        try:
            action = self._driver.propose(observation)
            if not _finite(action):
                self._report("inference", ValueError(f"action {action.values}"))
            return action
        except Exception as error:  # whatever a policy does wrong, the robot must stop
            self._report("inference", error)
            return None

    def _report(self, what: str, error: Exception) -> None:
        self.errors += 1
        text = f"{what} failed, standing still: {type(error).__name__}: {error}"
        now_ns = self._clock.now_ns()
        if text != self._reported or now_ns - self._reported_ns > _COMPLAIN_EVERY_NS:
            self._reported, self._reported_ns = text, now_ns
            log.error("%s", text)

    def _warn(self, text: str) -> None:
        now_ns = self._clock.now_ns()
        if self._warned_ns is None or now_ns - self._warned_ns > _COMPLAIN_EVERY_NS:
            self._warned_ns = now_ns
            log.warning("%s", text)

    def run(self, stop: threading.Event, *, ticks: int | None = None) -> None:
        """Tick at the profile's rate until `stop` is set or `ticks` are done; ends with a zero command.

        A tick that is late is done at once; ticks that were missed entirely are counted and skipped.
        """
        try:
            with self._watched() as pet:
                self._keep_ticking(stop, ticks, pet)
        finally:
            self._outlet.halt("shutdown")

    def _keep_ticking(self, stop: threading.Event, ticks: int | None, pet: Callable[[], None]) -> None:
        period_ns = self._profile.rates.period_ns
        deadline_ns = self._clock.now_ns()
        done = 0
        while not stop.is_set() and (ticks is None or done < ticks):
            deadline_ns = self._wait(deadline_ns)
            pet()
            started_ns = self._clock.now_ns()
            self._lateness_ns.append(started_ns - deadline_ns)
            if self._between_ticks is not None:
                self._between_ticks()
            self.tick()
            done += 1
            now_ns = self._clock.now_ns()
            self._work_ns.append(now_ns - started_ns)
            deadline_ns += period_ns
            if now_ns > deadline_ns + period_ns:
                skipped = (now_ns - deadline_ns) // period_ns
                self._missed += skipped
                took_ms = (now_ns - started_ns) * 1e-6
                self._warn(f"{skipped} ticks were missed: this one began late, or took {took_ms:.0f} ms")
                deadline_ns += skipped * period_ns

    def _wait(self, deadline_ns: int) -> int:
        """Wait for the next tick; returns when it was due. A controller that is late gets half a tick of grace."""
        if self._await_input is None:
            self._clock.sleep_until_ns(deadline_ns)
            return deadline_ns
        grace_ns = deadline_ns + self._profile.rates.period_ns // 2
        self._asked = self._await_input(grace_ns)
        return self._clock.now_ns() if self._asked else grace_ns

    @contextmanager
    def _watched(self) -> Iterator[Callable[[], None]]:
        """Give what must be called in every tick lest the robot be stopped; on virtual time nobody can be late."""
        if isinstance(self._clock, VirtualClock):
            yield lambda: None
            return
        watchdog = LoopWatchdog(
            self._profile.rates,
            late=self._late,
            hung=lambda: self.halt("the control loop hangs"),
        )
        try:
            yield watchdog.pet
        finally:
            watchdog.close()

    def report(self, last: int = 0) -> TickReport:
        """Return the timing of the last so many ticks of `run`, 0 = of all; from any thread, while it runs."""
        # Slices are copies: an array that somebody looks at cannot grow, and the loop would fail.
        late = np.asarray(self._lateness_ns[-last:], np.float64) / 1e6
        work = np.asarray(self._work_ns[-last:], np.float64) / 1e6
        if len(work) == 0:
            late = work = np.zeros(1)
        return TickReport(
            ticks=len(self._lateness_ns),
            missed=self._missed,
            lateness_p50_ms=float(np.percentile(late, 50)),
            lateness_p99_ms=float(np.percentile(late, 99)),
            lateness_max_ms=float(late.max()),
            work_p50_ms=float(np.percentile(work, 50)),
            work_p99_ms=float(np.percentile(work, 99)),
            work_max_ms=float(work.max()),
        )


def _finite(action: Action) -> bool:
    return all(map(math.isfinite, action.values))
