"""`policyloop view`: which episode, where it goes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]


def test_the_newest_episode_becomes_a_page(
    recorded: Path, policyloop: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = policyloop("view", recorded)
    assert (code, out) == (0, "episode.html: episode 0, 80 steps of rover-0\n")
    assert Path("episode.html").read_text().startswith("<!doctype html>")
    _, out, _ = policyloop("view", recorded, "--output", "other.html", "--json")
    assert json.loads(out) == {"output": "other.html", "episode": 0, "robot": "rover-0", "steps": 80}


def test_episodes_are_listed_and_nothing_is_written(
    recorded: Path, policyloop: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, out, _ = policyloop("view", recorded, "--list", "--json")
    (episode,) = json.loads(out)["episodes"]
    assert (episode["episode"], episode["steps"], episode["robot"]) == (0, 80, "rover-0")
    assert "80 steps  rover-0" in policyloop("view", recorded, "--list")[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--episode", 1], 2, "use 0 to 0"),
        (["--robot", "nobody"], 2, "robots here: rover-0"),
        (["--output", "no/such/folder/page.html"], 1, "cannot write"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    recorded: Path, policyloop: Call, arguments: list[object], code: int, said: str
) -> None:
    found, out, err = policyloop("view", recorded, *arguments)
    assert (found, out) == (code, "")
    assert said in err
