from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from policyloop.dashboard import learning
from policyloop.dashboard.learning import LearnerView, time_to_next_update


def write(folder: Path, *lines: Any, mode: str = "a") -> None:
    with (folder / "progress.jsonl").open(mode) as file:
        file.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


def curves(view: LearnerView) -> dict[str, list[tuple[float, float]]]:
    return {curve.name: curve.points for curve in view.shown().curves}


def test_curves_are_the_numbers_of_each_update(tmp_path: Path) -> None:
    view = LearnerView(tmp_path)
    write(tmp_path, {"step": 0, "bc_loss": 0.2}, {"step": 100, "entropy": 1.5, "episode_score": -3})
    view.read()
    write(tmp_path, {"step": 200, "entropy": 1.25, "update": 2, "version": 3, "rollout": 100})
    view.read()
    assert curves(view) == {
        "episode_score": [(100.0, -3.0)],
        "entropy": [(100.0, 1.5), (200.0, 1.25)],
        "bc_loss": [(0.0, 0.2)],
    }
    shown = view.shown()
    assert (shown.update, shown.version, shown.steps, shown.rollout) == (2, 3, 200, 100)
    assert view.newest_version == 3


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    view = LearnerView(tmp_path)
    (tmp_path / "progress.jsonl").write_text('{"step": 1, "entropy"')
    view.read()
    assert view.revision == 0
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write(": 2.0}\n")
    view.read()
    assert curves(view) == {"entropy": [(1.0, 2.0)]}
    assert view.revision == 1


@pytest.mark.parametrize(
    "rubbish",
    [
        "",
        "no json",
        "[1, 2]",
        '{"step": 1e999, "entropy": 1}',
        '{"step": 1, "entropy": true}',
        '{"step": "1"}',
        "[" * 5000,
    ],
)
def test_rubbish_is_passed_over(tmp_path: Path, rubbish: str) -> None:
    view = LearnerView(tmp_path)
    write(tmp_path, rubbish, {"step": 5, "entropy": 1.0})
    view.read()
    assert curves(view) == {"entropy": [(5.0, 1.0)]}


def test_a_run_that_begins_anew_is_read_anew(tmp_path: Path) -> None:
    view = LearnerView(tmp_path)
    write(tmp_path, {"step": 5, "entropy": 1.0}, {"step": 6, "entropy": 1.0})
    view.read()
    write(tmp_path, {"step": 1, "entropy": 9.0}, mode="w")
    view.read()
    assert curves(view) == {"entropy": [(1.0, 9.0)]}


def test_a_run_without_updates_says_so(tmp_path: Path) -> None:
    view = LearnerView(tmp_path / "runs")
    view.read()
    assert "it appears with the first update" in view.shown().problem
    assert view.number("entropy") is None


def test_long_curves_are_thinned_and_keep_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_MAX_POINTS", 10)
    view = LearnerView(tmp_path)
    write(tmp_path, *({"step": i, "entropy": i} for i in range(95)))
    view.read()
    points = curves(view)["entropy"]
    assert len(points) == 10
    assert (points[0], points[-1]) == ((4.0, 4.0), (94.0, 94.0))


def test_the_ledger_is_that_of_the_newest_update(tmp_path: Path) -> None:
    view = LearnerView(tmp_path)
    write(tmp_path, {"step": 1, "ledger": {"trained": 1}}, {"step": 2, "ledger": {"trained": 7, "gap": 2, "odd": "x"}})
    view.read()
    assert view.ledger == {"trained": 7, "gap": 2}


def test_age_is_that_of_the_newest_line(tmp_path: Path) -> None:
    view = LearnerView(tmp_path)
    write(tmp_path, {"step": 1, "wall_clock_s": time.time() - 60})
    view.read()
    assert view.shown().age_s == pytest.approx(60, abs=2)


@pytest.mark.parametrize(
    ("ages_s", "overdue"),
    [((), False), ((50,), False), ((70,), True), ((600, 400, 300), False), ((200, 190, 170), True)],
)
def test_a_learner_is_overdue_after_three_times_its_usual_pause(
    ages_s: tuple[float, ...], overdue: bool, tmp_path: Path
) -> None:
    write(tmp_path, *({"step": 1, "wall_clock_s": time.time() - age_s} for age_s in ages_s))
    view = LearnerView(tmp_path)
    view.read()
    assert view.is_overdue == overdue


def test_the_next_update_comes_when_the_rollout_is_full() -> None:
    # 8192 steps, 1000 of 2000 unread ones are the policy's; 40 steps a second, half of them the policy's
    assert time_to_next_update(8192, 2000, 0.5, 40.0) == pytest.approx((8192 - 1000) / 20)
    assert time_to_next_update(100, 5000, 1.0, 10.0) == 0
    assert time_to_next_update(0, 10, 1.0, 10.0) is None
    assert time_to_next_update(100, 10, 0.0, 10.0) is None
    assert time_to_next_update(100, 10, 1.0, 0.0) is None
