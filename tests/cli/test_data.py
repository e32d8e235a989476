"""Recordings in and out by command: `journal export`, `journal import`, `calibrate`, `run --calibration`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from policyloop.core.calibration import load_sample, sample_paths
from policyloop.core.profile import RobotProfile
from policyloop.errors import StorageError
from policyloop.link.journal import Journal

Call = Callable[..., tuple[int, str, str]]

RECORDED_TOPICS = [
    part
    for name, topic in (
        ("rgb", "color/image"),
        ("depth", "depth/image"),
        ("proprio", "proprio"),
        ("cmd_vel", "cmd_vel"),
    )
    for part in ("--topic", f"{name}=/rover-0/{topic}")
]


def test_a_recording_goes_to_mcap_and_back(policyloop: Call, recorded: Path, tmp_path: Path) -> None:
    code, out, err = policyloop("journal", "export", recorded, "--output", tmp_path / "drive.mcap")
    assert (code, err) == (0, "")
    assert out.startswith("80 steps in ")
    code, out, _ = policyloop(
        *("journal", "import", tmp_path / "drive.mcap", "--journal", tmp_path / "again"),
        *("--profile", "rover-mini", "--name", "copy", *RECORDED_TOPICS),
    )
    assert code == 0
    assert out.startswith("79 steps in 1 episodes; 0 pictures without a partner")
    first, second = Journal(recorded), Journal(tmp_path / "again")
    assert second.header(5).robot == "copy"
    for name in first.profile.observation_specs:
        assert (first.read(5).observation[name] == second.read(5).observation[name]).all()
    first.close()
    second.close()


@pytest.fixture
def drive(policyloop: Call, recorded: Path, tmp_path: Path) -> Path:
    """The recording as MCAP."""
    assert policyloop("journal", "export", recorded, "--output", tmp_path / "drive.mcap")[0] == 0
    return tmp_path / "drive.mcap"


def import_of(bag: Path, journal: Path, *more: object) -> list[object]:
    return ["journal", "import", bag, "--journal", journal, "--profile", "rover-mini", *RECORDED_TOPICS, *more]


def test_a_failed_import_leaves_no_journal_behind(policyloop: Call, drive: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(drive.read_bytes()[: drive.stat().st_size // 2])
    journal = tmp_path / "folder" / "journal"
    for arguments, expected in (
        (import_of(broken, journal), 1),
        (import_of(drive, journal, "--topic", "rgb=/nowhere"), 2),
        (import_of(drive, journal, "--topic", "proprio=/rover-0/action"), 5),
    ):
        code, out, err = policyloop(*arguments)
        assert (code, out) == (expected, ""), err
        assert not journal.parent.exists()
    assert policyloop(*import_of(drive, journal, "--json"))[0] == 0
    opened = Journal(journal)
    assert opened.next == 79
    opened.close()


def test_an_import_that_stops_half_way_says_how_far_it_came(
    policyloop: Call, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, steps = Journal.append, 0

    def fill_up(journal: Journal, frames: list[bytes]) -> int:
        nonlocal steps
        if steps == 30:
            raise StorageError("cannot write: No space left on device", "free some space")
        steps += 1
        return append(journal, frames)

    monkeypatch.setattr(Journal, "append", fill_up)
    code, out, err = policyloop(*import_of(drive, tmp_path / "journal"))
    assert (code, out) == (1, "")
    assert re.match(rf"stopped behind message \d+ of \d+: 30 steps are in {tmp_path / 'journal'} already; ", err)
    assert "No space left" in err
    opened = Journal(tmp_path / "journal")
    assert opened.next == 30
    opened.close()


def test_the_numbers_of_a_recording_become_a_table(policyloop: Call, recorded: Path, tmp_path: Path) -> None:
    code, out, err = policyloop("journal", "export", recorded, "--output", tmp_path / "drive.csv")
    assert (code, err) == (0, "")
    assert out.startswith("80 steps in ")
    assert len((tmp_path / "drive.csv").read_text().splitlines()) == 81


def test_a_recording_becomes_a_lerobot_dataset(policyloop: Call, recorded: Path, tmp_path: Path) -> None:
    code, out, _ = policyloop("journal", "export", recorded, "--output", tmp_path / "dataset")
    assert (code, out) == (0, f"80 steps in {tmp_path / 'dataset'}\n")
    assert json.loads((tmp_path / "dataset/meta/info.json").read_bytes())["total_frames"] == 80


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["journal", "export", "{journal}", "--output", "{out}", "--format", "hdf5"], 2, "mcap, csv or lerobot"),
        (["journal", "export", "{out}/nowhere", "--output", "{out}/x.mcap"], 1, "no journal at"),
        (["journal", "import", "{out}/no.mcap", "--journal", "{out}/j"], 1, "cannot read"),
        (["journal", "import", "{out}/no.mcap", "--journal", "{out}/j", "--topic", "lidar=/x"], 2, "SENSOR=TOPIC"),
        (["calibrate", "{journal}", "--output", "{journal}"], 2, "not empty"),
    ],
)
def test_what_cannot_be_is_said_with_a_remedy(
    policyloop: Call, recorded: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    result = policyloop(*(argument.format(journal=recorded, out=tmp_path) for argument in arguments))
    assert result[0] == code
    assert words in result[2]


def test_calibrate_chooses_and_says_what_is_covered(
    policyloop: Call, recorded: Path, mini: RobotProfile, tmp_path: Path
) -> None:
    code, out, _ = policyloop("calibrate", recorded, "--output", tmp_path / "set", "--count", 12, "--json")
    assert code == 0
    coverage = json.loads(out)
    assert coverage["chosen"] == len(sample_paths(tmp_path / "set")) == 12
    assert coverage["covered"] <= coverage["strata"]
    assert load_sample(sample_paths(tmp_path / "set")[0], mini)["rgb"].shape == (36, 64, 3)
    out = policyloop("calibrate", recorded, "--output", tmp_path / "other", "--count", 12)[1]
    assert out.startswith("12 of 80 observations")


def test_a_driving_robot_takes_calibration_samples(
    policyloop: Call, cloned: Path, mini: RobotProfile, tmp_path: Path
) -> None:
    code, _, _ = policyloop(
        *("run", "--profile", "rover-mini", "--policy", cloned / "store", "--seconds", "1.5"),
        *("--calibration", tmp_path / "set", "--calibration-interval", "0.5", "--calibration-count", "2"),
    )
    assert code == 0
    assert len(sample_paths(tmp_path / "set")) == 2


PLUGIN = """
import gymnasium, numpy as np
from policyloop.sim.env import RoverEnv

def rover():
    return RoverEnv("rover-mini")

def forward():
    return lambda observation: np.array([0.5, 0.0], np.float32)

class Legs(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (5,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._see(), {}
    def step(self, action):
        self.steps += 1
        return self._see(), 0.0, False, self.steps == 7, {}
    def _see(self):
        return self.np_random.normal(size=5).astype(np.float32)
"""


def test_calibrate_records_in_the_users_own_simulation(
    policyloop: Call, mini: RobotProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "calibration_plugin.py").write_text(PLUGIN)
    code, out, err = policyloop(
        *("calibrate", "--env", "calibration_plugin:rover", "--policy", "calibration_plugin:forward"),
        *("--output", "rover", "--samples", 5, "--interval", 3),
    )
    assert (code, out) == (0, "5 observations in rover\n"), err
    samples = [load_sample(path, mini) for path in sample_paths(tmp_path / "rover")]
    assert len(samples) == 5
    speeds = [float(sample["proprio"][mini.proprio_index("linear_vel")]) for sample in samples]
    assert speeds[0] < 0.05 < speeds[-1]
    code, _, err = policyloop("calibrate", "--env", "calibration_plugin:Legs", "--output", "legs", "--count", 9)
    assert code == 0, err
    paths = sample_paths(tmp_path / "legs")
    with np.load(paths[-1]) as stored:
        assert stored["obs"].shape == (5,)
    assert len(paths) == 9


def test_calibrate_takes_a_journal_or_an_environment(policyloop: Call, recorded: Path, tmp_path: Path) -> None:
    for arguments in ([], [recorded, "--env", "a:b"]):
        code, _, err = policyloop("calibrate", *arguments, "--output", tmp_path / "set")
        assert (code, "one of them" in err) == (2, True)
