from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import MissingExtra
from policyloop.link.journal import Journal
from policyloop.view.episodes import find_episode
from policyloop.view.reel import Reel, load_reel
from policyloop.view.rerun_log import log_to_rerun


@pytest.fixture
def reel(record: Callable[[list[Step]], Journal], mini: RobotProfile, make_step: Callable[..., Step]) -> Reel:
    journal = record([make_step(mini, sequence) for sequence in range(5)])
    return load_reel(journal, find_episode(journal)[1])


def test_without_rerun_the_extra_is_named(reel: Reel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingExtra, match="rerun") as caught:
        log_to_rerun(reel, tmp_path / "episode.rrd")
    assert "pip install '.[rerun]'" in caught.value.remedy


def test_a_recording_for_rerun_holds_every_step_and_picture(reel: Reel, tmp_path: Path) -> None:
    path = tmp_path / "episode.rrd"
    log_to_rerun(reel, path)
    assert "1 file verified without error" in rerun("verify", path)
    rows: Counter[str] = Counter()
    for count, entity in re.findall(r"with (\d+) rows .* - (/\S+)", rerun("print", "-v", path)):
        rows[entity] += int(count)
    assert rows["/camera/rgb"] == rows["/camera/depth"] == len(reel.rgb) > 0
    actions = {f"/action/{name}/{what}" for name, *_ in reel.actions for what in ("proposed", "commanded")}
    assert {entity: rows[entity] for entity in (*actions, "/policy/version")} == dict.fromkeys(
        (*actions, "/policy/version"), len(reel.shots)
    )


def rerun(*arguments: object) -> str:
    """Ask rerun's own program about a recording."""
    command = [sys.executable, "-m", "rerun", "rrd", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
