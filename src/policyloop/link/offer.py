"""What a trainer offers to robots that pull: the store's current bundle, if somebody has signed it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from policyloop.bundle.archive import pack
from policyloop.bundle.manifest import MANIFEST_NAME
from policyloop.bundle.signing import SIGNATURE_NAME
from policyloop.bundle.store import Store
from policyloop.bundle.verify import read_manifest
from policyloop.errors import PolicyloopError
from policyloop.wire.messages import CHUNK_BYTES, Chunk, Fetch

__all__ = ["Offer"]

log = logging.getLogger(__name__)

_NOTHING = Chunk(name="", digest="", size=0, offset=0)


class Offer:
    """Answers robots that fetch.

    Args:
        store: The trainer's.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._packed: tuple[Path, Chunk, bytes] | None = None
        self._failed: Path | None = None

    def answer(self, fetch: Fetch) -> tuple[Chunk, bytes]:
        """Return what is offered, and the piece of it that is asked for; nothing where another one is asked for."""
        packed = self._current()
        if packed is None:
            return _NOTHING, b""
        _, offered, archive = packed
        if fetch.digest != offered.digest or not 0 <= fetch.offset < offered.size:
            return offered, b""
        piece = archive[fetch.offset : fetch.offset + CHUNK_BYTES]
        return Chunk(name=offered.name, digest=offered.digest, size=offered.size, offset=fetch.offset), piece

    def _current(self) -> tuple[Path, Chunk, bytes] | None:
        path = self._store.current
        if path is None or not (path / SIGNATURE_NAME).exists() or path == self._failed:
            return None
        if self._packed is None or self._packed[0] != path:
            try:
                self._packed = path, *_pack(path)
            except (OSError, PolicyloopError) as error:
                log.error("bundle %s cannot be offered: %s", path, error)
                self._failed = path
                return None
        return self._packed


def _pack(path: Path) -> tuple[Chunk, bytes]:
    names = [MANIFEST_NAME, SIGNATURE_NAME, *read_manifest(path)[1].files]
    archive = pack({name: (path / name).read_bytes() for name in names})
    digest = hashlib.sha256(archive).hexdigest()
    return Chunk(name=path.name, digest=digest, size=len(archive), offset=0), archive
