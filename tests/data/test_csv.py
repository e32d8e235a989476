from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.data.csv import export_csv
from policyloop.errors import StorageError, UsageError
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_step_is_a_line(journal: Journal, steps: list[Step], tmp_path: Path) -> None:
    assert export_csv(journal, tmp_path / "drive.csv") == len(steps)
    written = rows(tmp_path / "drive.csv")
    for row, step in zip(written, steps, strict=True):
        record = step.record
        assert (row["robot"], int(row["sequence"])) == (record.robot, record.sequence)
        assert float(row["action/linear"]) == record.action.values[0]
        assert float(row["proprio/roll"]) == float(step.observation["proprio"][2])
        assert float(row["reward"]) == record.reward
        assert int(row["truncated"]) == record.truncated


def test_a_name_is_no_formula(mini: RobotProfile, make_step: Callable[..., Step], tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal-2", mini, writable=True)
    for i, name in enumerate(("=cmd|'/C calc'!A0", "@x", 'quote",\nrobot')):
        journal.append(encode_step(make_step(mini, i, robot=name), mini))
    export_csv(journal, tmp_path / "x.csv")
    journal.close()
    assert [row["robot"] for row in rows(tmp_path / "x.csv")] == ["'=cmd|'/C calc'!A0", "'@x", 'quote",\nrobot']
    assert float(rows(tmp_path / "x.csv")[0]["command/linear"]) == make_step(mini, 0).record.command.values[0]


def test_an_existing_file_is_not_overwritten(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export_csv(journal, tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "mine"


def test_a_full_disk_leaves_no_half_file(journal: Journal, tmp_path: Path, full_disk: Callable[[int], Any]) -> None:
    with full_disk(100), pytest.raises(StorageError, match="cannot write"):
        export_csv(journal, tmp_path / "x.csv")
    assert not list(tmp_path.glob("*x.csv*"))
