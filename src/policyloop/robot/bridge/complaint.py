"""What goes wrong with every frame is said now and then, not 1000 times a second."""

from __future__ import annotations

import logging

__all__ = ["Complaint"]

log = logging.getLogger(__name__)

_EVERY_NS = 10_000_000_000


class Complaint:
    """Logs one line per cause and ten seconds.

    Args:
        where: Names the socket.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._last, self._last_ns = "", 0

    def say(self, text: str, now_ns: int) -> None:
        """Log `text` unless it was said a moment ago."""
        if text != self._last or now_ns - self._last_ns > _EVERY_NS:
            self._last, self._last_ns = text, now_ns
            log.warning("%s: %s", self._where, text)
