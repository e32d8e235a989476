"""Watches the control loop from outside: one that hangs is stopped within two ticks, one that stays hung is tripped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from policyloop.core.profile import Rates

__all__ = ["LoopWatchdog"]

_LATE_TICKS, _LATE_SHARE = 1.75, 0.875
_LOOKS = 14
_HANGS_S = 0.5


class LoopWatchdog:
    """A thread of its own, which needs nothing but real time.

    Args:
        rates: Of the robot: it is late after 7/8 of the time for which its commands are valid, not before 1.75 ticks.
        late: Called once when a tick does not end in time: stop the motors, the loop may go on.
        hung: Called once when it does not end at all: nothing may move until a person says so.
    """

    def __init__(self, rates: Rates, late: Callable[[], None], hung: Callable[[], None]) -> None:
        period_s = 1 / rates.control_hz
        late_s = max(_LATE_TICKS * period_s, _LATE_SHARE * rates.command_valid_ns * 1e-9)
        self._stages = ((late_s, late), (max(_HANGS_S, 3 * period_s), hung))
        self._look_s = late_s / _LOOKS
        self._petted_s, self._done = time.monotonic(), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop-watchdog")
        self._thread.start()

    def pet(self) -> None:
        """Say that the loop lives; once a tick.

        Where the whole process was frozen the thread slept as well and would find a loop that lives: it is said here.
        """
        now_s = time.monotonic()
        silent_s, self._petted_s = now_s - self._petted_s, now_s
        hangs_s, hung = self._stages[-1]
        if silent_s > hangs_s and self._done < len(self._stages):
            hung()

    def _run(self) -> None:
        since_s = self._petted_s
        while not self._stop.wait(self._look_s):
            if self._petted_s != since_s:
                since_s, self._done = self._petted_s, 0
            silent_s = time.monotonic() - since_s
            while self._done < len(self._stages) and silent_s > self._stages[self._done][0]:
                self._stages[self._done][1]()
                self._done += 1

    def close(self) -> None:
        """Watch no more."""
        self._stop.set()
        self._thread.join()
