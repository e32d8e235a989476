"""How the episodes went that a policy drove, from start to end."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from policyloop.core.step import StepRecord

__all__ = ["FinishedEpisode", "Scores"]


@dataclass(frozen=True)
class FinishedEpisode:
    """Score of an episode that a policy drove."""

    score: float
    steps: int
    collided: bool
    terms: dict[str, float]


@dataclass
class _Running:
    terms: Counter[str] = field(default_factory=Counter)
    steps: int = 0


class Scores:
    """Adds up the robots' own reward terms, stream by stream.

    Attributes:
        finished: Episodes since this list was emptied.
    """

    def __init__(self) -> None:
        self.finished: list[FinishedEpisode] = []
        self._running: dict[str, _Running] = defaultdict(_Running)

    def take(self) -> list[FinishedEpisode]:
        """Return the episodes that finished since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def keep(self, stream: str, record: StepRecord) -> None:
        """Count a step of a stream."""
        if record.index == 0:
            self._running[stream] = _Running()
        if record.action.source != "policy":
            return
        running = self._running[stream]
        for name, value in record.reward_terms.items():
            running.terms[name] += value  # type: ignore[assignment]
        running.steps += 1
        if record.ended and running.steps == record.index + 1:
            terms = {name: float(value) for name, value in running.terms.items()}
            self.finished.append(FinishedEpisode(sum(terms.values()), running.steps, record.terminated, terms))
