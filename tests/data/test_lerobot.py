"""A journal as LeRobotDataset v3: the tables and files that its loader expects, read back with pyarrow and pillow."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.data.lerobot import export_lerobot
from policyloop.errors import UsageError
from policyloop.link.journal import Journal


@pytest.fixture
def exported(journal: Journal, tmp_path: Path) -> Path:
    assert export_lerobot(journal, tmp_path / "dataset") == 11
    return tmp_path / "dataset"


def rows(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


def test_the_folder_has_the_layout_of_version_3(exported: Path) -> None:
    files = sorted(str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file())
    assert files == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
    ]


def test_every_step_is_a_row_with_equal_content(exported: Path, steps: list[Step]) -> None:
    table = rows(exported / "data/chunk-000/file-000.parquet")
    assert [row["index"] for row in table] == list(range(11))
    assert [row["episode_index"] for row in table] == [0] * 4 + [1] * 4 + [2] * 3
    assert [row["frame_index"] for row in table] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    for row, step in zip(table, steps, strict=True):
        np.testing.assert_array_equal(np.float32(row["observation.state"]), step.observation["proprio"])
        np.testing.assert_allclose(row["action"], step.record.command.values, rtol=1e-6)
        np.testing.assert_allclose(row["action.proposed"], step.record.action.values, rtol=1e-6)
        assert row["next.done"] == step.record.ended
        assert row["next.reward"] == pytest.approx(step.record.reward, rel=1e-6)
        assert row["timestamp"] == pytest.approx(row["frame_index"] / 10)
        color = np.asarray(Image.open(io.BytesIO(row["observation.images.color"]["bytes"])))
        np.testing.assert_array_equal(color, step.observation["rgb"])
        depth = np.asarray(Image.open(io.BytesIO(row["observation.images.depth"]["bytes"])))
        np.testing.assert_array_equal(depth.astype(np.uint16), step.observation["depth"])


def test_episodes_say_where_their_rows_are(exported: Path) -> None:
    episodes = rows(exported / "meta/episodes/chunk-000/file-000.parquet")
    assert [(e["dataset_from_index"], e["dataset_to_index"], e["length"]) for e in episodes] == [
        (0, 4, 4),
        (4, 8, 4),
        (8, 11, 3),
    ]
    assert all(episode["tasks"] == ["drive"] for episode in episodes)


def test_the_description_matches_the_table(exported: Path, mini: RobotProfile) -> None:
    info = json.loads((exported / "meta/info.json").read_bytes())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (3, 11, 10)
    schema = pq.read_schema(exported / "data/chunk-000/file-000.parquet")
    assert set(info["features"]) == set(schema.names)
    state = info["features"]["observation.state"]
    assert state["names"] == [quantity.name for quantity in mini.proprio]
    assert info["features"]["observation.images.depth"]["shape"] == [36, 64, 1]
    assert rows(exported / "meta/tasks.parquet")[0]["task"] == "drive"


def test_statistics_are_those_of_the_columns(exported: Path, steps: list[Step]) -> None:
    stats = json.loads((exported / "meta/stats.json").read_bytes())
    states = np.stack([step.observation["proprio"] for step in steps]).astype(np.float64)
    np.testing.assert_allclose(stats["observation.state"]["mean"], states.mean(axis=0))
    np.testing.assert_allclose(stats["observation.state"]["std"], states.std(axis=0))
    np.testing.assert_allclose(stats["observation.state"]["max"], states.max(axis=0))
    assert stats["observation.state"]["count"] == [11]


def test_an_existing_folder_is_not_touched(journal: Journal, exported: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        export_lerobot(journal, exported)


def test_an_empty_journal_is_no_dataset(mini: RobotProfile, tmp_path: Path) -> None:
    empty = Journal(tmp_path / "empty", mini, writable=True)
    with pytest.raises(UsageError, match="no steps"):
        export_lerobot(empty, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
    empty.close()
