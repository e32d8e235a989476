"""What is known of each robot from its steps: live, and in a bounded amount of memory."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from policyloop.dashboard.tail import Seen

__all__ = ["GateEvent", "Percentiles", "Point", "RobotShown", "RobotView", "Robots", "percentiles"]

MAX_ROBOTS = 64
"""More than that, and those that were silent longest are forgotten: names come from the network."""
_WINDOW = 300
"""Steps that percentiles, shares and trails look back on."""
_EVENTS = 12
_MAX_REASON = 40
_MAX_REASONS = 32
_RATE_OVER_S = 3.0
_PLAUSIBLE_S = 600.0


class Percentiles(msgspec.Struct, frozen=True):
    """Of a latency over the last steps, ms."""

    p50: float
    p95: float
    p99: float


class GateEvent(msgspec.Struct, frozen=True):
    """What the gate said of so many steps in a row.

    Attributes:
        reasons: Rules that changed the proposal; none = it went through as it was.
        age_s: Since the last of them.
    """

    reasons: tuple[str, ...]
    age_s: float
    steps: int


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One step of the trail: position in the journal, proposal, command."""

    position: int
    action: tuple[float, ...]
    command: tuple[float, ...]


class RobotShown(msgspec.Struct, frozen=True, kw_only=True):
    """One robot as the page shows it.

    Attributes:
        age_s: Since its newest step was read; for what was there before, by the robot's own wall clock.
        rate_hz: Steps that arrived, per second.
        gaps, missing: Places where steps are missing, and how many, since this page watches.
        versions_behind: Policies shipped since the one that drives; None = not known.
        behind_s: From capture to this page, of the newest step; None = the clocks were never compared.
        waiting: Steps that are still on the robot if it is behind, by its rate.
        latency: By span, from capture to: `inferred`, `acted`, `stored` (the last includes the page's own reading).
        shares: Of the last steps, by the gate's reason.
    """

    name: str
    age_s: float
    rate_hz: float
    steps: int
    episode: int
    index: int
    score: float
    gaps: int
    missing: int
    source: str
    intervention: str
    contact: bool
    policy_version: int | None
    versions_behind: int | None
    behind_s: float | None
    waiting: int | None
    action: tuple[float, ...]
    command: tuple[float, ...]
    damped: bool
    reasons: tuple[str, ...]
    events: list[GateEvent]
    shares: dict[str, float]
    latency: dict[str, Percentiles]


@dataclass
class _Run:
    """Steps in a row of which the gate said the same."""

    reasons: tuple[str, ...]
    heard_s: float = 0.0
    steps: int = 0


class RobotView:
    """Follows one robot.

    Attributes:
        newest: Its newest step.
        steps: How many were read.
        reasons: How often the gate gave each reason.
        versions: Of the policies that drove the last steps.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.newest: Seen | None = None
        self.steps = self.gaps = self.missing = 0
        self.reasons: Counter[str] = Counter()
        self.versions: deque[int] = deque(maxlen=_WINDOW)
        self._score = 0.0
        self._recent: deque[Seen] = deque(maxlen=_WINDOW)
        self._runs: deque[_Run] = deque(maxlen=_EVENTS)
        self._arrivals_s: deque[float] = deque(maxlen=_WINDOW * 4)

    def take(self, seen: Seen) -> None:
        """Take in its next step."""
        record, before = seen.record, self.newest.record if self.newest else None
        if before is not None and before.boot == record.boot:
            lost = record.sequence - before.sequence - 1
            self.missing += max(0, lost)
            self.gaps += lost > 0 or record.gap
        self._score = record.reward + (self._score if record.index else 0.0)
        reasons = tuple(self._counted(reason) for reason in record.command.reasons[:8])
        if not self._runs or self._runs[-1].reasons != reasons:
            self._runs.append(_Run(reasons))
        self._runs[-1].heard_s = _heard_s(seen)
        self._runs[-1].steps += 1
        if record.action.behaviour is not None:
            self.versions.append(record.action.behaviour.policy_version)
        if seen.live:
            self._arrivals_s.append(seen.heard_s)
        # Pictures are large: only the newest step keeps its own.
        self._recent.append(Seen(seen.position, record, [], seen.heard_s, seen.heard_ns, seen.live))
        self.steps += 1
        self.newest = seen

    def _counted(self, reason: str) -> str:
        name = reason[:_MAX_REASON]
        if name not in self.reasons and len(self.reasons) >= _MAX_REASONS:
            name = "other"
        self.reasons[name] += 1
        return name

    @property
    def age_s(self) -> float:
        """Seconds since its newest step."""
        return time.monotonic() - _heard_s(self.newest) if self.newest else float("inf")

    @property
    def remembered(self) -> int:
        """Number of last steps that percentiles and shares are of."""
        return len(self._recent)

    @property
    def rate_hz(self) -> float:
        """Steps that arrived per second, lately."""
        since_s = time.monotonic() - _RATE_OVER_S
        return sum(heard_s > since_s for heard_s in self._arrivals_s) / _RATE_OVER_S

    def latency(self) -> dict[str, Percentiles]:
        """Return percentiles of the time from capture to inferred, acted and stored."""
        stamps = [seen.record.stamps for seen in self._recent]
        spans = {
            "inferred": [(stamp.inferred_ns - stamp.captured_ns) * 1e-6 for stamp in stamps],
            "acted": [(stamp.acted_ns - stamp.captured_ns) * 1e-6 for stamp in stamps],
            "stored": [s * 1e3 for s in map(_behind_s, self._recent) if s is not None],
        }
        return {name: percentiles(values) for name, values in spans.items() if values}

    def trail(self, since: int) -> list[Point]:
        """Return the steps behind journal position `since`, as far as the window goes."""
        return [
            Point(seen.position, seen.record.action.values, seen.record.command.values)
            for seen in self._recent
            if seen.position > since
        ]

    def drawn(self) -> int:
        """Return how many of the last steps a policy drew: what PPO learns from."""
        behaviours = (seen.record.action.behaviour for seen in self._recent)
        return sum(behaviour is not None and behaviour.drawn for behaviour in behaviours)

    def shown(self, newest_version: int | None) -> RobotShown | None:
        """Return what the page shows; None before the first step."""
        if self.newest is None:
            return None
        now_s, record = time.monotonic(), self.newest.record
        version = record.action.behaviour.policy_version if record.action.behaviour is not None else None
        behind_s = _behind_s(self.newest)
        hz = self.rate_hz
        return RobotShown(
            name=self.name,
            age_s=self.age_s,
            rate_hz=hz,
            steps=self.steps,
            episode=record.episode,
            index=record.index,
            score=self._score,
            gaps=self.gaps,
            missing=self.missing,
            source=record.action.source,
            intervention=record.intervention,
            contact=record.contact,
            policy_version=version,
            versions_behind=None if version is None or newest_version is None else max(0, newest_version - version),
            behind_s=behind_s,
            waiting=None if behind_s is None else round(behind_s * _own_rate_hz(self._recent)),
            action=record.action.values,
            command=record.command.values,
            damped=record.command.damped,
            reasons=self._runs[-1].reasons,
            events=[GateEvent(run.reasons, now_s - run.heard_s, run.steps) for run in reversed(self._runs)],
            shares=self._shares(),
            latency=self.latency(),
        )

    def _shares(self) -> dict[str, float]:
        counted = Counter(reason[:_MAX_REASON] for seen in self._recent for reason in seen.record.command.reasons[:8])
        return {name: count / len(self._recent) for name, count in counted.most_common(8)}


class Robots:
    """Every robot that was heard."""

    def __init__(self) -> None:
        self._views: dict[str, RobotView] = {}

    def take(self, seen: Iterable[Seen]) -> None:
        """Take in what was read."""
        for step in seen:
            name = step.record.robot
            if name not in self._views and len(self._views) >= MAX_ROBOTS:
                del self._views[max(self._views.values(), key=lambda view: view.age_s).name]
            self._views.setdefault(name, RobotView(name)).take(step)

    @property
    def views(self) -> Sequence[RobotView]:
        """All of them, by name."""
        return sorted(self._views.values(), key=lambda view: view.name)

    def find(self, name: str) -> RobotView | None:
        """Return one of them."""
        return self._views.get(name)

    @property
    def policy_share(self) -> float:
        """Share of the last steps that a policy drew."""
        steps = sum(view.remembered for view in self._views.values())
        return sum(view.drawn() for view in self._views.values()) / steps if steps else 0.0


def percentiles(values: Sequence[float]) -> Percentiles:
    """Return the 50th, 95th and 99th, by the nearest rank."""
    ordered = sorted(values)
    return Percentiles(*(ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95, 0.99)))


def _heard_s(seen: Seen) -> float:
    """Return the monotonic time when a step was heard; of one that was there before, when it was recorded."""
    return seen.heard_s if seen.live else seen.heard_s - max(0.0, seen.heard_ns * 1e-9 - seen.record.wall_clock_s)


def _behind_s(seen: Seen) -> float | None:
    """Return the time from capture until a live step was read, by the trainer's clock; None where nobody knows.

    A simulated robot may run on a clock of its own making. Then what it says about the trainer's clock means
    nothing, and neither the time of arrival nor the robot's wall clock agrees with it.
    """
    clock = seen.record.trainer_clock
    if clock is None or not seen.live:
        return None
    captured_s = (seen.record.stamps.captured_ns + clock.offset_ns) * 1e-9
    behind_s = seen.heard_ns * 1e-9 - captured_s
    if abs(behind_s) > _PLAUSIBLE_S and abs(captured_s - seen.record.wall_clock_s) > _PLAUSIBLE_S / 10:
        return None
    return max(0.0, behind_s)


def _own_rate_hz(recent: Sequence[Seen]) -> float:
    """Return the rate at which a robot records, by its own clock; 0 where it cannot be told."""
    if len(recent) < 2 or recent[0].record.boot != recent[-1].record.boot:
        return 0.0
    first, last = recent[0].record, recent[-1].record
    span_ns = last.stamps.captured_ns - first.stamps.captured_ns
    return (last.sequence - first.sequence) / (span_ns * 1e-9) if span_ns > 0 else 0.0
