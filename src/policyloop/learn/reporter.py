"""How a training goes: for whoever watches it, and in the files of its run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from policyloop.learn.algorithm import Algorithm, Lesson
from policyloop.learn.metrics import Metrics

__all__ = ["Phase", "Progress", "Reporter"]

_RECENT_EPISODES = 40

Phase = Literal["waiting", "cloning", "collecting", "updating", "finished"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the learner stands; for people."""

    phase: Phase
    done: int
    total: int
    update: int
    version: int
    score: float
    elapsed_s: float


class Reporter:
    """Tells where a training stands, and writes down the numbers of its clone and of every update.

    Args:
        runs: Directory of the TensorBoard run.
        report: Called with the progress.
    """

    def __init__(self, runs: Path, report: Callable[[Progress], None]) -> None:
        self._metrics, self._report = Metrics(runs), report
        self._scores: deque[float] = deque(maxlen=_RECENT_EPISODES)

    def tell(self, phase: Phase, done: int, total: int, *, update: int, version: int, elapsed_s: float) -> None:
        """Report the progress, with the mean score of recent episodes."""
        self._report(
            Progress(
                phase=phase,
                done=done,
                total=total,
                update=update,
                version=version,
                score=float(np.mean(self._scores)) if self._scores else 0.0,
                elapsed_s=elapsed_s,
            )
        )

    def write_clone(self, statistics: Mapping[str, float], *, version: int, frames: int) -> None:
        """Write the losses of a clone of so many demonstrations."""
        losses = {f"bc_{name}": number for name, number in statistics.items() if name.endswith("loss")}
        self._metrics.write(0, losses, version=version, frames=frames)

    def write_update(
        self, lesson: Lesson, algorithm: Algorithm, *, update: int, version: int, update_s: float, elapsed_s: float
    ) -> None:
        """Write the numbers of an update, and of the episodes that ended since the one before."""
        episodes = algorithm.scores.take()
        self._scores.extend(episode.score for episode in episodes)
        trained = algorithm.ledger["trained"]
        numbers = {**lesson.statistics, "update_s": update_s, "steps_per_s": trained / elapsed_s}
        if episodes:
            numbers["episode_score"] = float(np.mean([episode.score for episode in episodes]))
            numbers["episode_steps"] = float(np.mean([episode.steps for episode in episodes]))
            numbers["collision_rate"] = float(np.mean([episode.collided for episode in episodes]))
            for name in episodes[0].terms:
                numbers[f"reward/{name}"] = float(np.mean([episode.terms.get(name, 0.0) for episode in episodes]))
        self._metrics.write(
            trained,
            numbers,
            update=update,
            version=version,
            rollout=lesson.steps,
            elapsed_s=elapsed_s,
            ledger=dict(algorithm.ledger),
        )

    def close(self) -> None:
        """Finish the files."""
        self._metrics.close()
