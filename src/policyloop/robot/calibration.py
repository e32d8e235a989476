"""Captures calibration samples while a robot drives, without ever holding up a tick."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from queue import Empty, Full, Queue

import msgspec

from policyloop.core.calibration import sample_paths, save_sample
from policyloop.core.step import Arrays, Observation
from policyloop.errors import StorageError

__all__ = ["CalibrationCapture", "CalibrationSettings"]

log = logging.getLogger(__name__)


class CalibrationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When to take a sample."""

    interval_s: float = 10.0
    count: int = 100
    """After so many it stops."""


class CalibrationCapture:
    """Writes an observation every few seconds, until the folder holds enough.

    Args:
        directory: Where samples go; those that are there count, and are kept.
        settings: How often, how many.
    """

    def __init__(self, directory: Path, settings: CalibrationSettings | None = None) -> None:
        self._directory = directory
        self._settings = settings or CalibrationSettings()
        existing = sample_paths(directory)
        self._next = int(existing[-1].stem.rpartition("_")[2]) + 1 if existing else 0
        self._left = max(0, self._settings.count - len(existing))
        self._taken_ns = -(1 << 62)
        self._waiting: Queue[Arrays] = Queue(maxsize=2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="calibration")
        self._thread.start()

    @property
    def taken(self) -> int:
        """Samples in the folder."""
        return self._settings.count - self._left

    def observe(self, observation: Observation) -> None:
        """Take `observation` if it is time; returns at once."""
        due = observation.captured_ns - self._taken_ns >= self._settings.interval_s * 1e9
        if not due or self._left <= self._waiting.qsize():
            return
        try:
            self._waiting.put_nowait({name: array.copy() for name, array in observation.arrays.items()})
            self._taken_ns = observation.captured_ns
        except Full:
            log.warning("the disk is too slow for calibration samples")

    def _run(self) -> None:
        while not (self._stop.is_set() and self._waiting.empty()):
            try:
                arrays = self._waiting.get(timeout=0.1)
            except Empty:
                continue
            try:
                save_sample(self._directory, self._next, arrays)
            except StorageError as error:
                log.error("%s", error)
                continue
            self._next += 1
            self._left -= 1

    def close(self) -> None:
        """Write what waits and end."""
        self._stop.set()
        self._thread.join()
