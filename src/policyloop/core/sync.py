"""Joins readings of several sensors that were taken at nearly the same time."""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["Synchronizer"]

_KEPT = 16


class Synchronizer:
    """Makes sets of one reading per sensor, in order of time; each reading is used at most once.

    Args:
        names: The sensors.
        tolerance_ns: Largest difference between two stamps of a set.

    Attributes:
        unmatched: Readings that found no partners and were dropped.
    """

    def __init__(self, names: tuple[str, ...], tolerance_ns: int) -> None:
        self.unmatched = 0
        self._tolerance_ns = tolerance_ns
        self._waiting: dict[str, deque[tuple[int, Any]]] = {name: deque() for name in names}

    def add(self, name: str, stamp_ns: int, reading: Any) -> tuple[int, dict[str, Any]] | None:
        """Take in one reading; returns the set that it completes, with the oldest stamp in it, or None.

        Args:
            name: Which sensor.
            stamp_ns: When it was captured; a sensor's readings come in order.
            reading: Anything.
        """
        self._waiting[name].append((stamp_ns, reading))
        if len(self._waiting[name]) > _KEPT:
            self._waiting[name].popleft()
            self.unmatched += 1
        chosen = {other: self._nearest(other, stamp_ns) for other in self._waiting}
        stamps = [self._waiting[other][index][0] for other, index in chosen.items() if index is not None]
        if len(stamps) < len(chosen) or max(stamps) - min(stamps) > self._tolerance_ns:
            return None
        found = {}
        for other, index in chosen.items():
            assert index is not None
            for _ in range(index):
                self._waiting[other].popleft()
                self.unmatched += 1
            found[other] = self._waiting[other].popleft()[1]
        return min(stamps), found

    def _nearest(self, name: str, stamp_ns: int) -> int | None:
        waiting = self._waiting[name]
        return min(range(len(waiting)), key=lambda index: abs(waiting[index][0] - stamp_ns), default=None)
