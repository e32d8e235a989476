"""A robot that pulls: ask now and then what the trainer offers, fetch it piece by piece, hand it over.

What arrives is trusted no more than an archive from anywhere: whoever it is handed to verifies it. One that was
refused is not fetched again.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from policyloop.errors import PolicyloopError
from policyloop.wire.messages import CHUNK_BYTES, Chunk, Fetch

__all__ = ["Download", "DownloadSettings"]

log = logging.getLogger(__name__)


class DownloadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of the download."""

    ask_every_s: float = 5.0
    retry_after_s: float = 3.0
    """A piece that did not come is asked for again."""
    max_bytes: int = 64 << 20


class Download:
    """Fetches one archive at a time.

    Args:
        wanted: Tells whether a version of this name is of interest.
        deliver: Gets the whole archive; what it raises is a refusal.
        settings: Numbers.
    """

    def __init__(
        self,
        wanted: Callable[[str], bool],
        deliver: Callable[[BinaryIO], object],
        settings: DownloadSettings | None = None,
    ) -> None:
        self._wanted, self._deliver = wanted, deliver
        self._settings = settings or DownloadSettings()
        self._fetching: Chunk | None = None
        self._pieces = bytearray()
        self._asked_s = -1e9
        self._settled: set[str] = set()

    def request(self, now_s: float) -> Fetch | None:
        """Return what to ask the trainer now, if anything."""
        pause_s = self._settings.ask_every_s if self._fetching is None else self._settings.retry_after_s
        if now_s - self._asked_s < pause_s:
            return None
        self._asked_s = now_s
        return Fetch(digest="" if self._fetching is None else self._fetching.digest, offset=len(self._pieces))

    def take(self, chunk: Chunk, piece: bytes) -> None:
        """Take in an answer."""
        if self._fetching is None or chunk.digest != self._fetching.digest:
            self._begin(chunk)
        elif chunk.offset == len(self._pieces) and 0 < len(piece) <= min(CHUNK_BYTES, chunk.size - chunk.offset):
            self._pieces += piece
            if len(self._pieces) == self._fetching.size:
                self._finish(self._fetching)
        if self._fetching is not None:
            self._asked_s = -1e9  # go on at once

    def _begin(self, chunk: Chunk) -> None:
        self._fetching, self._pieces = None, bytearray()
        if not chunk.size or chunk.digest in self._settled or not self._wanted(chunk.name):
            return
        if chunk.size > self._settings.max_bytes:
            self._settled.add(chunk.digest)
            self._complain(chunk, f"it has {chunk.size} bytes, at most {self._settings.max_bytes} are taken")
            return
        self._fetching = chunk

    def _finish(self, chunk: Chunk) -> None:
        self._settled.add(chunk.digest)  # never twice, whatever comes of it
        archive, self._fetching, self._pieces = io.BytesIO(self._pieces), None, bytearray()
        try:
            self._deliver(archive)
            log.info("version %s was pulled", chunk.name)
        except PolicyloopError as error:
            self._complain(chunk, str(error))

    def _complain(self, chunk: Chunk, why: str) -> None:
        log.error("the trainer's version %s is refused: %s", chunk.name[:64], why)
