"""Message headers: one tagged union, MessagePack, strict. The picture frames follow the header raw.

Robot to gateway: Hello, StepHeader. Gateway to robot: Welcome, Ack, Refusal. The protocol number
grows when an old peer could misread a message; a peer of another number is refused by name.
"""

from __future__ import annotations

import msgspec

from policyloop.core.step import StepRecord

__all__ = ["PROTOCOL", "Ack", "FromGateway", "FromRobot", "Hello", "Refusal", "StepHeader", "Welcome"]

PROTOCOL = 1


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello", forbid_unknown_fields=True):
    """A robot introduces itself, at every start and reconnect."""

    protocol: int
    robot: str
    boot: str
    profile_digest: str


class StepHeader(msgspec.Struct, frozen=True, kw_only=True, tag="step", forbid_unknown_fields=True):
    """Header of one step. Frames follow in the order of the profile's observation specs.

    With `final`, the frames of the final observation follow those of the observation.
    """

    record: StepRecord
    final: bool = False


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome", forbid_unknown_fields=True):
    """The gateway accepts the robot."""

    protocol: int


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
    """The step that is refused; -1 = the robot itself."""


FromRobot = Hello | StepHeader
FromGateway = Welcome | Ack | Refusal
