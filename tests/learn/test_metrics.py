"""Where training's numbers go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from policyloop.learn.metrics import Metrics


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) by tag, file by file: a reader of all sorts them by name, the 100th before the 99th."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in directory.glob("events.*"):
        events = EventAccumulator(str(file))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    return {tag: sorted(values) for tag, values in found.items()}


def test_numbers_appear_under_the_documents_tags_and_under_everybodys(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "run")
    metrics.write(100, {"episode_score": 1.5, "policy_loss": -0.25, "value_loss": 2.0, "entropy": 0.5})
    metrics.write(200, {"episode_score": 2.5})
    metrics.close()
    assert scalars(tmp_path / "run") == {
        "train/episode_reward": [(100, 1.5), (200, 2.5)],
        "charts/episodic_return": [(100, 1.5), (200, 2.5)],
        "train/policy_loss": [(100, -0.25)],
        "losses/policy_loss": [(100, -0.25)],
        "train/value_loss": [(100, 2.0)],
        "losses/value_loss": [(100, 2.0)],
        "train/entropy": [(100, 0.5)],
        "losses/entropy": [(100, 0.5)],
    }


def test_a_name_with_a_folder_is_a_tag_of_its_own(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(1, {"reward/forward": 3.0, "update_s": 1.0})
    metrics.close()
    assert scalars(tmp_path) == {"reward/forward": [(1, 3.0)]}


def test_numbers_can_be_read_while_training_goes_on(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    try:
        metrics.write(1, {"entropy": 0.5})
        assert scalars(tmp_path)["train/entropy"] == [(1, 0.5)]
        assert len((tmp_path / "progress.jsonl").read_bytes().splitlines()) == 1
    finally:
        metrics.close()


def test_every_update_is_one_json_line(tmp_path: Path) -> None:
    for round_ in range(2):  # the second as after a restart
        metrics = Metrics(tmp_path)
        metrics.write(10 * round_, {"entropy": 0.5}, update=round_, ledger={"trained": 10 * round_})
        metrics.close()
    lines = [msgspec.json.decode(line) for line in (tmp_path / "progress.jsonl").read_bytes().splitlines()]
    assert [line["update"] for line in lines] == [0, 1]
    assert lines[1]["step"] == 10
    assert lines[1]["entropy"] == 0.5
    assert lines[1]["ledger"] == {"trained": 10}
    assert lines[1]["wall_clock_s"] == pytest.approx(lines[0]["wall_clock_s"], abs=60)


@pytest.fixture
def _threads_end() -> Iterator[None]:
    """Wait for tensorboard's threads: what they die of must not be taken for a fault of the next test."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # tensorboard's thread
@pytest.mark.usefixtures("_threads_end")
@pytest.mark.parametrize("limit_bytes", [0, 300], ids=["all files", "event files"])
def test_a_full_disk_is_an_alarm_and_later_numbers_are_written_again(
    limit_bytes: int, tmp_path: Path, full_disk: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(1, {"entropy": 1.0})
    with full_disk(limit_bytes):
        metrics.write(2, {"entropy": 2.0, **{f"reward/{name}": 0.5 for name in "abcde"}})
    metrics.write(3, {"entropy": 3.0})  # tensorboard may say only now that it failed
    metrics.write(4, {"entropy": 4.0})
    metrics.close()
    (alarm,) = caplog.records
    assert alarm.levelname == "ERROR"
    assert f"cannot write the numbers of training to {tmp_path}" in alarm.getMessage()
    lines = [msgspec.json.decode(line) for line in (tmp_path / "progress.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    steps = [step for step, _ in scalars(tmp_path)["train/entropy"]]
    assert (steps[0], steps[-1]) == (1, 4)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # tensorboard's thread
@pytest.mark.usefixtures("_threads_end")
def test_a_disk_that_is_still_full_at_the_end_is_an_alarm_too(
    tmp_path: Path, full_disk: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(tmp_path)
    with full_disk(0):
        metrics.write(1, {"entropy": 1.0})
        metrics.close()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
