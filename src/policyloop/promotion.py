"""Which of several policies should drive from now on: a rule over episodes that each of them drove.

A candidate is promoted only if it is clearly better than the incumbent, and no less safe:

* better: the interval of the difference of interquartile means lies above zero, and it wins in more than half of the
  episodes. With several candidates the intervals widen (Bonferroni): the luckiest of many must not pass for good;
* its mean is not clearly worse: an interquartile mean does not see the worst quarter;
* it does not touch things more often, need rescue more often, keep less clearance, or lean more on the gate, beyond
  what luck explains. These guards refuse at weaker evidence than the score needs to convince: a wrong refusal costs
  a longer evaluation, a wrong promotion costs a robot.

Pure: no files, no robots, no clock. docs/promotion.md says how often the rule errs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np

from policyloop.statistics import (
    bootstrap_interval,
    chance_of_more,
    chance_of_more_paired,
    difference_interval,
    interquartile_mean,
    mean,
    probability_of_improvement,
)

__all__ = ["Contender", "Drive", "Judgement", "PromotionRule", "Standing", "Verdict", "judge", "merit"]

Verdict = Literal["incumbent", "better", "not better", "unsafe", "too few"]
"""`unsafe` is a candidate that its score would have promoted; `too few` speaks of its episodes or the incumbent's."""

COLLISION_PRICE = 100.0
"""Points. A policy that fails in one episode more of ten must do ten better in the mean."""

_FEWEST = 2
"""Episodes without which there is no interval at all."""


class Drive(msgspec.Struct, frozen=True, kw_only=True):
    """One episode that a policy drove without exploration.

    Attributes:
        score: Its return.
        collided: It ended by a collision, or by a fall.
        distance_m: Driven forward.
        gated: Steps in which the gate acted for lack of room or data.
        taken_over: A human had to take over.
        clearance_m: Smallest distance to something ahead; None if that was not recorded.
        kind: Episodes of one kind are resampled among themselves: the stratum.
    """

    score: float
    collided: bool
    distance_m: float
    gated: int
    taken_over: bool = False
    clearance_m: float | None = None
    kind: int = 0


class Contender(msgspec.Struct, frozen=True):
    """A policy by name, and its episodes."""

    policy: str
    drives: tuple[Drive, ...]


class PromotionRule(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as clearly better, and as less safe.

    Attributes:
        confidence: Of the intervals; shared out among several candidates.
        least_episodes: Of each policy.
        paired: All drove the same arenas in the same order.
        guard_level: Collisions or take-overs are too many where luck explains them with a smaller chance than this.
        gated_allowance: Steps per episode by which the gate may act more often.
        clearance_allowance_m: By which it may come closer to things.
    """

    confidence: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.95
    least_episodes: Annotated[int, msgspec.Meta(ge=_FEWEST)] = 10
    paired: bool = True
    guard_level: float = 0.1
    gated_allowance: float = 1.0
    clearance_allowance_m: float = 0.05


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one policy did, and how it compares with the incumbent.

    Attributes:
        return_iqm: Interquartile mean; `return_iqm_ci` is its interval at the rule's confidence.
        collision_rate, taken_over_rate: Shares of the episodes.
        interventions: Steps per episode in which the gate acted for lack of room or data.
        clearance_m: Mean of the episodes' smallest distances ahead; None if not recorded.
        difference: Of the interquartile means, candidate less incumbent; None for the incumbent.
        mean_difference_ci: Interval of the difference of the means.
        probability_of_improvement: That it does better in an episode.
        reason: For people.
    """

    policy: str
    episodes: int
    return_mean: float | None = None
    return_iqm: float | None = None
    return_iqm_ci: tuple[float, float] | None = None
    collision_rate: float | None = None
    taken_over_rate: float | None = None
    distance_m: float | None = None
    interventions: float | None = None
    clearance_m: float | None = None
    difference: float | None = None
    difference_ci: tuple[float, float] | None = None
    mean_difference_ci: tuple[float, float] | None = None
    probability_of_improvement: float | None = None
    verdict: Verdict
    reason: str = ""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Every policy's standing, the incumbent's first, and who should drive.

    Attributes:
        chosen: The candidate to promote; None = the incumbent stays.
    """

    standings: tuple[Standing, ...]
    chosen: str | None

    @property
    def refused_for_safety(self) -> bool:
        """Nobody is promoted, though somebody's score asked for it."""
        return self.chosen is None and any(standing.verdict == "unsafe" for standing in self.standings)


def judge(incumbent: Contender, candidates: Sequence[Contender], rule: PromotionRule) -> Judgement:
    """Compare every candidate with the incumbent; choose the best of those that are clearly better and no less safe."""
    confidence = 1 - (1 - rule.confidence) / len(candidates)
    standings = [_standing(candidate, incumbent, rule, confidence) for candidate in candidates]
    better = [standing for standing in standings if standing.verdict == "better"]
    best = max(better, key=lambda found: merit(found.return_mean or 0.0, found.collision_rate or 0.0), default=None)
    first = msgspec.structs.replace(_summary(incumbent, rule), verdict="incumbent")
    return Judgement(standings=(first, *standings), chosen=None if best is None else best.policy)


def merit(return_mean: float, collision_rate: float) -> float:
    """Return what ranks policies among themselves: the mean return, less what a collision should cost.

    Not the interquartile mean: policies of one training differ in their worst episodes, and it does not see them.
    """
    return return_mean - COLLISION_PRICE * collision_rate


def _summary(contender: Contender, rule: PromotionRule) -> Standing:
    drives = contender.drives
    if len(drives) < _FEWEST:
        return Standing(policy=contender.policy, episodes=len(drives), verdict="too few")
    scores = [drive.score for drive in drives]
    kinds = [drive.kind for drive in drives]
    clearances = [drive.clearance_m for drive in drives if drive.clearance_m is not None]
    return Standing(
        policy=contender.policy,
        episodes=len(drives),
        return_mean=float(mean(scores)),
        return_iqm=float(interquartile_mean(scores)),
        return_iqm_ci=bootstrap_interval(scores, interquartile_mean, confidence=rule.confidence, strata=kinds),
        collision_rate=float(np.mean([drive.collided for drive in drives])),
        taken_over_rate=float(np.mean([drive.taken_over for drive in drives])),
        distance_m=float(np.mean([drive.distance_m for drive in drives])),
        interventions=float(np.mean([drive.gated for drive in drives])),
        clearance_m=float(np.mean(clearances)) if clearances else None,
        verdict="not better",
    )


def _standing(candidate: Contender, incumbent: Contender, rule: PromotionRule, confidence: float) -> Standing:
    summary = _summary(candidate, rule)
    for contender in (candidate, incumbent):
        if len(contender.drives) < rule.least_episodes:
            reason = f"{contender.policy} drove {len(contender.drives)} episodes, {rule.least_episodes} are needed"
            return msgspec.structs.replace(summary, verdict="too few", reason=reason)
    scores, others = ([drive.score for drive in contender.drives] for contender in (candidate, incumbent))
    kinds = [drive.kind for drive in candidate.drives] if rule.paired else None
    (low, high), mean_ci = (
        difference_interval(scores, others, statistic, paired=rule.paired, confidence=confidence, strata=kinds)
        for statistic in (interquartile_mean, mean)
    )
    difference = float(interquartile_mean(scores) - interquartile_mean(others))
    wins = probability_of_improvement(scores, others, paired=rule.paired)
    doubts = _doubts(low, mean_ci[1], wins, confidence)
    dangers = _dangers(candidate.drives, incumbent.drives, rule)
    verdict: Verdict = "not better" if doubts else "unsafe" if dangers else "better"
    praise = f"better by {difference:.1f}, at least by {low:.1f} with {confidence:.1%} confidence"
    return msgspec.structs.replace(
        summary,
        difference=difference,
        difference_ci=(low, high),
        mean_difference_ci=mean_ci,
        probability_of_improvement=wins,
        verdict=verdict,
        reason="; ".join([*doubts, *dangers]) or praise,
    )


def _doubts(low: float, mean_high: float, wins: float, confidence: float) -> list[str]:
    """Return why a candidate's score does not convince."""
    doubts = []
    if low <= 0:
        doubts.append(f"it may be no better: the difference may be {low:.1f} ({confidence:.1%} interval)")
    if wins <= 0.5:
        doubts.append(f"it does better in {wins:.0%} of the episodes only")
    if mean_high < 0:
        doubts.append(f"its mean is worse by at least {-mean_high:.1f}: its worst episodes are bad ones")
    return doubts


def _dangers(drives: Sequence[Drive], others: Sequence[Drive], rule: PromotionRule) -> list[str]:
    """Return what a candidate does less safely than the incumbent, beyond luck."""
    dangers = []
    for what, happened in _MISHAPS:
        chance_of = chance_of_more_paired if rule.paired else chance_of_more
        rates = [[happened(drive) for drive in policy] for policy in (drives, others)]
        if chance_of(*rates) < rule.guard_level:
            dangers.append(
                f"{what} in {np.mean(rates[0]):.0%} of its episodes, of the incumbent's in {np.mean(rates[1]):.0%}"
            )
    gated, others_gated = ([float(drive.gated) for drive in policy] for policy in (drives, others))
    more = difference_interval(gated, others_gated, paired=rule.paired, confidence=rule.confidence)[0]
    if more > rule.gated_allowance:
        dangers.append(f"the gate acts in {mean(gated):.1f} steps of an episode, not in {mean(others_gated):.1f}")
    near, others_near = (
        [drive.clearance_m for drive in policy if drive.clearance_m is not None] for policy in (drives, others)
    )
    if min(len(near), len(others_near)) >= _FEWEST:
        closer = -difference_interval(near, others_near, paired=False, confidence=rule.confidence)[1]
        if closer > rule.clearance_allowance_m:
            dangers.append(f"it comes as close as {mean(near):.2f} m to things, not {mean(others_near):.2f} m")
    return dangers


_MISHAPS: tuple[tuple[str, Callable[[Drive], bool]], ...] = (
    ("a collision or fall", lambda drive: drive.collided),
    ("a human took over", lambda drive: drive.taken_over),
)
