"""Who is who on the link: CURVE key pairs, and the list of those who may connect.

    KEYS/identity.json        name, public and secret key of this machine; mode 0600
    KEYS/allowed/NAME.json    name and public key of a robot that may connect here

A key is 32 bytes in Z85, 40 characters. Nothing here is ever unpickled or executed.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from policyloop.core.files import sync_directory, write_file
from policyloop.errors import ConfigError, SafetyRefusal, StorageError, UsageError

__all__ = ["AllowList", "Identity", "check_key", "check_name", "create_identity", "default_directory", "load_identity"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_IDENTITY = "identity.json"


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key pair and whose it is."""

    name: str
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, {self.public!r})"  # a secret must not end up in a log


class _Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    public: str


def default_directory() -> Path:
    """Return where a user's keys live."""
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "policyloop" / "keys"


def check_name(name: str) -> str:
    """Return `name` if it can be the name of a machine; UsageError if not."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot be a name", "use lower case letters, digits, dot, dash and underscore")
    return name


def check_key(key: str) -> str:
    """Return `key` if it is a public key; UsageError if not."""
    try:
        if len(key) == 40 and len(z85.decode(key.encode("ascii"))) == 32:
            return key
    except (ValueError, KeyError, UnicodeEncodeError):
        pass
    raise UsageError("that is no public key", "copy the 40 characters that `policyloop keys show` prints")


def create_identity(directory: Path, name: str) -> Identity:
    """Make a new key pair, readable by its owner only.

    Raises:
        UsageError: There is one already, or `name` cannot be a name.
        StorageError: The disk refuses.
    """
    check_name(name)
    path = directory / _IDENTITY
    public, secret = (key.decode() for key in zmq.curve_keypair())
    identity = Identity(name, public, secret)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(identity))
            file.flush()
            os.fsync(file.fileno())
        sync_directory(directory)
    except FileExistsError:
        raise UsageError(
            f"{path} exists already", "use it, or move it away if it must not be trusted any more"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", "check the folder and its owner") from error
    return identity


def load_identity(directory: Path) -> Identity:
    """Read this machine's key pair.

    Raises:
        ConfigError: There is none, or the file is not one.
        SafetyRefusal: Others than its owner can read it.
    """
    path = directory / _IDENTITY
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(4096)
    except OSError as error:
        raise ConfigError(f"no key at {path}: {error.strerror}", "make one: policyloop keys new NAME") from error
    if stat.S_IMODE(mode) & 0o077:
        raise SafetyRefusal(
            f"{path} can be read by others", f"chmod 600 {path}, and make a new key if others have used it"
        )
    try:
        identity = msgspec.json.decode(data, type=Identity)
        check_key(identity.public)
        check_key(identity.secret)
    except (msgspec.DecodeError, UsageError) as error:
        raise ConfigError(
            f"{path} is no key file", "move it away and make a new one: policyloop keys new NAME"
        ) from error
    return identity


class AllowList:
    """The robots that may connect.

    Args:
        directory: The keys' directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "allowed"

    def allow(self, name: str, public: str) -> None:
        """Let the holder of a key connect as `name`; replaces its older key.

        Raises:
            UsageError: Name or key are none, or the key is another robot's.
            StorageError: The disk refuses.
        """
        entry = _Allowed(check_name(name), check_key(public))
        holder = self.name_of(public)
        if holder not in ("", name):
            raise UsageError(f"this key is allowed as '{holder}' already", f"policyloop keys revoke {holder}")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(self._directory / f"{name}.json", msgspec.json.encode(entry))
        except OSError as error:
            raise StorageError(f"cannot write to {self._directory}: {error.strerror}", "check its owner") from error

    def revoke(self, name: str) -> None:
        """Let `name` connect no more; UsageError if it could not anyway."""
        try:
            (self._directory / f"{check_name(name)}.json").unlink()
            sync_directory(self._directory)
        except FileNotFoundError:
            raise UsageError(
                f"'{name}' is not allowed", f"allowed are: {', '.join(self.entries()) or 'none'}"
            ) from None

    def entries(self) -> dict[str, str]:
        """Return every allowed name's public key. A file that is not an entry allows nobody."""
        found = {}
        for path in sorted(self._directory.glob("*.json")):
            try:
                entry = msgspec.json.decode(path.read_bytes(), type=_Allowed)
                found[check_name(entry.name)] = check_key(entry.public)
            except (OSError, msgspec.DecodeError, UsageError):
                continue
        return found

    def name_of(self, public: str) -> str:
        """Return whose key this is; empty if it is not allowed."""
        return next((name for name, key in self.entries().items() if key == public), "")
