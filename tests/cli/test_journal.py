"""`policyloop journal`: what a recording holds, and whether it is intact."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.link.journal import Journal

Call = Callable[..., tuple[int, str, str]]


def test_info_counts_what_is_in_it(recorded: Path, policyloop: Call, mini: RobotProfile) -> None:
    code, out, err = policyloop("journal", "info", recorded, "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert summary["profile"] == "rover-mini"
    assert summary["profile_digest"] == mini.digest
    assert summary["steps"] == 80
    assert summary["sources"] == {"scripted": 80}
    (robot,) = summary["robots"].items()
    assert (robot[0], robot[1]["steps"], robot[1]["rate_hz"]) == ("rover-0", 80, 10.0)
    assert set(robot[1]["bytes_per_step"]) == {"header", "rgb", "depth", "proprio"}
    assert summary["ledger"] == {"stored: scripted": 80}
    assert summary["episodes"] == 1
    assert summary["policy_versions"] == {}
    assert summary["bytes"] == pytest.approx(80 * summary["bytes_per_step"])
    assert summary["reward_mean"] > 0


def test_info_for_people_says_the_same(recorded: Path, policyloop: Call) -> None:
    code, out, _ = policyloop("journal", "info", recorded)
    assert code == 0
    lines = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1].strip() for line in out.splitlines()}
    assert lines["steps"] == "80"
    assert lines["sources"] == "scripted: 80"
    assert lines["policy_versions"] == "-"


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_missing_journal_exits_with_1(command: str, policyloop: Call, tmp_path: Path) -> None:
    code, out, err = policyloop("journal", command, tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert "no journal at" in err
    assert "policyloop gateway" in err


def test_verify_finds_an_intact_journal_intact(recorded: Path, policyloop: Call) -> None:
    assert policyloop("journal", "verify", recorded) == (0, "80 steps, all intact\n", "")


@pytest.fixture
def copied(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "journal"))


def test_verify_names_the_first_step_that_cannot_be_decoded(copied: Path, policyloop: Call, mini: RobotProfile) -> None:
    journal = Journal(copied, mini, writable=True)
    journal.append([b"this is no step"])
    journal.append([b"nor is this"])
    journal.close()
    code, out, err = policyloop("journal", "verify", copied)
    assert (code, out) == (5, "")
    assert "2 of 82 steps are damaged; the first: step 80" in err


def test_verify_finds_a_record_that_rotted_on_disk(copied: Path, policyloop: Call) -> None:
    (segment,) = copied.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    assert policyloop("journal", "verify", copied)[0] == 5


def test_a_journal_of_a_newer_format_exits_with_7(copied: Path, policyloop: Call) -> None:
    about = copied / "journal.json"
    about.write_text(about.read_text().replace('"format": 1', '"format": 2'))
    code, _, err = policyloop("journal", "info", copied)
    assert code == 7
    assert "upgrade policyloop" in err


def test_verify_as_json_counts_and_names(copied: Path, policyloop: Call, mini: RobotProfile) -> None:
    assert json.loads(policyloop("journal", "verify", copied, "--json").out) == {
        "steps": 80,
        "damaged": [],
        "unreadable_bytes": 0,
    }
    journal = Journal(copied, mini, writable=True)
    journal.append([b"this is no step"])
    journal.close()
    code, out, _ = policyloop("journal", "verify", copied, "--json")
    assert code == 5
    assert len(json.loads(out)["damaged"]) == 1


def test_an_import_of_nothing_leaves_no_journal(policyloop: Call, tmp_path: Path) -> None:
    code, _, err = policyloop("journal", "import", tmp_path / "nofile", "--journal", tmp_path / "journal")
    assert code == 1
    assert "it is not there" in err
    assert not (tmp_path / "journal").exists()
