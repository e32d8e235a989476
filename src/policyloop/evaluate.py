"""Drive unseen simulated arenas, or walk, and say how it went, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation
from policyloop.errors import UsageError, VerificationError
from policyloop.robot.actor import Actor
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.io import Driver
from policyloop.robot.recorder import EpisodeSummary, Recorder
from policyloop.runtime.locate import find_policy
from policyloop.runtime.policy import Policy
from policyloop.runtime.reload import PolicySlot
from policyloop.safety.gate import GateMode, SafetyGate
from policyloop.sim.driver import RandomDriver, ScriptedDriver
from policyloop.sim.randomization import Randomization
from policyloop.sim.robot import SimulatedRobot
from policyloop.statistics import bootstrap_interval, interquartile_mean
from policyloop.walking import WALKS, WalkConditions, walk

__all__ = ["EVALUATION_ARENAS", "BorrowedPolicy", "EvaluationReport", "evaluate"]

EVALUATION_ARENAS = 1_000_000
"""First arena seed of record; no training or tuning uses seeds from here on."""


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a driver did.

    Attributes:
        return_ci: 95 % bootstrap interval of the mean return; None for a single episode.
        collision_rate: Share of episodes that ended by collision, or by a fall.
        distance_m: Mean distance driven forward per episode.
        interventions: Steps per episode in which the gate had to act for lack of room or data.
        randomized: Every arena was driven under other conditions: see `sim.randomization`.
    """

    driver: str
    gate: str
    episodes: int
    return_mean: float
    return_ci: tuple[float, float] | None
    return_median: float
    return_iqm: float
    returns: tuple[float, ...]
    collision_rate: float
    distance_m: float
    interventions: float
    randomized: bool = False


class BorrowedPolicy:
    """A driver on an opened policy that somebody else closes, for `evaluate`.

    Args:
        name: Says in the report what it is.
        policy: Drives every episode.
    """

    def __init__(self, name: str, policy: Policy) -> None:
        self.name, self._policy = name, policy

    def propose(self, observation: Observation) -> Action:
        """Ask the policy for its mean."""
        return self._policy.act(observation)

    def executed(self, command: Command) -> None:
        """Take no notice."""

    def reset(self) -> None:
        """Take no notice."""


def make_driver(
    name: str | BorrowedPolicy, profile: RobotProfile, rng: np.random.Generator
) -> tuple[Driver, Callable[[], None]]:
    """Return a driver by name or path, and what closes it."""
    if isinstance(name, BorrowedPolicy):
        return name, lambda: None
    if name in ("scripted", "random") and profile.joints is not None:
        raise UsageError(f"no driver '{name}' walks", "give a policy for this robot")
    if name == "scripted":
        return ScriptedDriver(profile), lambda: None
    if name == "random":
        return RandomDriver(profile, rng), lambda: None
    slot = PolicySlot(find_policy(Path(name)), profile)
    return PolicyDriver(slot, len(profile.action)), slot.close


def drive_episode(
    profile: RobotProfile,
    name: str | BorrowedPolicy,
    arena_seed: int,
    gate: GateMode,
    randomization: Randomization | None = None,
) -> EpisodeSummary:
    """Drive one arena from start to end; equal arguments give equal episodes."""
    rng = np.random.default_rng([777, arena_seed])
    driver, close = make_driver(name, profile, rng)
    if profile.joints is not None:
        if randomization is not None:
            raise UsageError(
                "only a simulated rover's world is randomized", "leave --randomize out for a robot that walks"
            )
        try:
            return _walked(profile, driver, arena_seed, gate)
        finally:
            close()
    clock = VirtualClock()
    robot = SimulatedRobot(profile, [arena_seed], rng, clock, randomization=randomization)
    recorder = Recorder(profile, "evaluation", "")
    actor = Actor(profile, robot, robot, driver, SafetyGate(profile, gate), recorder, clock)
    try:
        for _ in range(profile.episode.max_steps + 1):
            actor.tick()
            if recorder.episodes:
                return recorder.episodes[0]
    finally:
        close()
    label = name.name if isinstance(name, BorrowedPolicy) else name
    raise VerificationError(f"driver '{label}' failed in {actor.errors} ticks of arena {arena_seed}", "see the log")


def _walked(profile: RobotProfile, driver: Driver, seed: int, gate: GateMode) -> EpisodeSummary:
    """Walk as asked for by one of ten commands, in turn; the score says for how many seconds it did."""
    done = walk(profile, driver, WALKS[seed % len(WALKS)], seed, gate=gate)
    steps = round(WalkConditions().seconds * profile.rates.control_hz)
    return EpisodeSummary(
        steps=steps, score=done.score, collided=done.fell, distance_m=done.distance_m, gated=done.gated
    )


def evaluate(
    profile: RobotProfile,
    driver: str | BorrowedPolicy,
    *,
    episodes: int = 50,
    arena_seed: int = EVALUATION_ARENAS,
    gate: GateMode = "limits",
    randomization: Randomization | None = None,
    label: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Drive `episodes` arenas, seeds `arena_seed` and on, without exploration.

    Args:
        profile: The robot's.
        driver: `scripted`, `random`, the path of a policy, or an opened one.
        episodes: How many arenas.
        arena_seed: The first arena.
        gate: `full`, or `limits` to judge the driver alone.
        randomization: Drive each arena under other conditions, the same for every driver; None = the nominal ones.
        label: Name in the report; the driver's if empty.
        progress: Called with (done, total).
    """
    summaries = []
    for index in range(episodes):
        summaries.append(drive_episode(profile, driver, arena_seed + index, gate, randomization))
        if progress is not None:
            progress(index + 1, episodes)
    name = driver.name if isinstance(driver, BorrowedPolicy) else driver
    return summarise(summaries, label or name, gate, randomized=randomization is not None)


def summarise(
    summaries: Sequence[EpisodeSummary], driver: str, gate: str, *, randomized: bool = False
) -> EvaluationReport:
    """Reduce episodes to a report."""
    returns = [summary.score for summary in summaries]
    return EvaluationReport(
        driver=driver,
        gate=gate,
        episodes=len(returns),
        return_mean=float(np.mean(returns)),
        return_ci=bootstrap_interval(returns) if len(returns) > 1 else None,
        return_median=float(np.median(returns)),
        return_iqm=float(interquartile_mean(returns)),
        returns=tuple(returns),
        collision_rate=float(np.mean([summary.collided for summary in summaries])),
        distance_m=float(np.mean([summary.distance_m for summary in summaries])),
        interventions=float(np.mean([summary.gated for summary in summaries])),
        randomized=randomized,
    )
