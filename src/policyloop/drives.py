"""The episodes that a promotion is judged by: driven here in simulation, or recorded by robots."""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from policyloop.core.parent import end_with_parent
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step, StepRecord
from policyloop.evaluate import drive_episode
from policyloop.link.journal import Journal
from policyloop.promotion import Drive
from policyloop.robot.recorder import EpisodeSummary, gate_acted
from policyloop.safety.gate import GateMode
from policyloop.walking import WALKS

__all__ = ["PROMOTION_ARENAS", "drive_arenas", "recorded_drives"]

PROMOTION_ARENAS = 4_000_000
"""First arena seed that promotions are judged on: neither those of training nor those of record, which would no
longer be unseen if they had chosen who drives."""

Job = tuple[RobotProfile, str, int, GateMode]


def drive_arenas(
    profile: RobotProfile,
    policies: Sequence[str],
    arenas: range,
    gate: GateMode,
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[Drive, ...]]:
    """Let every policy drive every arena, without exploration; the result does not depend on `processes`.

    Args:
        profile: The robot's.
        policies: Drivers' names or paths, as `evaluate` takes them.
        arenas: Seeds.
        gate: What the gate may do.
        processes: How many share the work; 1 = this one does it.
        progress: Called with (done, total) after each episode; what it raises ends everything.

    Returns:
        For each policy one drive for each arena.

    Raises:
        PolicyloopError: A policy cannot be opened, or fails while it drives.
    """
    jobs = [(profile, policy, seed, gate) for policy in policies for seed in arenas]
    summaries: list[EpisodeSummary] = []
    with _episodes(jobs, min(processes, len(jobs))) as episodes:
        for summary in episodes:
            summaries.append(summary)
            if progress is not None:
                progress(len(summaries), len(jobs))
    kinds = 1 if profile.joints is None else len(WALKS)
    drives = [_drive(summary, seed % kinds) for summary, (_, _, seed, _) in zip(summaries, jobs, strict=True)]
    return [tuple(drives[start : start + len(arenas)]) for start in range(0, len(drives), len(arenas))]


@contextmanager
def _episodes(jobs: Sequence[Job], processes: int) -> Iterator[Iterable[EpisodeSummary]]:
    """Give the jobs' results, in order, as they come."""
    if processes <= 1:
        yield map(_run, jobs)
        return
    # A fork would copy the locks of whatever threads run here.
    fresh = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=fresh, initializer=_obey_parent)
    try:
        yield pool.map(_run, jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def _obey_parent() -> None:
    """Leave Ctrl-C to the parent, and never outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _run(job: Job) -> EpisodeSummary:
    return drive_episode(*job)


def _drive(summary: EpisodeSummary, kind: int) -> Drive:
    return Drive(
        score=summary.score,
        collided=summary.collided,
        distance_m=summary.distance_m,
        gated=summary.gated,
        kind=kind,
    )


def recorded_drives(journal: Journal, digests: Set[str]) -> dict[str, tuple[Drive, ...]]:
    """Return the whole episodes in a journal that each policy drove without exploration.

    An episode counts if no step of it is missing, and one policy proposed its mean in every step that no human
    drove. The score is of the policy's own steps: what a human earned after taking over is not.

    Args:
        journal: Open for reading.
        digests: Of the policies' bundles, as behaviour records name them.

    Returns:
        The drives of each digest.
    """
    found: defaultdict[str, list[Drive]] = defaultdict(list)
    running: dict[tuple[str, str], _Episode] = {}
    for position, record in journal.intact(journal.header):
        stream = (record.robot, record.boot)
        if record.index == 0:
            running[stream] = _Episode(record.episode)
        episode = running.get(stream)
        if episode is None or not episode.follows(record, digests):
            running.pop(stream, None)
            continue
        if record.action.source == "policy":
            step = next((step for _, step in journal.intact(journal.read, [position])), None)
            if step is None:
                del running[stream]
                continue
            episode.add(step, journal.profile)
        if record.terminated or record.truncated:
            del running[stream]
            if episode.digest:
                found[episode.digest].append(episode.finished(record))
    return {digest: tuple(found[digest]) for digest in digests}


@dataclass
class _Episode:
    """What is known so far of an episode of which no step is missing."""

    number: int
    next_index: int = 0
    digest: str = ""
    score: float = 0.0
    distance_m: float = 0.0
    clearance_m: float = math.inf
    gated: int = 0
    taken_over: bool = False

    def follows(self, record: StepRecord, digests: Set[str]) -> bool:
        """Tell whether a record is the next step, and by whom it may be; if so, count it."""
        if (record.episode, record.index) != (self.number, self.next_index) or (record.gap and record.index):
            return False
        self.next_index += 1
        if record.action.source == "human":
            self.taken_over = True
            return True
        behaviour = record.action.behaviour
        if behaviour is None or behaviour.drawn or behaviour.policy_digest not in digests:
            return False
        self.digest = self.digest or behaviour.policy_digest
        return self.digest == behaviour.policy_digest

    def add(self, step: Step, profile: RobotProfile) -> None:
        """Count what the policy's own step shows."""
        outcome = profile.outcome(step.observation["proprio"])
        self.score += step.record.reward
        self.distance_m += max(outcome.linear_mps, 0.0) / profile.rates.control_hz
        self.gated += gate_acted(step.record.command)
        if 0 < outcome.distance_m < self.clearance_m:
            self.clearance_m = outcome.distance_m

    def finished(self, last: StepRecord) -> Drive:
        """Return the episode; a collision under a human's hands is not the policy's."""
        return Drive(
            score=self.score,
            collided=last.terminated and last.action.source == "policy",
            distance_m=self.distance_m,
            gated=self.gated,
            taken_over=self.taken_over,
            clearance_m=self.clearance_m if math.isfinite(self.clearance_m) else None,
        )
