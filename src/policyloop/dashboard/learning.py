"""What the learner has made of the steps: curves, ledger and when it will update next."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

__all__ = ["LearnerShown", "LearnerView", "time_to_next_update"]

CURVES = {
    "episode_score": ("return", "1"),
    "policy_loss": ("policy loss", "1"),
    "value_loss": ("value loss", "1"),
    "entropy": ("entropy", "nat"),
    "approx_kl": ("KL divergence", "nat"),
    "collision_rate": ("episodes with contact", "share"),
    "reward": ("reward", "per step"),
    "fall_rate": ("falls", "share"),
    "bc_loss": ("cloning loss", "1"),
}
"""What is drawn of `progress.jsonl`, with title and unit."""
_MAX_LINES = 5000
_MAX_LINE_BYTES = 64 << 10
_MAX_READ_BYTES = 8 << 20
_MAX_POINTS = 400
_RECENT = 6
_LONG_S = 60.0
"""Until then nobody calls a learner overdue."""


class Curve(msgspec.Struct, frozen=True):
    """One number of training against policy steps learned from."""

    name: str
    title: str
    unit: str
    points: list[tuple[float, float]]


class LearnerShown(msgspec.Struct, frozen=True, kw_only=True):
    """The learner as the page shows it.

    Attributes:
        age_s: Since the newest line of `progress.jsonl`, by the wall clock.
        rollout: Policy steps of the newest update.
        ledger: What became of every step that the learner has read.
    """

    problem: str
    age_s: float
    update: int
    version: int
    steps: int
    rollout: int
    update_s: float
    steps_per_s: float
    ledger: dict[str, int]
    curves: list[Curve]


class LearnerView:
    """Follows `progress.jsonl` of a run.

    Args:
        directory: Of the run, as given to `train --tensorboard-dir`.

    Attributes:
        revision: Grows whenever there is something new.
    """

    def __init__(self, directory: Path) -> None:
        self.revision = 0
        self.problem = ""
        self._path = directory / "progress.jsonl"
        self._lines: deque[dict[str, Any]] = deque(maxlen=_MAX_LINES)
        self._rest = b""
        self._offset, self._file = 0, (0, 0)

    def read(self) -> None:
        """Take in what was written since."""
        before = self.problem
        try:
            with self._path.open("rb") as file:
                self._take(file)
            self.problem = ""
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}; it appears with the first update"
        self.revision += self.problem != before

    def _take(self, file: BinaryIO) -> None:
        about = os.fstat(file.fileno())
        if (about.st_dev, about.st_ino) != self._file or about.st_size < self._offset:
            self._file, self._offset, self._rest = (about.st_dev, about.st_ino), 0, b""
            self._lines.clear()
        file.seek(self._offset)
        data = file.read(_MAX_READ_BYTES)
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_MAX_LINE_BYTES:]
        for line in whole:
            if (numbers := _decoded(line)) is not None:
                self._lines.append(numbers)
                self.revision += 1

    def number(self, name: str) -> float | None:
        """Return the newest value of a number, None if there is none."""
        return next(
            (_number(line[name]) for line in reversed(self._lines) if _number(line.get(name)) is not None), None
        )

    @property
    def newest_version(self) -> int | None:
        """The policy that was shipped last."""
        version = self.number("version")
        return None if version is None else int(version)

    @property
    def ledger(self) -> dict[str, int]:
        """What became of every step that the learner has read, as of its newest update."""
        ledgers = (line["ledger"] for line in reversed(self._lines) if isinstance(line.get("ledger"), dict))
        found: dict[str, Any] = next(ledgers, {})
        return {str(name)[:64]: int(n) for name, count in list(found.items())[:32] if (n := _number(count)) is not None}

    @property
    def age_s(self) -> float:
        """Seconds since the newest line, by the wall clock."""
        written_s = self.number("wall_clock_s")
        return math.inf if written_s is None else max(0.0, time.time() - written_s)

    @property
    def is_overdue(self) -> bool:
        """It has been silent for much longer than between any two of its last updates: it waits, or has ended."""
        newest = islice(reversed(self._lines), _RECENT)
        written_s = [written for line in newest if (written := _number(line.get("wall_clock_s"))) is not None]
        usual_s = max((after - before for after, before in pairwise(written_s)), default=0.0)
        return bool(written_s) and self.age_s > max(_LONG_S, 3 * usual_s)

    def shown(self) -> LearnerShown:
        """Return what the page shows."""
        return LearnerShown(
            problem=self.problem,
            age_s=self.age_s if self._lines else 0.0,
            update=int(self.number("update") or 0),
            version=self.newest_version or 0,
            steps=int(self.number("step") or 0),
            rollout=int(self.number("rollout") or 0),
            update_s=self.number("update_s") or 0.0,
            steps_per_s=self.number("steps_per_s") or 0.0,
            ledger=self.ledger,
            curves=[Curve(name, *about, points) for name, about in CURVES.items() if (points := self._points(name))],
        )

    def _points(self, name: str) -> list[tuple[float, float]]:
        found = [
            (x, y)
            for line in self._lines
            if (y := _number(line.get(name))) is not None and (x := _number(line.get("step"))) is not None
        ]
        every = max(1, -(-len(found) // _MAX_POINTS))
        return found[::-every][::-1]  # the newest is always among them


def time_to_next_update(rollout: int, unread: int, policy_share: float, rate_hz: float) -> float | None:
    """Return about how many seconds it takes until the next rollout is full; None where nobody can say.

    Args:
        rollout: Policy steps of one update, as the last one had.
        unread: Stored steps that the learner has not accounted for.
        policy_share: Of the steps that arrive now, how many a policy drew.
        rate_hz: Steps that arrive per second, of all robots.
    """
    if rollout <= 0 or rate_hz * policy_share <= 0:
        return None
    return max(0.0, rollout - unread * policy_share) / (rate_hz * policy_share)


def _decoded(line: bytes) -> dict[str, Any] | None:
    if not line or len(line) > _MAX_LINE_BYTES:
        return None
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
