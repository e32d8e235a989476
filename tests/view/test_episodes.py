from __future__ import annotations

from collections.abc import Callable

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import UsageError
from policyloop.link.journal import Journal
from policyloop.view.episodes import find_episode, list_episodes

Record = Callable[[list[Step]], Journal]


def test_episodes_are_told_apart_by_robot_start_and_number(
    record: Record, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    steps = [
        make_step(mini, 0, 0, robot="a"),
        make_step(mini, 0, 0, robot="b"),
        make_step(mini, 1, 1, robot="a"),
        make_step(mini, 0, 0, robot="a", boot="b1"),
        make_step(mini, 1, 0, robot="b"),
    ]
    journal = record(steps)
    assert [(one.robot, one.boot, one.number, one.positions) for one in list_episodes(journal)] == [
        ("a", "b0", 0, [0]),
        ("b", "b0", 0, [1, 4]),
        ("a", "b0", 1, [2]),
        ("a", "b1", 0, [3]),
    ]
    assert [one.positions for one in list_episodes(journal, "b")] == [[1, 4]]
    assert find_episode(journal)[0] == 3
    assert find_episode(journal, "a", 1)[1].positions == [2]


def test_steps_that_arrived_late_stand_where_they_were_driven(
    record: Record, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    journal = record([make_step(mini, sequence) for sequence in (0, 2, 1)])
    assert list_episodes(journal)[0].positions == [0, 2, 1]


def test_what_is_not_there_is_refused_and_what_is_there_named(
    record: Record, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    journal = record([make_step(mini, 0)])
    with pytest.raises(UsageError, match="use 0 to 0"):
        find_episode(journal, "", 1)
    with pytest.raises(UsageError, match="robots here: r0"):
        find_episode(journal, "nobody")


def test_an_empty_journal_has_no_episode(record: Record) -> None:
    with pytest.raises(UsageError, match="no episodes"):
        find_episode(record([]))
