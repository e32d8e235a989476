"""Message headers: one tagged union, MessagePack, strict. The picture frames follow the header raw.

Robot to gateway: Hello, StepHeader, Fetch, Bye. Gateway to robot: Welcome, Ack, Chunk, Refusal. The protocol number
grows when an old peer could misread a message; a peer of another number is refused by name.
"""

from __future__ import annotations

import msgspec

from policyloop.core.step import StepRecord

__all__ = [
    "CHUNK_BYTES",
    "NOT_NOW",
    "PROTOCOL",
    "Ack",
    "Bye",
    "Chunk",
    "Fetch",
    "FromGateway",
    "FromRobot",
    "Hello",
    "Refusal",
    "StepHeader",
    "Welcome",
]

PROTOCOL = 1
NOT_NOW = -2
"""In a `Refusal`, in place of a sequence number: the robot may come back later."""
CHUNK_BYTES = 64 << 10
"""Of an archive, in one message."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello", forbid_unknown_fields=True):
    """A robot introduces itself, at every start and reconnect, and shows every second that it lives."""

    protocol: int
    robot: str
    boot: str
    profile_digest: str
    sent_ns: int = 0
    """The robot's monotonic clock."""
    lost: int = 0
    """Steps of this start that the robot had to give up for lack of room."""


class Bye(msgspec.Struct, frozen=True, kw_only=True, tag="bye", forbid_unknown_fields=True):
    """A robot leaves in order: another start of it may come at once."""


class StepHeader(msgspec.Struct, frozen=True, kw_only=True, tag="step", forbid_unknown_fields=True):
    """Header of one step. Frames follow in the order of the profile's observation specs.

    With `final`, the frames of the final observation follow those of the observation.
    """

    record: StepRecord
    final: bool = False


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome", forbid_unknown_fields=True):
    """The gateway accepts the robot."""

    protocol: int
    sent_ns: int = 0
    """From the `Hello`: the robot learns how long its question took."""
    time_ns: int = 0
    """The trainer's UTC clock when it answered, ns since 1970."""


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack", forbid_unknown_fields=True):
    """Every step of (robot, boot) up to `sequence` is on the trainer's disk; -1 = none yet."""

    boot: str
    sequence: int
    hold: bool = False
    """The learner asks for a pause (stop-and-go): a robot that can afford one stands still."""
    policy_version: int = 0
    """Newest policy that the trainer has shipped."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal", forbid_unknown_fields=True):
    """The gateway will not take this robot or this step, and says why."""

    reason: str
    detail: str
    boot: str = ""
    sequence: int = -1
    """The step that is refused; -1 = the robot itself, which need not try again; -2 = the robot, for now."""


class Fetch(msgspec.Struct, frozen=True, kw_only=True, tag="fetch", forbid_unknown_fields=True):
    """A robot that pulls asks for a piece of the archive with this SHA-256; empty = for what there is."""

    digest: str
    offset: int


class Chunk(msgspec.Struct, frozen=True, kw_only=True, tag="chunk", forbid_unknown_fields=True):
    """What the trainer offers, and in the frame behind it the piece from `offset` on, if that was asked for.

    Attributes:
        name: Of the version in the trainer's store; empty = nothing is offered.
        digest: SHA-256 of the archive.
        size: Of the archive, bytes.
    """

    name: str
    digest: str
    size: int
    offset: int


FromRobot = Hello | StepHeader | Fetch | Bye
FromGateway = Welcome | Ack | Chunk | Refusal
