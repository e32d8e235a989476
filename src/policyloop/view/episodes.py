"""Which episodes a journal holds."""

from __future__ import annotations

from typing import NamedTuple

from policyloop.errors import UsageError
from policyloop.link.journal import Journal

__all__ = ["Episode", "find_episode", "list_episodes"]


class Episode(NamedTuple):
    """One episode in a journal.

    Attributes:
        boot: Start of the robot's program; with robot and number it names the episode for ever.
        positions: Of its steps in the journal, in the order in which they were driven.
    """

    robot: str
    boot: str
    number: int
    positions: list[int]


def list_episodes(journal: Journal, robot: str = "") -> list[Episode]:
    """Return all episodes, of one robot or of all, in the order in which they arrived."""
    found: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
    for position, record in journal.intact(journal.header):
        if robot in ("", record.robot):
            found.setdefault((record.robot, record.boot, record.episode), []).append((record.sequence, position))
    return [Episode(*name, [position for _, position in sorted(steps)]) for name, steps in found.items()]


def find_episode(journal: Journal, robot: str = "", number: int | None = None) -> tuple[int, Episode]:
    """Return an episode by its place in `list_episodes`, and that place; the newest by default.

    Raises:
        UsageError: There is none; what there is, is named.
    """
    episodes = list_episodes(journal, robot)
    if not episodes:
        robots = sorted({one.robot for one in list_episodes(journal)})
        known = f"robots here: {', '.join(robots)}" if robots else "it is empty: record something first"
        raise UsageError(f"no episodes of robot '{robot}'" if robot else "the journal holds no episodes", known)
    chosen = len(episodes) - 1 if number is None else number
    if not 0 <= chosen < len(episodes):
        raise UsageError(f"no episode {chosen}", f"use 0 to {len(episodes) - 1}")
    return chosen, episodes[chosen]
