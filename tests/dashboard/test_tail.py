from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.dashboard import tail as tail_module
from policyloop.dashboard.tail import JournalTail
from policyloop.link.journal import Journal, Received
from policyloop.wire.codec import encode_step

MakeStep = Callable[..., Step]


def append(journal: Journal, step: Step) -> None:
    journal.append(encode_step(step, journal.profile))


def test_steps_come_once_in_order_while_another_writes(
    journal: Journal, mini: RobotProfile, make_step: MakeStep
) -> None:
    tail = JournalTail(journal._log.directory)
    append(journal, make_step(mini, 0))
    (before,) = tail.read()
    assert (before.position, before.live, tail.profile) == (0, False, mini)
    assert tail.read() == []
    for sequence in (1, 2):
        append(journal, make_step(mini, sequence))
    assert [(seen.position, seen.record.sequence, seen.live) for seen in tail.read()] == [(1, 1, True), (2, 2, True)]
    assert (tail.steps, tail.problem) == (3, "")
    tail.close()


def test_it_begins_near_the_end_and_reads_in_pieces(
    journal: Journal, mini: RobotProfile, make_step: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "_LOOK_BACK", 5)
    monkeypatch.setattr(tail_module, "_BATCH", 3)
    for sequence in range(9):
        append(journal, make_step(mini, sequence))
    tail = JournalTail(journal._log.directory)
    assert [[seen.position for seen in tail.read()] for _ in range(3)] == [[4, 5, 6], [7, 8], []]
    tail.close()


def test_a_journal_that_is_not_there_yet_is_waited_for(tmp_path: Path, mini: RobotProfile, make_step: MakeStep) -> None:
    tail = JournalTail(tmp_path / "later")
    assert tail.read() == []
    assert "no journal at" in tail.problem
    journal = Journal(tmp_path / "later", mini, writable=True)
    append(journal, make_step(mini, 0))
    assert [seen.position for seen in tail.read()] == [0]
    assert tail.problem == ""
    tail.close()
    journal.close()


def test_a_journal_that_is_replaced_is_read_anew(tmp_path: Path, mini: RobotProfile, make_step: MakeStep) -> None:
    tail = JournalTail(tmp_path / "journal")
    for round_ in range(2):
        journal = Journal(tmp_path / "journal", mini, writable=True)
        for sequence in range(3 - round_):
            append(journal, make_step(mini, sequence))
        assert [seen.position for seen in tail.read()] == list(range(3 - round_))
        journal.close()
        (tmp_path / "journal").rename(tmp_path / f"old-{round_}")  # as somebody would who begins again
        assert tail.read() == []
        assert tail.problem
    tail.close()
    shutil.rmtree(tmp_path / "old-0")


def test_a_record_that_does_not_fit_the_profile_is_left_out(
    journal: Journal, mini: RobotProfile, make_step: MakeStep
) -> None:
    tail = JournalTail(journal._log.directory)
    append(journal, make_step(mini, 0, command=make_step(mini).record.command.__class__((0.1,))))
    append(journal, make_step(mini, 1))
    assert [seen.position for seen in tail.read()] == [1]
    tail.close()


def test_what_the_gateway_counted_is_read_beside_the_steps(journal: Journal) -> None:
    tail = JournalTail(journal._log.directory)
    tail.read()
    journal.save_received(Received(steps={"bad-rgb": 2}, events={"lost": 1}))
    tail.read_counts()
    assert (tail.refused, tail.events) == ({"bad-rgb": 2}, {"lost": 1})
    tail.close()
