"""An episode in rerun's viewer; the only module that knows rerun, whose interface changes with every release."""

from __future__ import annotations

import base64
from pathlib import Path

from policyloop.errors import MissingExtra, StorageError
from policyloop.view.reel import Reel, Shot

__all__ = ["log_to_rerun"]


def log_to_rerun(reel: Reel, output: Path | None) -> None:
    """Write an .rrd file, or open the viewer if `output` is None.

    Raises:
        MissingExtra: rerun is not installed.
        StorageError: The disk refuses.
    """
    try:
        import rerun
    except ImportError as error:
        raise MissingExtra("rerun", "rerun") from error
    recording = rerun.RecordingStream("policyloop", recording_id=f"{reel.robot}-{reel.boot}-{reel.number}")
    try:
        if output is None:
            recording.spawn()
        else:
            recording.save(str(output))
    except (OSError, RuntimeError) as error:
        raise StorageError(f"rerun: {error}", "check --output, or that a screen is there") from error
    for place, shot in enumerate(reel.shots):
        recording.set_time("time", duration=shot.time_s)
        recording.set_time("step", sequence=shot.index)
        for path, value in _scalars(reel, shot).items():
            recording.log(path, rerun.Scalars(value))
        if shot.picture >= 0 and place % reel.picture_stride == 0:
            for name, pictures in (("rgb", reel.rgb), ("depth", reel.depth)):
                data = base64.b64decode(pictures[shot.picture])
                recording.log(f"camera/{name}", rerun.EncodedImage(contents=data, media_type="image/jpeg"))
        words = [shot.source, *shot.reasons, *shot.events]
        if len(words) > 1:
            recording.log("events", rerun.TextLog(", ".join(words)))
    recording.flush()


def _scalars(reel: Reel, shot: Shot) -> dict[str, float]:
    """Return every number of a step by its path."""
    found = {f"reward/{name}": value for name, value in shot.reward.items()}
    found |= {f"sensed/{name}": value for (name, _), value in zip(reel.quantities, shot.proprio, strict=True)}
    for place, (name, *_) in enumerate(reel.actions):
        found[f"action/{name}/proposed"] = shot.proposed[place]
        found[f"action/{name}/commanded"] = shot.commanded[place]
        for field in ("mean", "low", "high"):
            if values := getattr(shot, field):
                found[f"action/{name}/{field}"] = values[place]
    found["policy/version"] = shot.version
    return found
