"""What a training tells: its progress, and the numbers of every update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from tests.learn.training import Place

from policyloop.core.step import Step
from policyloop.learn.algorithm import Lesson
from policyloop.learn.reporter import Progress, Reporter
from policyloop.learn.scores import FinishedEpisode, Scores
from policyloop.link.journal import Journal

Drive = Callable[..., Step]
Write = Callable[..., Journal]


def test_the_documents_tags_are_in_the_event_files(journal: Journal, place: Place) -> None:
    place.learner(journal).run()
    scalars = place.scalars()
    assert len(scalars["train/value_loss"]) == len(scalars["train/entropy"]) == 6
    assert len(scalars["train/policy_loss"]) == 5  # the first update fits the critic only
    assert len(scalars["train/episode_reward"]) >= 4
    assert all(np.isfinite(values).all() for values in scalars.values())
    assert {"charts/SPS", "losses/approx_kl", "losses/clipfrac", "losses/explained_variance", "losses/bc_loss"} <= set(
        scalars
    )
    assert scalars["reward/time"][0] < 0


def test_progress_lines_tell_the_story(journal: Journal, place: Place) -> None:
    place.learner(journal).run()
    lines = place.lines()
    assert [line.get("update") for line in lines] == [None, 1, 2, 3, 4, 5, 6]
    assert [line["version"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert all(line["rollout"] >= 45 for line in lines[1:])
    assert [line["ledger"]["trained"] for line in lines[1:]] == np.cumsum(
        [line["rollout"] for line in lines[1:]]
    ).tolist()


class Driven:
    """Has what a reporter asks of an algorithm."""

    def __init__(self) -> None:
        self.scores, self.ledger = Scores(), Counter(trained=600)


def told(reporter: Reporter, heard: list[Progress]) -> float:
    reporter.tell("updating", 0, 1, update=1, version=2, elapsed_s=3.0)
    return heard[-1].score


def test_the_score_is_the_mean_of_the_last_forty_episodes(tmp_path: Path) -> None:
    heard: list[Progress] = []
    driven, reporter = Driven(), Reporter(tmp_path, heard.append)
    assert told(reporter, heard) == 0.0
    driven.scores.finished = [FinishedEpisode(float(score), 10, False, {}) for score in range(50)]
    reporter.write_update(Lesson({}, 200, []), driven, update=1, version=2, update_s=1.0, elapsed_s=3.0)
    reporter.close()
    assert told(reporter, heard) == sum(range(10, 50)) / 40


def test_an_update_is_written_with_the_episodes_since_the_one_before(tmp_path: Path) -> None:
    driven, reporter = Driven(), Reporter(tmp_path, lambda progress: None)
    driven.scores.finished = [
        FinishedEpisode(4.0, 10, False, {"forward": 5.0, "time": -1.0}),
        FinishedEpisode(-7.0, 30, True, {"forward": 3.0, "collision": -10.0}),
    ]
    lesson = Lesson({"value_loss": 0.5}, 200, [])
    for update in (1, 2):
        reporter.write_update(lesson, driven, update=update, version=update + 1, update_s=2.0, elapsed_s=30.0)
    reporter.close()
    first, second = (msgspec.json.decode(line) for line in (tmp_path / "progress.jsonl").read_bytes().splitlines())
    assert first.pop("wall_clock_s") > 0
    assert first == {
        "step": 600,
        "value_loss": 0.5,
        "update_s": 2.0,
        "steps_per_s": 20.0,
        "episode_score": -1.5,
        "episode_steps": 20.0,
        "collision_rate": 0.5,
        "reward/forward": 4.0,
        "reward/time": -0.5,
        "update": 1,
        "version": 2,
        "rollout": 200,
        "elapsed_s": 30.0,
        "ledger": {"trained": 600},
    }
    assert "episode_score" not in second
