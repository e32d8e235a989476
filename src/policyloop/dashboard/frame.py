"""What one frame tells a page: everything that changes all the time, as JSON."""

from __future__ import annotations

from collections import Counter

import msgspec

from policyloop.dashboard.controls import Controls, ControlShown
from policyloop.dashboard.learning import LearnerView, time_to_next_update
from policyloop.dashboard.robots import Point, Robots, RobotShown
from policyloop.dashboard.tail import JournalTail

__all__ = ["End", "LiveFrame", "Trails", "live_frame"]


class Axis(msgspec.Struct, frozen=True):
    """One entry of the action vector."""

    name: str
    unit: str
    low: float
    high: float


class LiveFrame(msgspec.Struct, frozen=True, kw_only=True, tag="live", tag_field="kind"):
    """What changes all the time.

    Attributes:
        period_s: One tick of the robots.
        depth_m: Range of the colours of depth; None = no camera.
        not_stored: Step messages that the gateway refused, by reason.
        events: What else it counted.
        unread: Stored steps that the learner has not accounted for; None = there is no learner.
        next_update_s: About how long until the learner's next update; None = nobody can say.
        staleness: Last policy steps, by how many versions their policy lies behind the newest.
    """

    profile: str
    period_s: float
    depth_m: tuple[float, float] | None
    actions: list[Axis]
    journal_problem: str
    steps: int
    size_bytes: int
    not_stored: dict[str, int]
    events: dict[str, int]
    unread: int | None
    next_update_s: float | None
    staleness: dict[str, int]
    robots: list[RobotShown]
    controls: list[ControlShown]


class Trails(msgspec.Struct, frozen=True, tag="trails", tag_field="kind"):
    """New steps by robot; a list, for a name may be anything."""

    trails: list[tuple[str, list[Point]]]


class End(msgspec.Struct, frozen=True, tag="end", tag_field="kind"):
    """A frame is complete; `lag_s` is how long an earlier one took until it was shown."""

    frame: int
    lag_s: float


def live_frame(tail: JournalTail | None, robots: Robots, learner: LearnerView | None, controls: Controls) -> LiveFrame:
    """Return how everything stands now; None = that part is not watched."""
    profile = tail.profile if tail is not None else None
    camera = profile.camera if profile is not None else None
    newest = learner.newest_version if learner is not None else None
    unread = _unread(tail, learner)
    return LiveFrame(
        profile=profile.name if profile else "",
        period_s=profile.rates.period_ns * 1e-9 if profile else 0.1,
        depth_m=(camera.depth_near_m, camera.depth_max_m) if camera else None,
        actions=[Axis(entry.name, entry.unit, entry.low, entry.high) for entry in profile.action] if profile else [],
        journal_problem=tail.problem if tail else "",
        steps=tail.steps if tail else 0,
        size_bytes=tail.size_bytes if tail else 0,
        not_stored=tail.refused if tail else {},
        events=tail.events if tail else {},
        unread=unread,
        next_update_s=_next_update_s(robots, learner, unread),
        staleness=_staleness(robots, newest),
        robots=[shown for view in robots.views if (shown := view.shown(newest)) is not None],
        controls=controls.shown(),
    )


def _unread(tail: JournalTail | None, learner: LearnerView | None) -> int | None:
    if tail is None or learner is None or not learner.ledger:
        return None
    return max(0, tail.steps - sum(learner.ledger.values()))


def _next_update_s(robots: Robots, learner: LearnerView | None, unread: int | None) -> float | None:
    if learner is None or unread is None or learner.is_overdue:
        return None
    rate_hz = sum(view.rate_hz for view in robots.views)
    return time_to_next_update(int(learner.number("rollout") or 0), unread, robots.policy_share, rate_hz)


def _staleness(robots: Robots, newest: int | None) -> dict[str, int]:
    if newest is None:
        return {}
    counts = Counter(max(0, newest - version) for view in robots.views for version in view.versions)
    return {str(behind): count for behind, count in sorted(counts.items())}
