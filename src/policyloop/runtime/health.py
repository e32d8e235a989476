"""Whether a policy is fit to drive: pure bookkeeping, no threads, no clock.

A candidate first answers beside the policy that drives (`Shadow`); then it drives on probation (`Probation`).
Numbers: docs/shipping.md; where they come from: RAUC and Mender mark good after health, Triton keeps the old one.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action

__all__ = ["Outcome", "Probation", "Shadow", "SwapSettings"]

Outcome = Literal["late", "error", "not-finite", "fine"]
"""Of one tick's inference."""

_ENOUGH_TICKS = 50
_SMALLEST_TRIP_SHARE = 0.05
"""Of the baseline: a policy that the gate never had to stop must not condemn one that it stopped twice."""


class SwapSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy must show before it drives, and before it is good.

    Attributes:
        trial_time_s: For opening it and trying it in a process of its own.
        trial_calls: Inferences there, to see how long one takes.
        latency_share: Of a tick, that an inference may take: the median in the trial, the 99th percentile in shadow.
        shadow_ticks: Ticks in which it answers beside the policy that drives.
        divergence: Mean distance between the two policies' actions, as a share of the actions' range.
        probation_s: How long it must drive.
        late_share: Of the ticks on probation, that may miss the deadline.
        trip_ratio: How much more often the gate may stop it for lack of room than the policy before it.
    """

    trial_time_s: float = 30.0
    trial_calls: int = 50
    latency_share: float = 0.8
    shadow_ticks: int = 100
    divergence: float = 0.4
    probation_s: float = 30.0
    late_share: float = 0.01
    trip_ratio: float = 3.0


class Shadow:
    """Compares a candidate with the policy that drives, on the same observations.

    Args:
        profile: The robot's.
        settings: Numbers.
    """

    def __init__(self, profile: RobotProfile, settings: SwapSettings) -> None:
        self._span = 2 * profile.action_half_range
        self._limit_s = settings.latency_share / profile.rates.control_hz
        self._settings = settings
        self._latencies_s: list[float] = []
        self._divergences: list[float] = []
        self._problem = ""

    def compare(self, driven: Action, proposed: Action, latency_s: float) -> None:
        """Take in one tick: what drove, what the candidate would have done, and how long it took."""
        if not np.isfinite(proposed.values).all():
            self._problem = "it answers with numbers that are not finite"
        self._latencies_s.append(latency_s)
        self._divergences.append(float(np.abs(np.subtract(driven.values, proposed.values) / self._span).mean()))

    @property
    def done(self) -> bool:
        """There is nothing more to see."""
        return bool(self._problem) or len(self._latencies_s) >= self._settings.shadow_ticks

    @property
    def problem(self) -> str:
        """Why the candidate must not drive; empty if it may."""
        if self._problem or not self._latencies_s:
            return self._problem
        latency_s, divergence = float(np.percentile(self._latencies_s, 99)), float(np.mean(self._divergences))
        if latency_s > self._limit_s:
            return f"it takes {1e3 * latency_s:.1f} ms of a tick (p99), at most {1e3 * self._limit_s:.1f} are allowed"
        if divergence > self._settings.divergence:
            return (
                f"its actions are {divergence:.0%} of their range away from those of the policy that drives, "
                f"at most {self._settings.divergence:.0%} are allowed"
            )
        return ""

    @property
    def summary(self) -> str:
        """What was seen; for people."""
        if not self._latencies_s:
            return "no shadow ticks"
        return (
            f"{len(self._latencies_s)} shadow ticks: divergence mean {np.mean(self._divergences):.1%}, "
            f"largest {np.max(self._divergences):.1%}; latency p99 {1e3 * np.percentile(self._latencies_s, 99):.1f} ms"
        )


class Probation:
    """Counts what goes wrong while a policy drives that must prove itself.

    Args:
        settings: Numbers.
        control_hz: The profile's.
        baseline: Share of ticks in which the gate had to stop the policy before it; None = there was none.

    Attributes:
        problem: Why it must not go on driving; empty as long as it may.
    """

    def __init__(self, settings: SwapSettings, control_hz: float, baseline: float | None = 0.0) -> None:
        self.problem = ""
        self._ticks = max(1, round(settings.probation_s * control_hz))
        self._late_allowed = settings.late_share * self._ticks
        self._trip_limit = 1.0 if baseline is None else settings.trip_ratio * max(baseline, _SMALLEST_TRIP_SHARE)
        self._seen = self._late = self._tripped = 0

    @property
    def passed(self) -> bool:
        """It has driven long enough, and well."""
        return not self.problem and self._seen >= self._ticks

    @property
    def summary(self) -> str:
        """What was seen; for people."""
        return f"{self._seen} ticks on probation: {self._late} late, {self._tripped} stopped by the gate"

    def inferred(self, outcome: Outcome, detail: str = "") -> None:
        """Take in how one tick's inference went; one error or one NaN is one too many."""
        self._seen += 1
        self._late += outcome == "late"
        if outcome in ("error", "not-finite"):
            self.problem = self.problem or f"{outcome} while driving: {detail}"
        elif self._late > self._late_allowed:
            self.problem = self.problem or f"{self._late} of {self._seen} ticks late, {self._ticks} were to be driven"

    def commanded(self, *, tripped: bool) -> None:
        """Take in whether the gate had to stop it for lack of room."""
        self._tripped += tripped
        if self._seen >= _ENOUGH_TICKS and self._tripped > self._trip_limit * self._seen:
            self.problem = self.problem or (
                f"the gate stopped it in {self._tripped} of {self._seen} ticks, "
                f"at most {self._trip_limit:.0%} are allowed"
            )
