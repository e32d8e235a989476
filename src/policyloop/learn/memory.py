"""How much memory there is to learn in, and whether replays fit into it once they are full."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from policyloop.errors import ConfigError

__all__ = ["check_replays_fit", "memory_bytes"]

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of a container: cgroup v2 and v1."""

_REST = 3
"""One part in so many is left for the demonstrations of the clone, the network and the system."""


def memory_bytes(limits: Sequence[Path] = _LIMITS) -> int:
    """Return the memory of this machine, or of the container that this process is in if that has less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in limits:
        try:
            found.append(int(limit.read_text()))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return min(found)


def check_replays_fit(capacity: int, state_bytes: int, memory: int) -> None:
    """Refuse replays that would fill the memory only after hours of driving.

    Args:
        capacity: States of each of the two replays.
        state_bytes: What a state takes.
        memory: What there is, bytes.

    Raises:
        ConfigError: They do not fit; the remedy names the largest capacity that does.
    """
    full, room = 2 * capacity * state_bytes, memory - memory // _REST
    if full > room:
        raise ConfigError(
            f"two replays of {capacity} states of {state_bytes} bytes take {full / 1e9:.1f} GB when they are full, "
            f"and of the {memory / 1e9:.1f} GB of memory here {room / 1e9:.1f} GB can be theirs",
            f"put capacity = {room // (2 * state_bytes)} under [rlpd] into --settings FILE, or take a larger machine",
        )
