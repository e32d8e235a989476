"""A signed bundle as one stream of bytes: a plain ustar archive, which any `tar tvf` lists.

    manifest.json, manifest.sig, then every file that the manifest names, in the order of their names

It is written by Python's tarfile and read by the few lines below, which know nothing of links, devices, long
names, sparse files or compression: one member after the other, each asked for by name and size, never more
bytes than that. Nothing is ever extracted by what an archive says.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from policyloop.bundle.manifest import MANIFEST_NAME
from policyloop.bundle.signing import SIGNATURE_NAME
from policyloop.errors import ConnectionFailed, VerificationError

__all__ = ["ArchiveReader", "pack"]

_BLOCK = 512
_CHUNK = 1 << 20
_FIRST = (MANIFEST_NAME, SIGNATURE_NAME)
_BROKEN = "make the archive with policyloop, and send it again"


def pack(contents: Mapping[str, bytes]) -> bytes:
    """Return the archive of a bundle's files; equal contents give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(contents, key=lambda name: (name not in _FIRST, name)):
            entry = tarfile.TarInfo(name)
            entry.size = len(contents[name])
            archive.addfile(entry, io.BytesIO(contents[name]))
    return buffer.getvalue()


class ArchiveReader:
    """Reads an archive from a stream that nobody trusts.

    Args:
        stream: Gives bytes, such as standard input.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def take(self, name: str, limit: int) -> bytes:
        """Return the next member, which must be `name`.

        Raises:
            VerificationError: It is another, or larger than `limit`.
            ConnectionFailed: The stream ends.
        """
        size = self._header(name)
        if size > limit:
            raise VerificationError(f"the archive's {name} has {size} bytes, at most {limit} are allowed", _BROKEN)
        return b"".join(self._content(name, size))

    def copy(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the next member in pieces; it must be `name` and have `size` bytes.

        Raises:
            VerificationError: It is another, or of another size.
            ConnectionFailed: The stream ends.
        """
        found = self._header(name)
        if found != size:
            raise VerificationError(f"the archive's {name} has {found} bytes, its manifest says {size}", _BROKEN)
        return self._content(name, size)

    def end(self) -> None:
        """Read the end of the archive; VerificationError if there is another member."""
        if self._read(_BLOCK, "end") != bytes(_BLOCK):
            raise VerificationError("the archive holds more than its manifest names", _BROKEN)

    def _header(self, expected: str) -> int:
        """Read a header and return the size of its member (POSIX.1-1988 ustar)."""
        block = self._read(_BLOCK, expected)
        name, kind = block[:100].rstrip(b"\0"), block[156:157]
        if kind not in (b"0", b"\0") or block[257:262] != b"ustar" or any(block[345:500]):
            raise VerificationError(f"the archive holds something else than a plain file before {expected}", _BROKEN)
        if name != expected.encode():
            raise VerificationError(f"the archive holds {name[:64]!r} where {expected} belongs", _BROKEN)
        try:
            size, checksum = (int(field.strip(b" \0") or b"-", 8) for field in (block[124:136], block[148:156]))
        except ValueError as error:
            raise VerificationError(f"the archive's header of {expected} is damaged", _BROKEN) from error
        if checksum != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]) or size < 0:
            raise VerificationError(f"the archive's header of {expected} is damaged", _BROKEN)
        return size

    def _content(self, name: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, _CHUNK):
            yield self._read(min(_CHUNK, size - start), name)
        self._read(-size % _BLOCK, name)

    def _read(self, size: int, what: str) -> bytes:
        parts = []
        while size:
            part = self._stream.read(size)
            if not part:
                raise ConnectionFailed(f"the archive ends in the middle of {what}", "send it again")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
