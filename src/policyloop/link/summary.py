"""What a journal holds, and what became of everything that was ever received (row N3)."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from policyloop.core.step import StepRecord
from policyloop.errors import StorageError
from policyloop.link.journal import Journal

__all__ = ["JournalSummary", "RobotSummary", "learner_ledger", "summarise"]


class RobotSummary(msgspec.Struct, kw_only=True):
    """One robot's part of a journal."""

    steps: int
    starts: int
    """Times that its program was started."""
    episodes: int
    rate_hz: float
    """One over the median time between two captures; 0 with fewer than two steps."""
    gaps: int
    """Places where steps are missing."""
    missing: int
    """Steps that are missing there."""
    bytes_per_step: dict[str, float]
    """On disk, by stream: header, then the profile's observations."""


class JournalSummary(msgspec.Struct, kw_only=True):
    """What `policyloop journal info` prints."""

    profile: str
    profile_digest: str
    steps: int
    damaged: int
    """Records that hold no readable step."""
    episodes: int
    terminated: int
    truncated: int
    bytes: int
    bytes_per_step: float
    reward_mean: float
    interventions: int
    sources: dict[str, int]
    policy_versions: dict[str, int]
    robots: dict[str, RobotSummary]
    ledger: dict[str, int]
    """Every step message that was ever received here, by what became of it."""
    events: dict[str, int]
    """What else happened: robots refused, steps that were lost before they arrived."""


@dataclass
class _Tally:
    """What is counted of one robot."""

    steps: int = 0
    gaps: int = 0
    missing: int = 0
    last: dict[str, StepRecord] = field(default_factory=dict)
    episodes: set[tuple[str, int]] = field(default_factory=set)
    periods_ns: list[int] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)

    def add(self, record: StepRecord) -> None:
        before = self.last.get(record.boot)
        expected = 0 if before is None else before.sequence + 1
        self.missing += max(0, record.sequence - expected)
        self.gaps += record.sequence > expected or record.gap
        if before is not None and record.sequence == expected and record.episode == before.episode:
            self.periods_ns.append(record.stamps.captured_ns - before.stamps.captured_ns)
        self.last[record.boot] = record
        self.episodes.add((record.boot, record.episode))
        self.steps += 1

    def summary(self) -> RobotSummary:
        period_ns = statistics.median(self.periods_ns) if self.periods_ns else 0
        return RobotSummary(
            steps=self.steps,
            starts=len(self.last),
            episodes=len(self.episodes),
            rate_hz=1e9 / period_ns if period_ns > 0 else 0.0,
            gaps=self.gaps,
            missing=self.missing,
            bytes_per_step={name: size / self.steps for name, size in self.sizes.items()},
        )


class _Feed(msgspec.Struct):
    ledger: dict[str, int] = {}


class _CheckpointState(msgspec.Struct):
    """The part of a checkpoint's `state.json` that says what the learner made of each step."""

    feed: _Feed


def learner_ledger(checkpoints: Path) -> dict[str, int]:
    """Return what the newest checkpoint says became of the steps that the learner has read.

    Raises:
        StorageError: There is no checkpoint.
    """
    for path in sorted(checkpoints.glob("[0-9]*/state.json"), reverse=True):
        try:
            return msgspec.json.decode(path.read_bytes(), type=_CheckpointState).feed.ledger
        except (OSError, msgspec.DecodeError):
            continue
    raise StorageError(f"no checkpoint in {checkpoints}", "give the --checkpoint-dir of `policyloop train`")


def summarise(journal: Journal, checkpoints: Path | None = None) -> JournalSummary:
    """Read a journal once and count; with `checkpoints`, also say what the learner made of each step."""
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    sources: Counter[str] = Counter()
    versions: Counter[int] = Counter()
    counts: Counter[str] = Counter()
    reward = 0.0
    for record, sizes in _records(journal):
        tally = tallies[record.robot]
        tally.add(record)
        tally.sizes.update(sizes)
        sources[record.action.source] += 1
        if record.action.behaviour is not None:
            versions[record.action.behaviour.policy_version] += 1
        counts["terminated"] += record.terminated
        counts["truncated"] += record.truncated
        counts["interventions"] += record.intervention == "start"
        reward += record.reward
    steps = sources.total()
    damaged = journal.next - journal.first - steps
    received = journal.received
    return JournalSummary(
        profile=journal.profile.name,
        profile_digest=journal.profile.digest,
        steps=steps,
        damaged=damaged,
        episodes=sum(len(tally.episodes) for tally in tallies.values()),
        terminated=counts["terminated"],
        truncated=counts["truncated"],
        bytes=journal.size_bytes,
        bytes_per_step=journal.size_bytes / max(steps, 1),
        reward_mean=reward / max(steps, 1),
        interventions=counts["interventions"],
        sources=dict(sources),
        policy_versions={str(version): count for version, count in sorted(versions.items())},
        robots={name: tally.summary() for name, tally in sorted(tallies.items())},
        ledger=_ledger(
            dict(sources), damaged, received.steps, learner_ledger(checkpoints) if checkpoints is not None else None
        ),
        events=received.events,
    )


def _ledger(
    sources: dict[str, int], damaged: int, refused: dict[str, int], learned: dict[str, int] | None
) -> dict[str, int]:
    """Return one bin for every step that was received: stored ones by driver or by the learner, others by reason."""
    if learned is None:
        bins = {f"stored: {source}": count for source, count in sorted(sources.items())}
        bins["stored: damaged since"] = damaged
    else:
        bins = {f"learner: {name}": count for name, count in sorted(learned.items())}
        bins["learner: not read yet"] = sum(sources.values()) + damaged - sum(learned.values())
    bins = {name: count for name, count in bins.items() if count}
    return {**bins, **{f"not stored: {reason}": count for reason, count in sorted(refused.items())}}


def _records(journal: Journal) -> Iterator[tuple[StepRecord, dict[str, int]]]:
    """Iterate over all intact records with the bytes of each of their streams."""
    names = list(journal.profile.observation_specs)
    for _, (header, frames, head_bytes) in journal.intact(journal.parts):
        sizes: Counter[str] = Counter({"header": head_bytes})
        for index, frame in enumerate(frames):
            sizes[names[index % len(names)]] += len(frame)
        yield header.record, dict(sizes)
