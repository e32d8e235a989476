"""Clocks. Control never reads the wall clock: it may jump, monotonic time may not."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "MonotonicClock", "VirtualClock", "utc"]


class Clock(Protocol):
    """A source of monotonic time in nanoseconds."""

    def now_ns(self) -> int:
        """Return monotonic time, ns."""

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Return at `deadline_ns` or at once if it has passed."""


class MonotonicClock:
    """Real time."""

    def now_ns(self) -> int:
        """Return `time.monotonic_ns()`."""
        return time.monotonic_ns()

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Sleep for the time that is left, if any."""
        left_ns = deadline_ns - time.monotonic_ns()
        if left_ns > 0:
            time.sleep(left_ns / 1e9)


class VirtualClock:
    """Time that passes only when somebody sleeps: simulations run as fast as the cores allow."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """Return virtual time, ns."""
        return self._now_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Jump to `deadline_ns`; never backwards."""
        self._now_ns = max(self._now_ns, deadline_ns)

    def advance_ns(self, duration_ns: int) -> None:
        """Let `duration_ns` pass."""
        self._now_ns += duration_ns


def utc(seconds: float) -> str:
    """Return a time since 1970 as `YYYY-MM-DDTHH:MM:SSZ`, which compares as text as times do."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
