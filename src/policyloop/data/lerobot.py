"""Journal -> LeRobotDataset v3.0: parquet tables that Hugging Face's tools load.

Pictures are stored in the tables (dtype `image`), not as video: video is lossy and cannot hold depth.
Depth is a 16-bit PNG in millimetres, 0 = no measurement.

    data/chunk-000/file-000.parquet          one row per step
    meta/info.json, tasks.parquet, stats.json
    meta/episodes/chunk-000/file-000.parquet one row per episode
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from policyloop.core.files import write_directory
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import MissingExtra, StorageError, UsageError
from policyloop.link.journal import Journal

__all__ = ["export_lerobot"]

_TASK = "drive"
_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def export_lerobot(journal: Journal, output: Path) -> int:
    """Write every intact step of every episode; returns how many.

    Raises:
        UsageError: `output` exists, or the journal holds nothing.
        MissingExtra: `pyarrow` or `pillow` are not installed.
        StorageError: The disk refuses; nothing is left at `output`.
    """
    if output.exists():
        raise UsageError(f"{output} exists already", "choose another --output")
    try:
        import pyarrow  # noqa: F401
        from PIL import Image  # noqa: F401
    except ImportError as error:
        raise MissingExtra("pyarrow and pillow", "data") from error
    rows, episodes = _rows(journal)
    if not rows:
        raise UsageError("the journal holds no steps", "record some first")
    files = {
        "data/chunk-000/file-000.parquet": _parquet(rows, _features(journal.profile)),
        "meta/episodes/chunk-000/file-000.parquet": _parquet(episodes, {}),
        "meta/tasks.parquet": _parquet([{"task": _TASK, "task_index": 0}], {}),
        "meta/stats.json": msgspec.json.encode(_stats(rows)),
        "meta/info.json": msgspec.json.format(msgspec.json.encode(_info(journal.profile, rows, episodes)), indent=2),
    }
    try:
        write_directory(output, files)
    except OSError as error:
        raise StorageError.cannot_write(output, error) from error
    return len(rows)


def _rows(journal: Journal) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return one row per step, episode by episode, and one per episode."""
    by_episode: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for _, step in journal.intact(journal.read):
        record = step.record
        by_episode.setdefault((record.robot, record.boot, record.episode), []).append(_row(step))
    rows: list[dict[str, Any]] = []
    episodes = []
    for number, steps in enumerate(by_episode.values()):
        first = len(rows)
        for index, row in enumerate(steps):
            row.update(frame_index=index, episode_index=number, index=first + index, task_index=0)
            row["timestamp"] = np.float32(index / journal.profile.rates.control_hz)
        rows += steps
        episodes.append(
            {
                "episode_index": number,
                "tasks": [_TASK],
                "length": len(steps),
                "data/chunk_index": 0,
                "data/file_index": 0,
                "dataset_from_index": first,
                "dataset_to_index": len(rows),
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
    return rows, episodes


def _row(step: Step) -> dict[str, Any]:
    """Return what one step says: `action` is what was really driven, as LeRobot means it."""
    record = step.record
    row: dict[str, Any] = {
        "observation.state": step.observation["proprio"].astype(np.float32),
        "action": np.asarray(record.command.values, np.float32),
        "action.proposed": np.asarray(record.action.values, np.float32),
        "action.is_human": record.action.source == "human",
        "next.reward": np.float32(record.reward),
        "next.done": record.ended,
        "next.terminated": record.terminated,
    }
    if "rgb" in step.observation:
        row["observation.images.color"] = {"bytes": _png(step.observation["rgb"]), "path": None}
        row["observation.images.depth"] = {"bytes": _png(step.observation["depth"]), "path": None}
    return row


def _png(picture: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _features(profile: RobotProfile) -> dict[str, dict[str, Any]]:
    """Return LeRobot's description of every column."""
    state = [q.name if q.size == 1 else f"{q.name}_{i}" for q in profile.proprio for i in range(q.size)]
    actions = [quantity.name for quantity in profile.action]

    def vector(names: list[str]) -> dict[str, Any]:
        return {"dtype": "float32", "shape": [len(names)], "names": names}

    def scalar(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [1], "names": None}

    features: dict[str, dict[str, Any]] = {}
    if profile.camera is not None:
        height, width = profile.camera.height, profile.camera.width
        names = ["height", "width", "channels"]
        features["observation.images.color"] = {"dtype": "image", "shape": [height, width, 3], "names": names}
        features["observation.images.depth"] = {"dtype": "image", "shape": [height, width, 1], "names": names}
    return {
        **features,
        "observation.state": vector(state),
        "action": vector(actions),
        "action.proposed": vector(actions),
        "action.is_human": scalar("bool"),
        "next.reward": scalar("float32"),
        "next.done": scalar("bool"),
        "next.terminated": scalar("bool"),
        "timestamp": scalar("float32"),
        "frame_index": scalar("int64"),
        "episode_index": scalar("int64"),
        "index": scalar("int64"),
        "task_index": scalar("int64"),
    }


def _parquet(rows: list[dict[str, Any]], features: dict[str, dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(feature: dict[str, Any]) -> Any:
        if feature["dtype"] == "image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        base = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}[feature["dtype"]]
        return base if feature["names"] is None else pa.list_(base, feature["shape"][0])

    schema = pa.schema([(name, kind(feature)) for name, feature in features.items()]) if features else None
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def _stats(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return minimum, maximum, mean, deviation and quantiles of every vector column."""
    stats = {}
    for name in ("observation.state", "action", "action.proposed"):
        values = np.stack([row[name] for row in rows]).astype(np.float64)
        stats[name] = {
            "min": values.min(axis=0).tolist(),
            "max": values.max(axis=0).tolist(),
            "mean": values.mean(axis=0).tolist(),
            "std": values.std(axis=0).tolist(),
            "count": [len(values)],
            **{label: np.quantile(values, share, axis=0).tolist() for label, share in _QUANTILES.items()},
        }
    return stats


def _info(profile: RobotProfile, rows: list[dict[str, Any]], episodes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": profile.name,
        "total_episodes": len(episodes),
        "total_frames": len(rows),
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(profile.rates.control_hz),
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": _features(profile),
    }
