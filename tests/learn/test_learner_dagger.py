"""The learner with DAgger: it clones again whenever teachers have shown more, and can be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.learn.training import Place, change, stops_at

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.learn.checkpoint import latest_checkpoint
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

Drive = Callable[..., Step]

DAGGER = change(learner="dagger", demonstrations=40, update_interval=60, total_updates=3, checkpoint_interval=1)


def shown(drive: Drive, first: int, count: int) -> Iterator[Step]:
    rng = np.random.default_rng(first)
    for i in range(first, first + count):
        speed = float(rng.uniform(-1, 1))
        source = "policy" if i % 7 == 0 else "scripted"
        yield drive(i, source=source, seen=(speed, 0.0, 2.0, 0.0), proposed=(0.9 * speed, 0.0))


@pytest.fixture
def journal(blind: RobotProfile, drive: Drive, tmp_path: Path) -> Journal:
    """A journal of which the first 50 steps have been cloned when the others come."""
    journal = Journal(tmp_path / "journal", blind, writable=True)
    for step in shown(drive, 0, 50):
        journal.append(encode_step(step, blind))
    return journal


def continued(journal: Journal, drive: Drive, blind: RobotProfile) -> None:
    for step in shown(drive, 50, 300):
        journal.append(encode_step(step, blind))


def test_every_round_clones_all_that_was_shown(
    journal: Journal, place: Place, drive: Drive, blind: RobotProfile
) -> None:
    place.learner(journal, change(learner="bc", demonstrations=40)).run()
    continued(journal, drive, blind)
    learner = place.learner(journal, DAGGER, resume=True)
    learner.run()
    assert place.updates() == [0, 1, 2, 3]
    frames = [line["bc_frames"] for line in place.lines()[1:]]
    # 42 of the first 50 are the teacher's; then 60 more in each round
    assert frames == [42 + 60, 42 + 120, 42 + 180]
    assert [line["rollout"] for line in place.lines()[1:]] == [60, 60, 60]
    assert learner.ledger["demonstration"] == 180
    assert place.lines()[-1]["bc_held_out_loss"] < place.lines()[1]["bc_held_out_loss"]


def test_a_learner_that_was_stopped_goes_on_bit_for_bit(
    journal: Journal, place: Place, drive: Drive, blind: RobotProfile, tmp_path: Path
) -> None:
    halves = Place(tmp_path / "halves")
    for one in (place, halves):
        one.learner(journal, change(learner="bc", demonstrations=40)).run()
    continued(journal, drive, blind)
    place.learner(journal, DAGGER, resume=True).run()
    stop = threading.Event()
    halves.learner(journal, DAGGER, resume=True, stop=stop, report=stops_at(stop, 1)).run()
    assert halves.updates()[-1] == 1
    halves.learner(journal, DAGGER, resume=True).run()
    assert halves.fingerprint() == place.fingerprint()
    assert latest_checkpoint(halves.checkpoints).state.feed == latest_checkpoint(place.checkpoints).state.feed
