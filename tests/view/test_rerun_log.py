from __future__ import annotations

import importlib.util
import sys
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

RERUN = importlib.util.find_spec("rerun") is not None


@pytest.fixture
def reel(record: Callable[[list[Step]], Journal], mini: RobotProfile, make_step: Callable[..., Step]) -> Reel:
    journal = record([make_step(mini, sequence) for sequence in range(5)])
    return load_reel(journal, find_episode(journal)[1])


def test_without_rerun_the_extra_is_named(reel: Reel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingExtra, match=r"policyloop\[rerun\]"):
        log_to_rerun(reel, tmp_path / "episode.rrd")


@pytest.mark.skipif(not RERUN, reason="NOT TESTED: pip install 'policyloop[rerun]'")
def test_a_recording_for_rerun_holds_the_pictures(reel: Reel, tmp_path: Path) -> None:
    path = tmp_path / "episode.rrd"
    log_to_rerun(reel, path)
    data = path.read_bytes()
    assert data[:4] in (b"RRF2", b"RRIO")
    assert len(data) > sum(map(len, [*reel.rgb, *reel.depth])) / 2
