"""What one topic delivers: how old, how often, and what of it was refused."""

from __future__ import annotations

import logging
from collections import Counter

from policyloop.errors import WireError
from policyloop.robot.ros.diagnosis import Diagnosis

__all__ = ["Stream"]

log = logging.getLogger(__name__)

_SANE_NS = 1_000_000_000
"""A stamp that the ROS clock calls older than this, or of the future, was made by another clock."""
_BEST_OF_NS = 10_000_000_000
"""Long enough to see a message that was not held up, short enough that two clocks do not drift apart."""
_RESTARTS_AFTER = 10
_COMPLAIN_EVERY_NS = 10_000_000_000
_SMOOTH = 0.1


class Stream:
    """One topic.

    Args:
        topic: Its name, for people.
        timeout_s: What is older tells nothing about now.

    Attributes:
        captured_ns: When the newest message was captured, monotonic; None = none has come.
        refused: How many messages were refused, by reason.
        restarts: How often the publisher began anew, with older stamps.
    """

    def __init__(self, topic: str, timeout_s: float) -> None:
        self.topic = topic
        self.captured_ns: int | None = None
        self.refused: Counter[str] = Counter()
        self._timeout_ns = round(timeout_s * 1e9)
        self._complaint, self._complained_ns = "", -_COMPLAIN_EVERY_NS
        self._refused_ns = -_COMPLAIN_EVERY_NS
        self._messages = 0
        self._interval_ns = 0.0
        self.restarts = -1
        self._restart()

    def _restart(self) -> None:
        self.restarts += 1
        self._stamp_ns: int | None = None
        self._backwards = 0
        self._best_ns: int | None = None
        self._best_before_ns: int | None = None
        self._window_ns = 0
        self._received_ns: int | None = None

    def captured(self, stamp_ns: int | None, received_ns: int, ros_ns: int | None = None) -> int:
        """Return when a message was captured, monotonic ns.

        That is its arrival, less how much longer than others of late it was on its way, or less its age by the ROS
        clock where that is more and can be true.

        Args:
            stamp_ns: What its header says; None = nothing.
            received_ns: Arrival, monotonic.
            ros_ns: Arrival by the clock that stamps are made with; None = unknown.

        Raises:
            WireError: `bad-time`: it is older than the one before. After ten of these the publisher was started anew.
        """
        if stamp_ns is None:
            return received_ns
        if self._stamp_ns is not None and stamp_ns < self._stamp_ns:
            self._backwards += 1
            if self._backwards < _RESTARTS_AFTER:
                raise WireError("bad-time", f"stamps go back by {(self._stamp_ns - stamp_ns) * 1e-9:.3f} s")
            self._restart()
        self._stamp_ns, self._backwards = stamp_ns, 0
        age_ns = 0 if ros_ns is None else ros_ns - stamp_ns
        return received_ns - max(
            self._held_up(received_ns - stamp_ns, received_ns), age_ns if age_ns <= _SANE_NS else 0
        )

    def _held_up(self, offset_ns: int, received_ns: int) -> int:
        """Return how much longer than the fastest of the last 10 to 20 s a message took."""
        if self._best_ns is None or received_ns - self._window_ns > _BEST_OF_NS:
            self._best_before_ns, self._best_ns, self._window_ns = self._best_ns, offset_ns, received_ns
        self._best_ns = min(self._best_ns, offset_ns)
        before_ns = self._best_ns if self._best_before_ns is None else self._best_before_ns
        return offset_ns - min(self._best_ns, before_ns)

    def accept(self, captured_ns: int, received_ns: int) -> None:
        """Count a message that could be read."""
        if self._received_ns is not None:
            interval_ns = received_ns - self._received_ns
            self._interval_ns += (interval_ns - self._interval_ns) * (_SMOOTH if self._interval_ns else 1.0)
        self._received_ns, self.captured_ns = received_ns, captured_ns
        self._messages += 1

    def refuse(self, error: Exception, received_ns: int) -> None:
        """Count a message that could not be read, and say so now and then."""
        reason = error.reason if isinstance(error, WireError) else "bad-message"
        self._complaint = str(error) if isinstance(error, WireError) else f"bad-message: {error}"
        news = not self.refused[reason]
        self.refused[reason] += 1
        self._refused_ns = received_ns
        if news or received_ns - self._complained_ns >= _COMPLAIN_EVERY_NS:
            self._complained_ns = received_ns
            log.error("%s: %s (%d refused)", self.topic, self._complaint, self.refused.total())

    def unfit(self, now_ns: int) -> str:
        """Return why this topic tells nothing about now, or an empty string."""
        refused = f", the last was refused: {self._complaint}" if self._refused_lately(now_ns) else ""
        if self.captured_ns is None:
            return f"nothing on {self.topic} yet{refused}"
        if now_ns - self.captured_ns > self._timeout_ns:
            return f"nothing on {self.topic} within {self._timeout_ns * 1e-9:g} s{refused}"
        return ""

    def _refused_lately(self, now_ns: int) -> bool:
        return now_ns - self._refused_ns < _COMPLAIN_EVERY_NS

    def diagnosis(self, now_ns: int) -> Diagnosis:
        """Return how the topic does."""
        values = {"messages": str(self._messages), "refused": str(self.refused.total())}
        values |= {reason: str(count) for reason, count in self.refused.items()}
        if self._interval_ns:
            values["hz"] = f"{1e9 / self._interval_ns:.1f}"
        if self.captured_ns is not None:
            values["age_ms"] = f"{(now_ns - self.captured_ns) * 1e-6:.0f}"
        if unfit := self.unfit(now_ns):
            return Diagnosis("error", self.topic, unfit, values)
        if self._refused_lately(now_ns):
            return Diagnosis("warning", self.topic, f"refused: {self._complaint}", values)
        return Diagnosis("ok", self.topic, "fresh", values)
