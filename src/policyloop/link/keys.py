"""Who is who on the link: CURVE key pairs, and the list of those who may connect.

    KEYS/identity.json        name, public and secret key of this machine; mode 0600
    KEYS/allowed/NAME.json    name and public key of a robot that may connect here

A key is 32 bytes in Z85, 40 characters. Nothing here is ever unpickled or executed.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from policyloop.core.keyfiles import KeyPair, NamedKeys, check_name, read_secret, write_secret
from policyloop.errors import ConfigError, UsageError

__all__ = ["AllowList", "Identity", "check_key", "create_identity", "default_directory", "load_identity"]

_IDENTITY = "identity.json"


class Identity(KeyPair, frozen=True, forbid_unknown_fields=True):
    """A key pair and whose it is."""


def default_directory() -> Path:
    """Return where a user's keys live."""
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "policyloop" / "keys"


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
    public, secret = (key.decode() for key in zmq.curve_keypair())
    identity = Identity(check_name(name), public, secret)
    write_secret(directory / _IDENTITY, identity)
    return identity


def load_identity(directory: Path) -> Identity:
    """Read this machine's key pair.

    Raises:
        ConfigError: There is none, or the file is not one.
        SafetyRefusal: Others than its owner can read it.
    """
    path = directory / _IDENTITY
    data = read_secret(path, "policyloop keys new NAME")
    try:
        identity = msgspec.json.decode(data, type=Identity)
        check_key(identity.public)
        check_key(identity.secret)
    except (msgspec.DecodeError, UsageError) as error:
        raise ConfigError(
            f"{path} is no key file", "move it away and make a new one: policyloop keys new NAME"
        ) from error
    return identity


class AllowList(NamedKeys):
    """The robots that may connect.

    Args:
        directory: The keys' directory.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "allowed", check_key)
