"""What operator and robot say to each other through ssh: JSON lines, and one archive.

    robot:    Greeting
    operator: Request, and the archive (its manifest and signature only, for a check)
    robot:    Progress ..., and at the end Done or Refused

For a conversion on the robot the operator sends a network and samples instead, and gets Converted, a report and the
network for the NPU. It goes nowhere from there: the operator signs it and sends it like any other.

Whoever holds the robot's ssh key can say this much and nothing else if sshd is told to run `policyloop receive`
whatever is asked for (docs/shipping.md).
"""

from __future__ import annotations

from typing import Annotated, Any, BinaryIO, Literal

import msgspec

from policyloop.errors import ConnectionFailed, VerificationError

__all__ = [
    "MAX_BLOB_BYTES",
    "PROTOCOL",
    "Converted",
    "Done",
    "FromRobot",
    "Greeting",
    "Progress",
    "Refused",
    "Request",
    "read_blob",
    "read_line",
    "write_line",
]

PROTOCOL = 1
MAX_BLOB_BYTES = 512 << 20
_MAX_LINE = 8192


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sizes = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOB_BYTES)], ...], msgspec.Meta(max_length=3)]


class Greeting(msgspec.Struct, frozen=True, kw_only=True, tag="greeting"):
    """The robot says who it is.

    Attributes:
        current: Name of the version that drives now; empty = none.
    """

    protocol: int
    policyloop: str
    profile_name: str
    profile_digest: str
    board: str
    current: str


class Request(msgspec.Struct, frozen=True, kw_only=True, tag="request", forbid_unknown_fields=True):
    """What the operator wants.

    Attributes:
        verb: `check`: verify the manifest, change nothing. `install`: take in, activate, watch. `convert`: see above.
        activate: Make it the current version.
        wait_s: How long to watch whether it proves itself.
        precision: Of the conversion.
        sizes: Of what follows for a conversion: network, samples to calibrate on (0 = none), samples to judge with.
    """

    verb: Literal["check", "install", "convert"]
    activate: bool = True
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    precision: str = "auto"
    sizes: Sizes = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Something was done, or is being done; for people.

    Attributes:
        share: How much of it; None = it is done, or nobody knows.
    """

    text: str
    share: Share | None = None


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The robot will not; it drives what it drove."""

    message: str
    remedy: str
    exit_code: int


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The end.

    Attributes:
        version: Name of the version in the robot's store.
        state: What became of it so far: `checked`, or as in the store.
        note: What it has shown, or why it is bad.
    """

    version: str
    state: str
    note: str = ""


class Converted(msgspec.Struct, frozen=True, kw_only=True, tag="converted"):
    """A conversion is over; report (JSON) and network for the NPU (0 = none passed the gate) follow."""

    sizes: Sizes


FromRobot = Greeting | Progress | Refused | Done | Converted


def read_blob(stream: BinaryIO, size: int) -> bytes:
    """Receive so many bytes; ConnectionFailed if the stream ends before."""
    parts, left = [], size
    while left:
        part = stream.read(min(left, 1 << 20))
        if not part:
            raise ConnectionFailed("the connection ended", "try again")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def write_line(stream: BinaryIO, message: msgspec.Struct) -> None:
    """Send one message at once; OSError if nobody is there any more."""
    stream.write(msgspec.json.encode(message) + b"\n")
    stream.flush()


def read_line(stream: BinaryIO, kind: Any) -> Any:
    """Receive one message of a type.

    Raises:
        ConnectionFailed: The stream ends.
        VerificationError: It is something else.
    """
    line = stream.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
        if len(line) == _MAX_LINE:
            raise VerificationError("the other side sends lines without end", "is policyloop at both ends?")
        raise ConnectionFailed("the connection ended", "try again")
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = line[:80].decode(errors="replace").strip()
        raise VerificationError(f"the other side says '{said}': {error}", "is policyloop at both ends?") from error
