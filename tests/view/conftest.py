"""A recording to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

Record = Callable[[list[Step]], Journal]


@pytest.fixture
def record(mini: RobotProfile, tmp_path: Path) -> Iterator[Record]:
    """Return `record(steps)`: a journal of them, open for reading."""
    opened: list[Journal] = []

    def write(steps: list[Step], profile: RobotProfile = mini) -> Journal:
        journal = Journal(tmp_path / "journal", profile, writable=True)
        for step in steps:
            journal.append(encode_step(step, profile))
        journal.close()
        opened.append(Journal(tmp_path / "journal"))
        return opened[-1]

    yield write
    for journal in opened:
        journal.close()
