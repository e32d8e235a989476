"""A journal with a few episodes, and a bag as a ROS 2 robot would record it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Stamps, Step
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

PERIOD_NS = 100_000_000
START_NS = 1_750_000_000 * 10**9


@pytest.fixture
def steps(mini: RobotProfile, make_step: Callable[..., Step]) -> list[Step]:
    """Two episodes of four steps of one robot, and three of another."""
    made = []
    for robot, count in (("r0", 8), ("r1", 3)):
        for i in range(count):
            step = make_step(mini, i, robot=robot, episode=i // 4, index=i % 4, truncated=i % 4 == 3)
            captured_ns = i * PERIOD_NS
            record = msgspec.structs.replace(
                step.record,
                stamps=Stamps(captured_ns, captured_ns + 10, captured_ns + 20),
                wall_clock_s=(START_NS + captured_ns) / 1e9,
            )
            made.append(msgspec.structs.replace(step, record=record))
    return made


@pytest.fixture
def journal(mini: RobotProfile, steps: list[Step], tmp_path: Path) -> Iterator[Journal]:
    """The steps, recorded."""
    journal = Journal(tmp_path / "journal", mini, writable=True)
    for step in steps:
        journal.append(encode_step(step, mini))
    yield journal
    journal.close()
