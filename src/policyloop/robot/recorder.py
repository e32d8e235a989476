"""Ticks -> steps and episodes.

A step is complete only when the next observation is there: the reward of an action is what came
of it, never the velocity that earlier actions caused.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from policyloop.core.profile import RobotProfile
from policyloop.core.reward import reward_terms
from policyloop.core.step import Action, Command, Observation, Stamps, Step, StepRecord

__all__ = ["EpisodeSummary", "Recorder", "gate_acted"]


class EpisodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one episode."""

    steps: int
    score: float
    """Sum of the profile's reward."""
    collided: bool
    distance_m: float
    """Driven forward."""
    gated: int
    """Steps in which the gate changed the proposal for lack of room or data."""


def gate_acted(command: Command) -> bool:
    """Tell whether the gate changed a proposal for lack of room or data, not only kept it within limits."""
    return any(reason not in ("limits", "slew", "disturbed") for reason in command.reasons)


class _Pending(msgspec.Struct, frozen=True):
    observation: Observation
    action: Action
    command: Command
    stamps: Stamps
    wall_clock_s: float


class Recorder:
    """Turns ticks into steps and decides when an episode ends (row S6).

    Args:
        profile: Reward, episode rules.
        robot: Name of the robot.
        boot: Random name of this start of the program.
        emit: Called with every finished step; None = record nothing, only keep score.

    Attributes:
        episodes: Summary of every finished episode.
    """

    def __init__(
        self, profile: RobotProfile, robot: str, boot: str, emit: Callable[[Step], None] | None = None
    ) -> None:
        self._profile = profile
        self._robot, self._boot, self._emit = robot, boot, emit
        self._sequence = 0
        self._episode = 0
        self._gap = False
        self.episodes: list[EpisodeSummary] = []
        self._begin()

    def _begin(self) -> None:
        self._index = 0
        self._pending: _Pending | None = None
        self._last_command = self._profile.stop()
        self._score = self._distance_m = 0.0
        self._gated = 0
        self._human = False

    def miss(self) -> None:
        """Take in a tick in which nothing could be proposed: nothing may be carried across it."""
        self._pending = None
        self._gap = True
        self._last_command = self._profile.stop()

    def observe(self, observation: Observation) -> bool:
        """Take in the observation that followed the last tick; True if it ended the episode."""
        pending = self._pending
        if pending is None:
            return False
        profile = self._profile
        terminated = self._collided(observation)
        truncated = not terminated and self._index + 1 >= profile.episode.max_steps
        outcome = profile.outcome(observation.arrays["proprio"], collided=terminated)
        terms = reward_terms(profile.reward, outcome)
        self._score += sum(terms.values())
        self._distance_m += max(outcome.linear_mps, 0.0) / profile.rates.control_hz
        self._gated += gate_acted(pending.command)
        ended = terminated or truncated
        if self._emit is not None:
            self._emit(
                Step(
                    self._record(pending, terms, terminated, truncated, observation.contact),
                    pending.observation.arrays,
                    observation.arrays if ended else None,
                )
            )
        self._sequence += 1
        self._index += 1
        self._last_command = pending.command
        self._pending = None
        if ended:
            self._finish(terminated)
        return ended

    def _record(
        self, pending: _Pending, terms: dict[str, float], terminated: bool, truncated: bool, contact: bool
    ) -> StepRecord:
        human = pending.action.source == "human"
        intervention = {(False, True): "start", (True, True): "hold", (True, False): "stop"}.get(
            (self._human, human), ""
        )
        self._human = human
        gap, self._gap = self._gap, False
        return StepRecord(
            robot=self._robot,
            boot=self._boot,
            sequence=self._sequence,
            episode=self._episode,
            index=self._index,
            profile_digest=self._profile.digest,
            stamps=pending.stamps,
            previous_command=self._last_command.values,
            action=pending.action,
            command=pending.command,
            reward_terms=terms,
            terminated=terminated,
            truncated=truncated,
            gap=gap,
            intervention=intervention,  # type: ignore[arg-type]
            contact=contact,
            wall_clock_s=pending.wall_clock_s,
        )

    def _collided(self, observation: Observation) -> bool:
        proprio = observation.arrays["proprio"]
        outcome = self._profile.outcome(proprio)
        if observation.contact or self._profile.fallen(proprio):
            return True
        return 0 < outcome.distance_m < self._profile.episode.collision_distance_m

    def _finish(self, collided: bool) -> None:
        self.episodes.append(
            EpisodeSummary(
                steps=self._index,
                score=self._score,
                collided=collided,
                distance_m=self._distance_m,
                gated=self._gated,
            )
        )
        self._episode += 1
        self._begin()

    def act(self, observation: Observation, action: Action, command: Command, stamps: Stamps) -> None:
        """Take in what was done at this tick."""
        self._pending = _Pending(observation, action, command, stamps, time.time())
