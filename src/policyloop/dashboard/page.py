"""One open page: what it has been told, what it looks at, and what its line bears."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import msgspec

__all__ = ["Page"]

_MAX_LOOKED_AT = 16
_MAX_ANSWER_BYTES = 8192


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    """What a page says: which frame it has shown, and whose pictures are on its screen."""

    frame: int
    look: list[str]


@dataclass(eq=False)
class Page:
    """Keeps account of one page.

    Attributes:
        looks_at: Robots whose pictures are on its screen.
        frame: Number of the newest frame.
        sent: Frames that it has not shown yet, and when they were sent.
        shown: Set when it has shown one.
        lag_s: How long that took.
        position: In the journal, up to which it knows the trails.
        pictured: Positions of the pictures that it has, by robot.
        learner, store: Revisions that it knows.
        credit_bytes: What may be sent to it now.
    """

    looks_at: set[str] = field(default_factory=set)
    frame: int = 0
    sent: dict[int, float] = field(default_factory=dict)
    shown: asyncio.Event = field(default_factory=asyncio.Event)
    lag_s: float = 0.0
    position: int = -1
    pictured: dict[str, int] = field(default_factory=dict)
    learner: int = -1
    store: int = -1
    credit_bytes: float = 0.0
    credited_s: float = 0.0

    def earn(self, bytes_per_s: float) -> bool:
        """Add to its credit what has accrued, a second's worth at most; False if it has none."""
        now_s = time.monotonic()
        self.credit_bytes = min(bytes_per_s, self.credit_bytes + bytes_per_s * (now_s - self.credited_s))
        self.credited_s = now_s
        return self.credit_bytes > 0

    def next_frame(self) -> int:
        """Begin another frame; returns its number."""
        self.frame += 1
        self.sent[self.frame] = time.monotonic()
        return self.frame

    def hear(self, text: str) -> None:
        """Take in what it says; what is no such thing is passed over."""
        if len(text) > _MAX_ANSWER_BYTES:
            return
        try:
            answer = msgspec.json.decode(text, type=_Answer)
        except msgspec.DecodeError:
            return
        self.looks_at = set(answer.look[:_MAX_LOOKED_AT])
        if (sent_s := self.sent.get(answer.frame)) is not None:
            self.lag_s = time.monotonic() - sent_s
            self.sent = {frame: at_s for frame, at_s in self.sent.items() if frame > answer.frame}
            self.shown.set()
