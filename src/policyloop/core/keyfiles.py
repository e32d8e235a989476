"""Small files that hold keys: secrets that only their owner can read, and lists of named public keys."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from policyloop.core.files import sync_directory, write_file
from policyloop.errors import ConfigError, SafetyRefusal, StorageError, UsageError

__all__ = ["KeyPair", "NamedKeys", "check_name", "read_secret", "write_secret"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_BYTES = 4096


class KeyPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public and a secret key, and whose they are."""

    name: str
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.public!r})"  # a secret must not end up in a log


class _Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    public: str


def check_name(name: str) -> str:
    """Return `name` if it can be the name of a machine or a person; UsageError if not."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot be a name", "use lower case letters, digits, dot, dash and underscore")
    return name


def write_secret(path: Path, content: KeyPair) -> None:
    """Write a new file, readable by its owner only.

    Raises:
        UsageError: There is one already.
        StorageError: The disk refuses.
    """
    if path.exists():
        raise UsageError(f"{path} exists already", "use it, or move it away if it must not be trusted any more")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(content))
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", "check the folder and its owner") from error


def read_secret(path: Path, make_one: str) -> bytes:
    """Read a file that only its owner may read.

    Args:
        path: Of the secret.
        make_one: How a person makes one; for the error.

    Raises:
        ConfigError: There is none.
        SafetyRefusal: Others than its owner can read it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"no key at {path}: {error.strerror}", f"make one: {make_one}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise SafetyRefusal(
            f"{path} can be read by others", f"chmod 600 {path}, and make a new key if others have used it"
        )
    return data


class NamedKeys:
    """A folder of public keys, one file per name.

    Args:
        directory: DIRECTORY/NAME.json.
        check_key: Returns a key if it is one, raises UsageError if not.
    """

    def __init__(self, directory: Path, check_key: Callable[[str], str]) -> None:
        self._directory, self._check_key = directory, check_key

    def allow(self, name: str, public: str) -> None:
        """Add a key under a name; replaces its older key.

        Raises:
            UsageError: Name or key are none, or the key has another name already.
            StorageError: The disk refuses.
        """
        entry = _Named(check_name(name), self._check_key(public))
        holder = self.name_of(public)
        if holder not in ("", name):
            raise UsageError(f"this key is allowed as '{holder}' already", f"policyloop keys revoke {holder}")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(self._directory / f"{name}.json", msgspec.json.encode(entry))
        except OSError as error:
            raise StorageError(f"cannot write to {self._directory}: {error.strerror}", "check its owner") from error

    def revoke(self, name: str) -> None:
        """Take a name's key away; UsageError if there is none."""
        try:
            (self._directory / f"{check_name(name)}.json").unlink()
            sync_directory(self._directory)
        except FileNotFoundError:
            raise UsageError(
                f"'{name}' is not allowed", f"allowed are: {', '.join(self.entries()) or 'none'}"
            ) from None

    def entries(self) -> dict[str, str]:
        """Return every name's public key. A file that is not an entry allows nobody."""
        found = {}
        for path in sorted(self._directory.glob("*.json")):
            try:
                entry = msgspec.json.decode(path.read_bytes(), type=_Named)
                found[check_name(entry.name)] = self._check_key(entry.public)
            except (OSError, msgspec.DecodeError, UsageError):
                continue
        return found

    def name_of(self, public: str) -> str:
        """Return whose key this is; empty if it is nobody's."""
        return next((name for name, key in self.entries().items() if key == public), "")
