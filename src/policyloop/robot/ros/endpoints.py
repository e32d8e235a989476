"""Who is at the other end of a topic: nobody, somebody with another type, or with a quality that never matches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from policyloop.robot.ros.diagnosis import Diagnosis

__all__ = ["Endpoint", "Quality", "look_at_publishers"]

Quality = Literal["sensor", "command", "state"]
"""sensor: best effort, keep 5; command: reliable, keep 1; state: reliable, keep 10. None waits for what was before."""


class Endpoint(msgspec.Struct, frozen=True):
    """One publisher, as the graph knows it."""

    node: str
    kind: str
    reliable: bool


def look_at_publishers(
    topic: str, kind: str, quality: Quality, publishers: Iterable[Endpoint], *, needed: bool = True
) -> Diagnosis:
    """Return whether anything can come from a topic.

    Args:
        topic: Which.
        kind: The type that is subscribed to, such as `sensor_msgs/msg/Image`.
        quality: With which it is.
        publishers: Whoever publishes there.
        needed: Whether nobody is an error.
    """
    found = list(publishers)
    name = f"publishers of {topic}"
    if not found:
        return Diagnosis("error" if needed else "ok", name, f"nobody publishes {topic} ({kind})")
    others = sorted({f"{one.node} ({one.kind})" for one in found if one.kind != kind})
    if others:
        return Diagnosis("error", name, f"{topic} is subscribed to as {kind}, but comes from {', '.join(others)}")
    silent = sorted(one.node for one in found if quality != "sensor" and not one.reliable)
    if silent:
        why = "is published best effort and subscribed to reliable: nothing will come"
        return Diagnosis("error", name, f"{topic} {why}; from {', '.join(silent)}")
    return Diagnosis("ok", name, f"{topic} from {', '.join(sorted(one.node for one in found))}")
