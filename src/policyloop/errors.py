"""One exception tree. Every error carries an exit code and what to do next.

Exit codes: 0 fine, 1 failure, 2 usage, 3 configuration, 4 connection, 5 verification or
signature, 6 refused for safety, 7 incompatible version or profile, 130 interrupted.
"""

from __future__ import annotations

import errno
from pathlib import Path

__all__ = [
    "ConfigError",
    "ConnectionFailed",
    "IncompatibleError",
    "MissingExtra",
    "PolicyloopError",
    "SafetyRefusal",
    "StorageError",
    "UsageError",
    "VerificationError",
    "WireError",
    "error_of",
    "install_extra",
]


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "check who owns it, and who you are"),
    errno.EROFS: "the disk is read-only: choose another path, or mount it to be written",
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "choose another path: this one leads nowhere"),
    **dict.fromkeys((errno.EEXIST, errno.EISDIR), "choose another path: something else is there"),
}
"""What to do about a disk that refuses, by the reason."""


class PolicyloopError(Exception):
    """A failure that names its culprit and its remedy.

    Args:
        message: What went wrong, naming the file, field, peer or value at fault.
        remedy: One sentence that says what to do next; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class StorageError(PolicyloopError):
    """The disk refused: no space, read-only, or a file that cannot be opened."""

    @classmethod
    def cannot_write(cls, path: Path, error: OSError) -> StorageError:
        """Return the error of something that cannot be written, with the remedy that the system's reason asks for."""
        remedy = _REMEDIES.get(error.errno or 0, "check the path and the disk")
        return cls(f"cannot write {path}: {error.strerror}", remedy)


class UsageError(PolicyloopError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class ConfigError(PolicyloopError):
    """A profile or a setting is wrong."""

    exit_code = 3


def install_extra(extra: str) -> str:
    """Say how an optional part of policyloop is installed."""
    return f"pip install '.[{extra}]' in the checkout of policyloop"


class MissingExtra(ConfigError):
    """An optional part of policyloop is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this command needs {package}, which is not installed",
            install_extra(extra),
        )


class ConnectionFailed(PolicyloopError):
    """A port is taken, or a peer cannot be reached."""

    exit_code = 4


class VerificationError(PolicyloopError):
    """Bytes from disk or network are not what they claim to be."""

    exit_code = 5


class WireError(VerificationError):
    """A message is malformed. `reason` is the short name under which it is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SafetyRefusal(PolicyloopError):
    """The request could let a robot move on unchecked data."""

    exit_code = 6


class IncompatibleError(PolicyloopError):
    """Two parts that must agree (profile, network, format version) do not."""

    exit_code = 7


_BY_EXIT_CODE: dict[int, type[PolicyloopError]] = {
    kind.exit_code: kind
    for kind in (
        StorageError,
        UsageError,
        ConfigError,
        ConnectionFailed,
        VerificationError,
        SafetyRefusal,
        IncompatibleError,
    )
}


def error_of(
    exit_code: int, message: str, remedy: str = "", *, otherwise: type[PolicyloopError] = PolicyloopError
) -> PolicyloopError:
    """Return the error that another process ended with, by its exit code; `otherwise` for a code that is not ours."""
    return _BY_EXIT_CODE.get(exit_code, otherwise)(message, remedy)
